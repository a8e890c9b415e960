"""What an audit says is what its arrays hold, counted another way."""

import csv
import math

import numpy as np
import pytest

from llm_experiment.auditing.parts import part_path, read_parts, write_part
from llm_experiment.auditing.prompts import PlainPrompt
from llm_experiment.auditing.summary import Spread, spread, summarise
from llm_experiment.auditing.tables import all_tables, write_csv
from mightnt.results import to_jsonable
from tests.llm_experiment.auditing.found import (
    BRACKETS,
    BUDGETS,
    LENGTHS,
    PRICES,
    SCRIPTS,
    found_arrays,
)
from theory.bounds import largest_share
from theory.errors import ResultsError

PROMPTS = tuple(PlainPrompt(line=i, text="", follow_up="") for i in (1, 2, 4))
NAMES = {"scripts": SCRIPTS, "patterns": ("blank",)}


def spelt(tokens):
    return [f"<{token}>" for token in tokens]


@pytest.fixture(scope="module")
def arrays():
    return found_arrays()


@pytest.fixture(scope="module")
def summary(arrays):
    return summarise(arrays, PROMPTS, **NAMES, budgets_nats=BUDGETS, likely=0.5, spelt=spelt)


def by_name(summary):
    return {b.name: b for b in summary.behaviours}


def test_a_spread_is_of_what_is_known():
    values = np.array([5.0, np.nan, 1.0, 3.0, math.inf])
    assert spread(values) == Spread(n=4, quartiles=(1.0, 3.0, 5.0), least=1.0, most=math.inf)
    assert spread(np.array([np.nan])) == Spread(n=0)
    assert Spread(n=0).median is None


def test_prices_are_spread_over_prompts_time_by_time(summary):
    cheap = by_name(summary)["cheap"]
    assert cheap.prices_nats[0] == Spread(n=3, quartiles=(1.0, 2.0, 3.0), least=1.0, most=3.0)
    assert cheap.prices_nats[1] == Spread(n=2, quartiles=(0.25, 0.25, 0.5), least=0.25, most=0.5)
    unwritten = by_name(summary)["impossible to write"]
    assert [s.n for s in unwritten.prices_nats] == [0, 0]
    assert (unwritten.bought, unwritten.likely_nats) == ((), Spread(n=0))


def test_what_a_budget_buys_is_the_quartile_of_what_it_buys_at_each_prompt(summary):
    for name, column in (("cheap", 0), ("dear", 1)):
        for bought in by_name(summary)[name].bought:
            shares = sorted(
                largest_share(math.exp(-c), bought.budget_nats).lower for c in PRICES[:, column, 0]
            )
            assert bought.quartiles == pytest.approx(shares, rel=1e-9)
            assert bought.worst == bought.bound_worst == pytest.approx(shares[-1], rel=1e-9)


def test_with_a_policy_what_it_spends_is_a_budget_too(summary, arrays):
    mean = float(np.nansum(arrays["kl_nats"])) / len(LENGTHS)
    assert summary.divergence.mean_nats == pytest.approx(mean)
    assert summary.budgets_nats == tuple(sorted((*BUDGETS, summary.divergence.mean_nats)))


def test_a_pattern_is_bought_at_what_was_found_and_bounded_by_what_was_not(summary):
    blank = by_name(summary)["blank"]
    assert blank.is_pattern
    assert blank.prices_nats[0].quartiles == pytest.approx(
        [-math.log(0.5), -math.log(0.1), math.inf]
    )
    assert blank.floor_nats.quartiles == pytest.approx(sorted(-np.log(BRACKETS[:, 1])))
    estimates = [-math.log(0.55), -math.log(0.15), math.inf]
    assert blank.estimate_nats.quartiles == pytest.approx(estimates)
    # As likely as it is to be called so, it needs no budget; where it is impossible none will do.
    assert (blank.likely_nats.least, blank.likely_nats.most) == (0.0, math.inf)
    for bought in blank.bought:
        bound = largest_share(BRACKETS[:, 1].max(), bought.budget_nats).lower
        assert bought.bound_worst == pytest.approx(bound, rel=1e-9)


def test_what_the_policy_made_cheaper(summary):
    found = by_name(summary)
    assert found["cheap"].gained_nats.quartiles == pytest.approx((1.0,) * 3)
    assert (found["cheap"].likelier_share, found["dear"].likelier_share) == (1.0, 0.0)
    assert found["impossible to write"].likelier_share is None
    # Impossible under both is neither: one of three prompts does not count.
    assert found["blank"].gained_nats.n == 2
    assert found["blank"].gained_nats.median == pytest.approx(-math.log(2))


def test_estimators_are_held_against_the_exact_kl(summary, arrays):
    k1, k2, k3 = summary.divergence.estimators
    steps, answers = sum(LENGTHS), len(LENGTHS)
    assert [e.token_bias for e in (k1, k2, k3)] == pytest.approx([0.0, 0.5, -0.25])
    assert k2.answer_bias == pytest.approx(0.5 * steps / answers)
    assert [e.token_deviation for e in (k1, k2, k3)] == pytest.approx([1.0, 2.0, 0.5])
    drawn = [np.nansum(row) for row in arrays["drawn_nats"][2]]
    exact = [np.nansum(row) for row in arrays["kl_nats"]]
    errors = [a - b for a, b in zip(drawn, exact, strict=True)]
    assert k3.answer_mean == pytest.approx(sum(drawn) / answers)
    assert k3.token_mean == pytest.approx(sum(drawn) / steps)
    mean = sum(errors) / answers
    assert k3.answer_deviation**2 == pytest.approx(sum((e - mean) ** 2 for e in errors) / answers)


