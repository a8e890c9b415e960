"""What is a result of a job, and what is none."""

import pytest

from llm_experiment.records.job_result import with_rows


def test_rows_of_before_are_a_list_and_those_of_today_stand_under_their_name():
    assert with_rows([{"agent": "a"}]) == {"rows": [{"agent": "a"}]}
    assert with_rows({"rows": [], "files": {}}) == {"rows": [], "files": {}}


@pytest.mark.parametrize("content", [{}, {"rows": {}}, {"rows": None}, "rows", 3, None])
def test_what_holds_no_rows_is_no_result(content):
    with pytest.raises(TypeError, match="it holds no rows"):
        with_rows(content)
