"""What is drawn and written is what the stored episodes say, computed here the slow way."""

import csv
import io
import json
import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import stats

from llm_experiment.base.loading import load_tokenizer
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.judge import main as judge
from llm_experiment.measures.closed_form import sequence_shares
from llm_experiment.measures.metrics import METRICS, SMOOTHINGS
from llm_experiment.measures.tables import BASE_ROW
from llm_experiment.records.reading import read_experiment
from mightnt.figure_style import figure_style
from mightnt.statistics import ShareInterval, share_interval
from paper_figures import (
    figure_1,
    figure_2,
    figure_3,
    figure_4,
    figure_6,
    figure_7,
    figure_9,
    figure_10,
    figure_11,
    table_1,
    table_2,
    table_3,
)
from paper_figures.results import Sources
from theory.errors import MissingDataError
from theory.overspending import all_in_spending_nats
from toy_world.programs.events import simplest_later_clock_event
from toy_world.programs.language import Language
from toy_world.studies.regularisers import Constraint, matched_budget
from toy_world.studies.simple_events import CLOCK_DECADES


def built(build, sources):
    with figure_style():
        return build(sources)


def records(product) -> list[dict]:
    return list(csv.DictReader(io.StringIO(product.data.to_csv())))


def stored(run_folder, name, length):
    with np.load(run_folder / "agents" / name / f"episodes-{length}.npz") as file:
        return {key: file[key] for key in file.files}


def student(values, *, most=1.0):
    """Mean and the ends of Student's interval, as a statistics library has them, in [0, most]."""
    values = np.array(values, dtype=float)
    if len(values) < 2:
        return values.mean(), None, None
    mean, error = values.mean(), stats.sem(values)
    if error == 0:
        return mean, mean, mean
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return mean, max(low, 0.0), min(high, most)


def own_turns(episodes):
    """For each episode the agent's turns that count: (tokens' places, is it empty)."""
    found = defaultdict(list)
    for e, who, opened, closed, finished, empty in zip(
        episodes["turn_episode"],
        episodes["turn_speaker"],
        episodes["turn_opened"],
        episodes["turn_closed"],
        episodes["turn_finished"],
        episodes["empty_turns"],
        strict=True,
    ):
        if who == 0 and finished and opened >= episodes["prompt_length"]:
            found[int(e)].append((range(opened + 1, closed + 1), bool(empty)))
    return found


def close(text, number):
    if number is None or math.isnan(number):
        return text == ""
    return float(text) == pytest.approx(number, rel=1e-9, abs=1e-12)


def drawn(product, x, y) -> bool:
    """Whether some line or bar of the figure passes through a point."""
    for axes in product.picture.axes:
        for line in axes.lines:
            xs, ys = np.array(line.get_xdata(), float), np.array(line.get_ydata(), float)
            if np.any(np.isclose(xs, x) & np.isclose(ys, y)):
                return True
        bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        if any(np.isclose(bar.get_height(), y) for bar in bars):
            return True
    return False


def ends_drawn(product) -> np.ndarray:
    """The corners of every band and the ends of every error bar, shape (n, 2)."""
    points = []
    for axes in product.picture.axes:
        for collection in axes.collections:
            if isinstance(collection, PolyCollection):
                points += [path.vertices for path in collection.get_paths()]
            if isinstance(collection, LineCollection):
                points += [np.asarray(segment) for segment in collection.get_segments()]
    return np.concatenate(points)