def test_where_the_kl_is_spent(summary, arrays):
    found, kl = summary.divergence, arrays["kl_nats"]
    total = np.nansum(kl)
    shares = dict(found.first_shares)
    assert shares[2] == pytest.approx(np.nansum(kl[:, :2]) / total)
    assert (list(shares), shares[5]) == ([1, 2, 4, 5], pytest.approx(1.0))
    assert found.curve_nats == pytest.approx(np.nanmean(kl, axis=0))
    assert [t.token for t in found.top_tokens] == [1, 3, 0]  # the other one saved
    assert [t.nats for t in found.top_tokens] == [3.0, 1.0, 0.5]
    assert [t.text for t in found.top_tokens] == ["<1>", "<3>", "<0>"]
    first = found.costly_steps[0]
    row, column = np.unravel_index(np.nanargmax(kl), kl.shape)
    assert (first.line, first.position) == (PROMPTS[row // 2].line, column + 1)
    assert first.kl_nats == np.nanmax(kl)
    said = arrays["answers"][row]
    assert first.before + first.text == "".join(spelt(said[: column + 1]))
    assert found.by_prompt_nats == pytest.approx(np.nansum(kl, axis=1).reshape(3, 2).mean(axis=1))
    assert found.interval.low < found.mean_nats < found.interval.high


def test_one_prompt_has_no_interval(arrays):
    one = {n: a[:1] for n, a in arrays.items() if n.endswith(("base", "base_nats"))}
    assert summarise(
        one, PROMPTS[:1], **NAMES, budgets_nats=(1.0,), likely=0.5, spelt=spelt
    ).divergence is None  # fmt: skip
    answers = {n: arrays[n][..., :2, :] for n in ("kl_nats", "answers", "drawn_nats")}
    both = one | answers | {n: arrays[n][..., :2, :] for n in ("mean_nats", "variance")}
    both |= {n: arrays[n] for n in ("parts_nats", "policy_mass", "base_mass")}
    found = summarise(both, PROMPTS[:1], **NAMES, budgets_nats=(1.0,), likely=0.5, spelt=spelt)
    assert found.divergence.interval is None


def test_every_table_is_complete_and_every_number_is_json(summary):
    tables = all_tables(summary)
    assert [table.name for table in tables] == [
        "kl", "estimators", "likelier", "where", "tokens", "steps", "prices", "bought",
    ]  # fmt: skip
    assert all(table.rows for table in tables)
    likelier = tables[2].records
    assert [row["behaviour"] for row in likelier] == ["cheap", "blank", "dear"]
    assert to_jsonable(summary)["behaviours"][0]["prices_nats"][0]["quartiles"] == [1.0, 2.0, 3.0]


def test_the_long_table_has_every_number_once(arrays, tmp_path):
    path = tmp_path / "audit.csv"
    write_csv(path, arrays, PROMPTS, **NAMES)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = {(r["line"], r["model"], r["name"], r["number"], r["measure"]) for r in rows}
    assert len(keys) == len(rows)
    of_scripts = [r for r in rows if r["measure"] == "price_nats" and r["model"] == "base"]
    assert len(of_scripts) == np.isfinite(PRICES).sum()
    kl = {(r["line"], r["number"]): float(r["value"]) for r in rows if r["measure"] == "kl_nats"}
    assert kl["4", "2"] == pytest.approx(np.nansum(arrays["kl_nats"][5]))
    at_most = {r["line"]: r["value"] for r in rows if r["measure"] == "price_at_most_nats"}
    assert (float(at_most["1"]), at_most["4"]) == (pytest.approx(-math.log(0.05)), "inf")


def test_parts_are_joined_in_the_order_of_the_prompts(arrays, tmp_path):
    sums = {n: arrays[n] for n in ("parts_nats", "policy_mass", "base_mass")}
    by_answer = ("answers", "kl_nats", "drawn_nats", "mean_nats", "variance")
    for number, places in enumerate([[2, 0], [1]]):
        rows = [2 * place + sample for place in places for sample in (0, 1)]
        part = {name: a[places] for name, a in arrays.items() if name not in sums}
        part |= {name: arrays[name][..., rows, :] for name in by_answer}
        part |= {name: a * (number + 1) / 3 for name, a in sums.items()}
        write_part(tmp_path, number, part)
    joined = read_parts(tmp_path, 2)
    assert set(joined) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_allclose(joined[name], array)


def test_a_part_that_cannot_be_read_is_named(arrays, tmp_path):
    with pytest.raises(ResultsError, match=r"cannot read .*00000.npz"):
        read_parts(tmp_path, 1)
    write_part(tmp_path, 0, arrays)
    path = part_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ResultsError, match="delete it and start the same command again"):
        read_parts(tmp_path, 1)
