import pytest
import torch

from llm_experiment.base.protocol import check_start, step_from_semi_distribution
from theory.errors import InvalidArgumentError, InvalidShapeError


def test_a_row_without_mass_predicts_nothing():
    log_semi = torch.tensor([[0.5, 0.25], [0.75, 0.25], [0.0, 0.0]]).double().log()
    step = step_from_semi_distribution(log_semi, torch.zeros(3, 1))
    torch.testing.assert_close(step.missing_mass, torch.tensor([0.25, 0.0, 1.0]))
    torch.testing.assert_close(
        step.log_probs.exp(), torch.tensor([[2 / 3, 1 / 3], [0.75, 0.25], [0.5, 0.5]])
    )


def test_impossible_starts_are_refused():
    prompt = torch.arange(4)
    cases = [
        (prompt, 0, 8, InvalidArgumentError, "n_episodes must be >= 1, got 0"),
        (prompt, 1, 4, InvalidArgumentError, "has 4 tokens and the episode only 4"),
        (prompt + 37, 1, 8, InvalidArgumentError, r"must lie in 0..39, got 40"),
        (prompt[None], 1, 8, InvalidShapeError, r"shape \(p,\) with p >= 1, got \(1, 4\)"),
        (prompt[:0], 1, 8, InvalidShapeError, r"got \(0,\)"),
    ]
    for tokens, n_episodes, n_positions, error, message in cases:
        with pytest.raises(error, match=message):
            check_start(tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=40)
    check_start(prompt, n_episodes=1, n_positions=5, n_tokens=40)