@pytest.mark.parametrize(
    ("build", "x", "mean"),
    [
        (figure_3.build, "n", "KL (nats), mean over runs"),
        (figure_4.build, "x", "mean over runs"),
        (figure_9.build, "budget (nats)", "silent share"),
        (figure_10.build, "steps or nats", "mean"),
        (figure_11.build, "tokens or d", "mean over runs"),
    ],
)
def test_every_interval_is_drawn_from_its_low_to_its_high_end(build, x, mean, sources):
    product = built(build, sources)
    drawn_ends = ends_drawn(product)
    with_interval = [
        row
        for row in records(product)
        if row["low"] and row.get("series") != BASE_ROW and row.get("panel") != "histogram"
    ]
    assert any(float(row["low"]) < float(row[mean]) < float(row["high"]) for row in with_interval)
    for row in with_interval:
        for end in (row["low"], row["high"]):
            there = np.isclose(drawn_ends, [float(row[x]), float(end)], rtol=1e-6, atol=1e-9)
            assert there.all(axis=1).any(), row


def test_the_diagram_has_no_data(sources):
    product = built(figure_1.build, sources)
    assert product.data is None
    texts = {text.get_text() for text in product.picture.axes[0].texts}
    assert {"demonstrator τ", "base policy β", "agent π", "KL(π ‖ β) ≤ B"} <= texts


def test_figure_2_shows_the_episode_of_median_return_token_by_token(sources, run_folder):
    product = built(figure_2.build, sources)
    found = records(product)
    tokenizer = load_tokenizer(str(language_model_folder("classroom")))
    budgets = dict.fromkeys(row["budget (nats)"] for row in found)
    assert list(budgets) == ["12.0", "40.0"]
    for budget in budgets:
        own = [row for row in found if row["budget (nats)"] == budget]
        episodes = stored(run_folder, f"exact-budget{float(budget):g}-seed0", 64)
        returns = episodes["rewards"].sum(axis=1)
        episode = int(own[0]["episode"])
        assert float(own[0]["return"]) == pytest.approx(np.sort(returns)[2])  # of five
        assert returns[episode] == pytest.approx(np.median(returns))
        text = "".join(row["text"] for row in own).replace("↵", "\n")
        assert text == tokenizer.decode(episodes["tokens"][episode].tolist())
        np.testing.assert_allclose(
            [float(row["KL (nats)"]) for row in own], episodes["kl_nats"][episode]
        )
        noted = [int(row["token"]) for row in own if row["footnote"]]
        assert set(noted) == set(np.argsort(episodes["kl_nats"][episode])[-3:].tolist())


def test_figure_2_shows_a_character_that_is_split_over_tokens_whole():
    pieces = [b"S: ", b"\xe8\x80", b"\x81", b":", b"\n", b"ok"]
    tokens = np.array([[0, 5, 4, 1, 2, 3, 5, 4, 1]])
    stored = {
        "tokens": tokens,
        "writers": np.zeros_like(tokens),
        "kl_nats": np.linspace(0, 1, 9)[None],
        "budget_nats": np.ones((1, 9)),
        "rewards": np.ones((1, 9)),
        "prompt_length": np.array(1),
    }
    run = SimpleNamespace(episodes=SimpleNamespace(arrays=lambda *names: stored))
    transcript = figure_2.median_transcript(run, pieces, name="\u8001")
    texts = [token.text for token in transcript.tokens]
    line = figure_2.SHOWN_NEWLINE
    assert texts == ["S: ", "ok", line, "\u8001", "", ":", "ok", line, "\ufffd\ufffd"]
    assert [token.place for token in transcript.tokens if token.opens] == [3]


@pytest.mark.parametrize(("n", "rank"), [(1, 0), (2, 0), (5, 2), (6, 2)])
def test_of_an_even_number_of_episodes_the_lower_median_is_shown(n, rank):
    arrays = {
        "tokens": np.zeros((n, 2), dtype=int),
        "writers": np.zeros((n, 2), dtype=int),
        "kl_nats": np.zeros((n, 2)),
        "budget_nats": np.ones((n, 2)),
        "rewards": np.arange(n)[::-1, None] * np.array([0.0, 1.0]),
        "prompt_length": np.array(1),
    }
    run = SimpleNamespace(episodes=SimpleNamespace(arrays=lambda *_names: arrays))
    found = figure_2.median_transcript(run, [b"word"], name="T")
    assert (found.episode_return, found.episode) == (rank, n - 1 - rank)


