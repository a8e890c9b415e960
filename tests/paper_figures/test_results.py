"""What figures are told of an experiment; what is not there is said."""

import pytest

from llm_experiment.dialogue.behaviour import SILENCE, Behaviour
from llm_experiment.measures.tables import BASE_ROW
from llm_experiment.records.reading import join_runs, read_experiment, read_run
from paper_figures.results import (
    Sources,
    base_is_budget_0,
    base_name,
    label_of,
    shown_budgets,
    shown_rule,
)
from tests.llm_experiment.fakes.recorded_run import RECORDED, copied
from theory.errors import MissingDataError


def test_the_largest_positive_budgets_are_shown(sources):
    assert shown_budgets(sources.experiment()) == (12.0, 40.0)
    assert shown_budgets(read_experiment([RECORDED])) == (3.0,)


def test_without_a_positive_budget_data_are_missing(tmp_path):
    folder = copied(tmp_path)
    (folder / "agents" / "exact-budget3-seed0" / "result.json").unlink()
    with pytest.raises(MissingDataError, match=r"no agent with a positive budget in .*tiny-run"):
        shown_budgets(read_experiment([folder]))


def test_the_base_policy_is_budget_0_unless_agents_were_trained_at_it(sources):
    assert base_is_budget_0(sources.experiment())
    assert base_name(sources.experiment()) == BASE_ROW
    old = read_experiment([RECORDED])
    assert not base_is_budget_0(old)
    assert base_name(old) == "base policy"


def test_without_a_run_the_commands_are_named():
    with pytest.raises(MissingDataError, match=r"make run.*python -m llm_experiment\.run"):
        Sources(found=None).experiment()


def test_labels_are_named_once(sources, tmp_path):
    folder = copied(tmp_path)
    (folder / "base" / "result.json").unlink()
    both = join_runs([read_run(RECORDED), read_run(folder)])
    assert label_of([*both.runs, *both.bases]) == "tiny, default suite"
    (unfinished, *_) = read_run(folder).agents.values()
    assert label_of([*both.runs, *unfinished]) == (
        "tiny, default suite; tiny, default suite; unfinished: 3 of 3 agents evaluated"
    )


def test_what_counts_as_empty_is_said_beside_the_published_definition(sources):
    rule = shown_rule(sources.experiment().runs, SILENCE)
    assert "at most 3 tokens with this tokenizer" in rule
    assert "published: at most 4" in rule


def test_a_phrase_shows_where_it_is_said(sources):
    told = Behaviour(name="answer", turn="yes", episode="yes", phrases=("Yes.",))
    rule = shown_rule(sources.experiment().runs, told)
    assert rule == "Yes: a finished turn such that its words are `Yes.`."
