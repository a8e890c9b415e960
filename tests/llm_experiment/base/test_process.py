import numpy as np
import pytest
import torch

from llm_experiment.base.process import ProcessBase
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from theory.errors import InvalidArgumentError

PROCESS = DialogueProcess(load_task("classroom"))
BASE = ProcessBase(PROCESS)
PROMPT = 7
LENGTH = 40


def transcripts(n: int) -> torch.Tensor:
    """Transcripts of the process that share a prompt."""
    sampled = PROCESS.sample(np.random.default_rng(2), 200, LENGTH)
    return torch.from_numpy(sampled[(sampled[:, :PROMPT] == sampled[0, :PROMPT]).all(axis=1)][:n])


def test_the_base_policy_is_the_process():
    tokens = transcripts(2)
    assert len(tokens) == 2
    session, step = BASE.begin(tokens[0, :PROMPT], n_episodes=2, n_positions=LENGTH)
    expected = torch.from_numpy(PROCESS.predictive_log_probs(tokens.numpy())).float()
    for position in range(PROMPT, LENGTH):
        # The process's own rows sum to 1 up to rounding; a step's are normalised.
        torch.testing.assert_close(step.log_probs, expected[:, position], rtol=1e-6, atol=1e-7)
        assert step.missing_mass.tolist() == [0.0, 0.0]
        assert step.features.shape == (2, BASE.n_features)
        torch.testing.assert_close(step.features[:, : BASE.n_tokens], step.log_probs.exp())
        torch.testing.assert_close(step.features[:, BASE.n_tokens : -2].sum(dim=1), torch.ones(2))
        step = session.append(tokens[:, position])
    assert step.log_probs.dtype == step.features.dtype == torch.float32


def test_the_features_say_whose_last_turn_was_empty():
    prompt = torch.from_numpy(PROCESS.encode(f"{PROCESS.task.note}Student:\n"))
    _, step = BASE.begin(prompt, n_episodes=1, n_positions=LENGTH)
    assert step.features[0, -2:].tolist() == [1.0, 0.0]


def test_after_what_the_process_cannot_write_nothing_is_predicted():
    prompt = torch.from_numpy(PROCESS.encode(f"{PROCESS.task.note}Teacher:"))
    session, _ = BASE.begin(prompt, n_episodes=2, n_positions=LENGTH)
    newline, word = PROCESS.encode("\n So").tolist()
    step = session.append(torch.tensor([newline, word]))  # the Teacher is never silent
    assert step.missing_mass.tolist() == [1.0, 0.0]
    torch.testing.assert_close(
        step.log_probs[0].exp(), torch.full((BASE.n_tokens,), 1 / BASE.n_tokens)
    )


def test_impossible_starts_are_refused():
    with pytest.raises(InvalidArgumentError, match=f"0..{BASE.n_tokens - 1}, got {BASE.n_tokens}"):
        BASE.begin(torch.tensor([BASE.n_tokens]), n_episodes=1, n_positions=LENGTH)