def test_figure_2_gives_a_cost_the_colour_that_its_legend_promises():
    """An edge is the least cost of its colour: `>=` in the legend."""
    for edge in figure_2.EDGES_NATS:
        assert figure_2._ground(edge) == figure_2._ground(edge * 1.001)
        assert figure_2._ground(edge) != figure_2._ground(edge * 0.999)


def test_figure_2_darkens_with_the_cost():
    luminances = [
        np.dot(figure_2._ground(nats)[0][:3], [0.299, 0.587, 0.114])
        for nats in (0.0, *figure_2.EDGES_NATS)
    ]
    assert luminances == sorted(luminances, reverse=True)


def test_figure_3_has_the_quartiles_of_what_empty_turns_cost(sources, run_folder):
    product = built(figure_3.build, sources)
    found = records(product)
    assert {row["budget (nats)"] for row in found} == {"12.0", "40.0"}
    for row in found:
        quartiles, n_episodes = [], 0
        for seed in (0, 1):
            name = f"exact-budget{float(row['budget (nats)']):g}-seed{seed}"
            episodes = stored(run_folder, name, 64)
            costs = []
            for e, turns in own_turns(episodes).items():
                empty = [places for places, is_empty in turns if is_empty]
                if len(empty) >= int(row["n"]):
                    places = empty[int(row["n"]) - 1]
                    costs.append(sum(episodes["kl_nats"][e, i] for i in places))
            n_episodes += len(costs)
            if costs:
                quartiles.append(np.percentile(costs, float(row["quartile"].rstrip("%"))))
        mean, low, high = student(quartiles, most=math.inf)
        assert close(row["KL (nats), mean over runs"], mean)
        assert close(row["low"], low)
        assert close(row["high"], high)
        assert int(row["episodes"]) == n_episodes
        assert drawn(product, float(row["n"]), mean)


def test_figure_4_has_the_shares_of_empty_turns_of_every_length(sources, run_folder):
    product = built(figure_4.build, sources)
    found = [row for row in records(product) if not row["series"].startswith("base policy")]
    names = {row["series"] for row in found if row["budget (nats)"] == "40.0"}
    assert names == {"64 tokens, as trained", "80 tokens, not retrained", "80 tokens, as trained"}
    for row in found:
        budget, length = float(row["budget (nats)"]), row["tokens"]
        names = [f"exact-budget{budget:g}-seed{seed}" for seed in (0, 1)]
        if row["trained at (tokens)"] == "80":
            names = [f"length80-budget{budget:g}-seed0"]
        numbers = []
        for name in names:
            turns = own_turns(stored(run_folder, name, length)).values()
            shares = [sum(empty for _, empty in own) / len(own) for own in turns]
            x = float(row["x"])
            numbers.append(
                np.mean([x <= s < x + 0.1 or (s == 1 and x == 0.9) for s in shares])
                if row["panel"] == "histogram"
                else np.percentile(shares, x)
            )
        mean, low, high = student(numbers)
        assert close(row["mean over runs"], mean)
        assert close(row["low"], low)
        assert close(row["high"], high)
        assert drawn(product, float(row["x"]), mean)


def test_a_run_without_a_turn_is_no_run_without_an_empty_one():
    def run(*shares):
        counts = SimpleNamespace(empty_shares=np.array(shares))
        return SimpleNamespace(turn_counts=lambda: counts, n_tokens=9)

    settings = {"budget_nats": 1.0, "trained_at": 9}
    with_turns = figure_4._series("a", [run(0.5, 1.0)], **settings)
    both = figure_4._series("a", [run(0.5, 1.0), run()], **settings)
    assert both.bins == with_turns.bins
    assert both.percentiles == with_turns.percentiles
    assert sum(bin_.mean for bin_ in both.bins) == 1
    silent = figure_4._series("a", [run(), run()], **settings)
    assert len(silent.bins) == len(both.bins)
    assert len(silent.percentiles) == len(both.percentiles)
    assert all(math.isnan(value.mean) for value in (*silent.bins, *silent.percentiles))
    figure_4._draw_histogram(Figure().subplots(), (silent,), (silent,))


