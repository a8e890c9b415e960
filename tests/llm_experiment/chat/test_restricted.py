import math

import pytest
import torch

from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.restricted import restricted

N = 4


def step(*, missing: float = 0.0) -> BaseStep:
    uniform = torch.full((2, N), -math.log(N))
    return BaseStep(
        log_probs=uniform, features=torch.zeros(2, 1), missing_mass=torch.full((2,), missing)
    )


def test_what_a_restriction_takes_is_missing():
    log_factors = torch.tensor([[0.0, -math.inf, math.log(0.5), 0.0], [0.0] * N])
    after = restricted(step(), log_factors)
    torch.testing.assert_close(after.missing_mass, torch.tensor([1.5 / N, 0.0]))
    expected = torch.tensor([1.0, 0.0, 0.5, 1.0]) / 2.5
    torch.testing.assert_close(after.log_probs[0].exp(), expected)


def test_masses_add_up_where_some_are_missing_already():
    log_factors = torch.tensor([[0.0, -math.inf, math.log(0.5), 0.0], [0.0] * N])
    after = restricted(step(missing=0.5), log_factors)
    assert after.missing_mass.tolist() == pytest.approx([1 - 0.5 * 2.5 / N, 0.5])


def test_rows_that_lose_nothing_are_passed_on_bit_by_bit():
    rows = torch.tensor([[0.1, 0.2, 0.3, 0.4000001], [0.25] * 4]).log()
    before = BaseStep(log_probs=rows, features=torch.zeros(2, 1), missing_mass=torch.zeros(2))
    assert restricted(before, torch.zeros(2, N)) is before
    after = restricted(before, torch.tensor([[0.0] * N, [-math.inf, 0.0, 0.0, 0.0]]))
    assert after.log_probs[0].equal(rows[0])
    assert after.missing_mass[0] == 0


def test_what_has_no_probability_cannot_be_taken():
    rows = torch.tensor([[0.0, -math.inf, -math.inf, -math.inf]] * 2)
    before = BaseStep(log_probs=rows, features=torch.zeros(2, 1), missing_mass=torch.zeros(2))
    taken = torch.tensor([[0.0, -math.inf, -math.inf, 0.0]] * 2)
    assert restricted(before, taken) is before
