import json
import math
from dataclasses import replace

import pytest

from llm_experiment import pessimist_comparison
from llm_experiment.pessimism.comparison_plan import Base, ComparisonPlan
from llm_experiment.pessimism.context_prices import ContextPrices, PricesByContext
from llm_experiment.pessimist_comparison import AgentsRow, BaseRow, Comparison
from llm_experiment.pessimists import agents_table, bases_table, main, plot, prices_table
from mightnt.figure_style import series_look
from mightnt.statistics import mean_over_runs
from theory.errors import InvalidArgumentError
from theory.missing_mass import Help

FEW = ContextPrices(n_turns=3, percentiles_nats=(1.25, 5.0, 6.0, math.inf), expected=0.5)
NONE = ContextPrices(n_turns=0, percentiles_nats=(), expected=0.0)
PLAN = ComparisonPlan(bases=(Base.BAYESIAN, Base.AUDIT), budgets_nats=(3.0, 10.0), n_seeds=2)


def agents(base, budget, silent):
    same = mean_over_runs([0.5, 0.5])
    return AgentsRow(
        base=base,
        budget_nats=budget,
        silent_share=mean_over_runs(silent, within=(0.0, 1.0)),
        empty_share=same,
        possible_share=same,
        outside_mass=same,
        help_share=same,
        spent_nats=same,
        return_mean=same,
    )


def base_row(base, nats):
    return BaseRow(
        base=base,
        first_silence_nats=nats,
        silent_episode_nats=nats + 1,
        n_silences=36.0,
        silent_share=0.04,
        possible_share=0.84,
        outside_mass=1e-3,
        help_share=0.0,
        prices=PricesByContext(after_words=FEW, after_empty=NONE, everywhere=FEW),
        audit=None,
    )


COMPARISON = Comparison(
    plan=PLAN,
    bases=(base_row(Base.BAYESIAN, 6.1), base_row(Base.AUDIT, math.inf)),
    agents=tuple(
        agents(base, budget, silent)
        for base, silent in ((Base.BAYESIAN, (0.9, 1.0)), (Base.AUDIT, (0.0, 0.0)))
        for budget in PLAN.budgets_nats
    ),
)


def test_each_base_policy_is_a_world_of_its_own():
    plan = replace(PLAN, bases=tuple(Base), members=("a", "b"))
    worlds = {base: plan.world(base) for base in Base}
    assert not worlds[Base.BAYESIAN].is_pessimistic
    assert worlds[Base.ENSEMBLE].members == ("a", "b")
    ways = {base: world.missing_mass for base, world in worlds.items()}
    assert ways == {
        Base.BAYESIAN: None,
        Base.ENSEMBLE: Help.ASK,
        Base.AUDIT: Help.DEMONSTRATOR,
        Base.HARD: Help.DEMONSTRATOR,
        Base.RENORMALISED: Help.RENORMALISE,
        Base.ASKING: Help.ASK,
        Base.ATTACKED: Help.DEMONSTRATOR,
        Base.CONFIDENCE: Help.DEMONSTRATOR,
    }
    assert worlds[Base.ATTACKED].members == (str(plan.member_folder),)
    assert replace(plan, bases=(Base.ATTACKED, Base.BAYESIAN)).ordered_bases[0] is Base.BAYESIAN
    audit, hard = (str(plan.veto_files[form]) for form in (Base.AUDIT, Base.HARD))
    assert {base for base, world in worlds.items() if world.vetoes == audit} == {
        Base.AUDIT,
        Base.ASKING,
    }
    assert {base for base, world in worlds.items() if world.vetoes == hard} == {
        Base.HARD,
        Base.RENORMALISED,
    }
    assert plan.settings(Base.AUDIT).agents.budgets_nats == PLAN.budgets_nats


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bases": (Base.ENSEMBLE,)}, "name their folders with --members"),
        ({"bases": ()}, "must name at least 1 each"),
        ({"budgets_nats": (0.0,)}, "budgets must be > 0"),
        ({"n_seeds": 0}, "n_seeds must be >= 1"),
        ({"alpha": 2.0}, "alpha must lie in"),
    ],
)
def test_impossible_plans_are_refused(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        ComparisonPlan(**changes)


def test_the_tables_say_impossible_where_silence_is():
    rows = agents_table(COMPARISON).texts
    assert rows[0][:4] == ("language model", "3", "2", "95% (31% to 100%)")
    assert rows[3][:4] == ("vetoes, audit", "10", "2", "0% (0% to 0%)")
    own = bases_table(COMPARISON).rows
    assert own[1][1:3] == (math.inf, math.inf)
    prices = prices_table(COMPARISON).rows
    assert prices[0][1:] == ("words", 3, 1.25, 5.0, 6.0, math.inf, 0.5)
    assert prices[1][1:] == ("an empty turn", 0, None, None, None, None, 0.0)


def test_the_figure_draws_every_agent_with_its_interval(tmp_path):
    from matplotlib.axes import Axes

    drawn = []
    original = Axes.errorbar

    def errorbar(self, x, y, **look):
        drawn.append((look["label"], list(y), [list(side) for side in look["yerr"]]))
        return original(self, x, y, **look)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Axes, "errorbar", errorbar)
        png, pdf = plot(COMPARISON, tmp_path / "pessimists")
    assert png.is_file()
    assert pdf.is_file()
    label, means, (low, high) = drawn[0]
    over = COMPARISON.agents[0].silent_share
    assert (label, means) == ("language model", [0.95, 0.95])
    assert low == pytest.approx([over.mean - over.low] * 2)
    assert high == pytest.approx([over.high - over.mean] * 2)
    assert len(drawn) == 4 * len(PLAN.bases)