def test_figure_6_has_certified_values_that_grow_with_the_budget(sources):
    product = built(figure_6.build, sources)
    by_constraint = defaultdict(list)
    for row in records(product):
        by_constraint[row["constraint"]].append(row)
    assert len(by_constraint) == 7
    for own in by_constraint.values():
        values = [float(row["value"]) for row in own]
        assert values == sorted(values)
        for row in own:
            assert float(row["upper bound"]) - float(row["value"]) < 1e-9
            assert drawn(product, float(row["budget (nats or TVD)"]), float(row["value"]))
    kinds = ("expected KL", "fixed KL", "adaptive KL")
    for expected, fixed, adaptive in zip(*(by_constraint[kind] for kind in kinds), strict=True):
        assert float(expected["value"]) >= float(fixed["value"]) - 1e-9
        assert float(fixed["value"]) >= float(adaptive["value"]) - 1e-9


def test_figure_7_has_the_clocks_exact_lengths(sources):
    product = built(figure_7.build, sources)
    clock = [row for row in records(product) if row["panel"] == "clock"]
    language = Language(n_actions=3, n_observations=2)
    assert [int(row["K (bits)"]) for row in clock] == [
        simplest_later_clock_event(language, 10**decade).bits for decade in CLOCK_DECADES
    ]


def test_figure_9_has_silent_shares_below_the_bound_and_a_closed_form(sources, run_folder):
    product = built(figure_9.build, sources)
    found = records(product)
    for row in found:
        if row["series"] not in ("exact budget", "realized budget"):
            continue
        kind = row["series"].removesuffix(" budget")
        seeds = (0, 1) if kind == "exact" else (0,)
        shares = []
        for seed in seeds:
            name = f"{kind}-budget{float(row['budget (nats)']):g}-seed{seed}"
            turns = own_turns(stored(run_folder, name, row["tokens"]))
            silent = [sum(e for _, e in own) > len(own) / 2 for own in turns.values()]
            shares.append(sum(silent) / 5)
        mean, low, high = student(shares)
        assert close(row["silent share"], mean)
        assert close(row["low"], low)
        assert close(row["high"], high)
        assert drawn(product, float(row["budget (nats)"]), mean)
    base = json.loads((run_folder / "base" / "result.json").read_text())
    p = base["first_silence_probability"]
    for row in (row for row in found if row["series"] == "closed form"):
        q, budget = float(row["silent share"]), float(row["budget (nats)"])
        rest = 0.0 if q == 1 else (1 - q) * math.log((1 - q) / (1 - p))
        spent = q * math.log(q / p) + rest
        assert spent <= budget + 1e-9
        assert spent == pytest.approx(budget, abs=1e-9) or q == 1


def test_figure_9_has_the_closed_form_of_several_purchases(sources, run_folder):
    product = built(figure_9.build, sources)
    prices = json.loads((run_folder / "base" / "result.json").read_text())["silence_nats"]
    name = f"{len(prices)} turns, each bought"
    rows = [row for row in records(product) if row["series"] == name]
    assert {row["tokens"] for row in rows} == {"64", "80"}
    for row in rows:
        share = float(row["silent share"])
        assert close(share, sequence_shares(prices, float(row["budget (nats)"])).prod())
    assert f"{sum(prices):.2f} nats in all" in product.caption


def test_figure_9_has_the_base_policy_at_budget_0_where_no_agent_stands(sources, run_folder):
    product = built(figure_9.build, sources)
    own = {row["tokens"]: row for row in records(product) if row["series"] == BASE_ROW}
    base = json.loads((run_folder / "base" / "result.json").read_text())
    assert set(own) == {"64", "80"}
    for row in base["rows"]:
        found = own[str(row["n_tokens"])]
        n, share = row["n_episodes"], row["silent_share"]
        ends = share_interval(round(share * n), n)
        assert (float(found["budget (nats)"]), float(found["silent share"])) == (0.0, share)
        assert (float(found["low"]), float(found["high"])) == (ends.low, ends.high)
        assert drawn(product, 0.0, share)
    assert "over its episodes" in product.caption


def test_figure_10_has_the_spending_of_both_accountings(sources, run_folder):
    product = built(figure_10.build, sources)
    found = records(product)
    theory = [row for row in found if row["panel"].startswith("a") and "no floor" in row["series"]]
    for row in theory:
        assert close(
            row["mean"],
            all_in_spending_nats(1.0, token_probability=0.01, horizon=int(row["steps or nats"])),
        )
    trained = [row for row in found if row["panel"].startswith("b")]
    assert {row["series"] for row in trained} == {"exact, 12 nats", "realised, 12 nats"}
    for row in trained:
        kind, seeds = ("exact", (0, 1)) if row["series"][0] == "e" else ("realized", (0,))
        level = float(row["steps or nats"])
        shares = [
            np.mean(
                stored(run_folder, f"{kind}-budget12-seed{s}", 64)["kl_nats"].sum(axis=1) > level
            )
            for s in seeds
        ]
        assert close(row["mean"], student(shares)[0])
        if kind == "exact" and level > 12:
            assert float(row["mean"]) == 0


def test_an_episode_exceeds_what_it_does_not_only_reach():
    spent = {"spent_nats": np.array([1.0, 2.0, 3.0, 4.0])}
    run = SimpleNamespace(episodes=SimpleNamespace(arrays=lambda *_names: spent))
    shares = figure_10.exceedance([run], np.array([0.0, 2.0, 2.5, 4.0]))
    assert [over.mean for over in shares] == [1.0, 0.5, 0.5, 0.0]


def test_figure_11_has_the_agents_own_smoothed_kl(sources, rows):
    found = [row for row in records(built(figure_11.build, sources)) if "smooth" in row["panel"]]
    agents = [row for row in found if row["group"] != BASE_ROW]
    assert agents
    for row in agents:
        place = SMOOTHINGS.index(float(row["tokens or d"]))
        own = [
            each["smoothed_kl_nats_per_step"][place]
            for each in rows
            if each["variant"] == "exact budget"
            and each["n_tokens"] == each["trained_at_n_tokens"] == 64
            and f"{each['budget_nats']:g} nats" == row["group"]
        ]
        assert len(own) == 2
        mean, low, high = student(own, most=math.inf)
        assert close(row["mean over runs"], mean)
        assert close(row["low"], low)
        assert close(row["high"], high)


def test_figure_11_counts_the_episodes_that_are_still_possible(sources, run_folder):
    product = built(figure_11.build, sources)
    found = [row for row in records(product) if row["panel"] == "possible"]
    assert {row["group"] for row in found} == {"12 nats", "40 nats", BASE_ROW}
    for row in (row for row in found if row["group"] != BASE_ROW):
        n = int(row["tokens or d"])
        budget = row["group"].removesuffix(" nats")
        shares = [
            np.mean(
                [
                    np.isfinite(logs[:n]).all()
                    for logs in stored(run_folder, f"exact-budget{budget}-seed{seed}", 64)[
                        "demonstrator_log_probs"
                    ]
                ]
            )
            for seed in (0, 1)
        ]
        mean, low, high = student(shares)
        assert close(row["mean over runs"], mean)
        assert close(row["low"], low)
        assert close(row["high"], high)
        assert drawn(product, n, mean)