def test_the_figure_has_room_for_every_base_policy(tmp_path):
    plan = replace(PLAN, bases=tuple(Base), members=("a",))
    rows = tuple(agents(base, budget, (0.0, 0.1)) for base in Base for budget in plan.budgets_nats)
    png, _ = plot(replace(COMPARISON, plan=plan, agents=rows), tmp_path / "pessimists")
    assert png.is_file()
    looks = {tuple(series_look(i).items()) for i in range(56)}
    assert len(looks) == 56


def test_a_small_comparison_is_one_command_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pessimist_comparison, "N_PRICED", 8)
    monkeypatch.setattr(pessimist_comparison, "N_HELD_OUT", 4)
    options = (
        "--out", str(tmp_path), "--bases", "audit", "--budgets-nats", "2", "--n-seeds", "1",
        "--n-dialogues", "40", "--n-dialogue-tokens", "128", "--agent-steps", "100",
        "--n-base-episodes", "8", "--processes", "1",
    )  # fmt: skip
    main(options)
    printed = capsys.readouterr().out
    assert "Agents against pessimistic base policies" in printed
    stored = json.loads((tmp_path / "pessimists.json").read_text())
    (audit,) = stored["bases"]
    assert audit["first_silence_nats"] == "inf"
    assert audit["help_share"] > 0
    assert [row["silent_share"]["mean"] for row in stored["agents"]] == [0.0]
    assert (tmp_path / "pessimists.png").is_file()
    (row,) = map(json.loads, (tmp_path / "pessimists.agents.jsonl").read_text().splitlines())
    assert (row["silent_episodes"], row["nats"], row["seeds"]) == (0.0, 2.0, 1)
    (row,) = map(json.loads, (tmp_path / "pessimists.bases.jsonl").read_text().splitlines())
    assert row["first_silence_nats"] == math.inf
    agent = next((tmp_path / "audit" / "agents").iterdir()) / "result.json"
    trained = agent.stat().st_mtime_ns
    main(options)
    assert agent.stat().st_mtime_ns == trained
    again = json.loads((tmp_path / "pessimists.json").read_text())
    assert again["agents"] == stored["agents"]
    for name, value in audit.items():
        assert again["bases"][0][name] == value, name