def test_table_1_is_what_the_judge_stored(run_folder, tmp_path):
    with pytest.raises(MissingDataError, match=r"python -m llm_experiment\.judge"):
        table_1.build(Sources(found=read_experiment([run_folder])))
    judge([str(run_folder), "--n-pairs", "10"])
    try:
        product = table_1.build(Sources(found=read_experiment([run_folder])))
        stored_judgements = json.loads((run_folder / "judge.json").read_text())["judgements"]
    finally:
        (run_folder / "judge.json").unlink()
    found = records(product)
    assert len(found) == len(stored_judgements) == product.picture.count("\n") - 1
    for row in found:
        (judgement,) = (
            j
            for j in stored_judgements
            if (j["model"], j["comparison"]) == (row["model"], row["comparison"])
        )
        verdicts = judgement["verdicts"]
        decided = verdicts.count("first") + verdicts.count("second")
        assert int(row["first"]) == verdicts.count("first")
        if decided:
            assert float(row["share of the first"]) == verdicts.count("first") / decided
            ends = share_interval(verdicts.count("first"), decided, kind=ShareInterval.WILSON)
            assert close(row["low, over pairs"], ends.low)
            assert close(row["high, over pairs"], ends.high)


def test_table_2_has_matched_budgets_and_a_safe_pessimist(sources):
    for row in records(built(table_2.build, sources)):
        constraint = Constraint(row["constraint"])
        assert float(row["budget"]) == matched_budget(constraint, float(row["eps (nats)"]))
        if constraint is Constraint.PESSIMISTIC:
            assert float(row["P(never-done action)"]) == 0


def test_table_3_has_a_row_for_every_constraint(sources, rows):
    product = table_3.build(sources)
    found = {(row["agent"], row["budget (nats)"], row["tokens"]): row for row in records(product)}
    own = defaultdict(list)
    for row in rows:
        if row["n_tokens"] == row["trained_at_n_tokens"]:
            own[row["variant"], str(float(row["budget_nats"])), str(row["n_tokens"])].append(row)
    assert set(own) == {key for key in found if key[0] != "base policy"}
    for key, group in own.items():
        mean, low, high = student([row["spent_nats_mean"] for row in group], most=math.inf)
        assert close(found[key]["spent_nats_mean, mean"], mean)
        assert close(found[key]["spent_nats_mean, low"], low)
        assert close(found[key]["spent_nats_mean, high"], high)
    base = found["base policy", "0.0", "64"]
    share = float(base["silent_share, mean"])
    assert float(base["silent_share, high"]) == share_interval(round(share * 12), 12).high
    assert base["return_mean, low"] == ""
    assert f"| {BASE_ROW} | 0 | 64 | 1 |" in product.picture


def test_no_interval_of_a_share_leaves_what_a_share_can_be(sources):
    """With two runs Student's interval is wide, and is cut as in the tables of a run."""
    ends = []
    for row in records(table_3.build(sources)):
        for name, metric in METRICS.items():
            least, most = metric.within
            for part in ("low", "high"):
                end = row.get(f"{name}, {part}")
                if end:
                    ends.append(end)
                    assert least <= float(end) <= most, (name, end)
    for build in (figure_4.build, figure_9.build, figure_10.build, figure_11.build):
        for row in records(built(build, sources)):
            for part in ("low", "high"):
                if row[part]:
                    ends.append(row[part])
                    assert float(row[part]) >= 0
                    smoothed = row.get("panel", "").startswith("smoothed")
                    assert smoothed or float(row[part]) <= 1, row
    assert any(float(end) == 1 for end in ends)
    assert any(float(end) == 0 for end in ends)


def test_figures_are_about_the_behaviour_of_the_task(sources):
    """The same numbers, said to be of the quiz."""
    found = sources.experiment()
    folders = tuple(
        replace(run, agent=replace(run.agent, world=replace(run.agent.world, task="quiz")))
        for run in found.folders
    )
    other = replace(sources, found=replace(found, folders=folders))
    for module in (figure_3, figure_4, figure_9):
        caption = built(module.build, other).caption
        assert "both-ways" in caption
        assert "silen" not in caption.lower()
        assert "empty" not in caption.lower()
    table = built(table_3.build, other)
    assert "both-ways" in table.picture
    assert "silen" in built(table_3.build, sources).picture
