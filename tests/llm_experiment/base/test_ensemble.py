from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from math import log

import pytest
import torch
from torch import Tensor

from llm_experiment.base.ensemble import EnsembleBase, pessimistic
from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.protocol import BaseStep
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.bayes_mixture import Update, predictive_log_probs
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError

F = Fraction
Rows = Sequence[Sequence[Fraction]]
PRIOR = (F(1, 2), F(1, 3), F(1, 6))
# What each model says after token 0, 1 and 2; zeros among it.
MODELS: tuple[Rows, ...] = (
    ((F(1, 2), F(1, 4), F(1, 4)), (F(1, 3), F(1, 3), F(1, 3)), (F(0), F(1, 2), F(1, 2))),
    ((F(1, 8), F(7, 8), F(0)), (F(1, 5), F(2, 5), F(2, 5)), (F(1, 2), F(1, 4), F(1, 4))),
    ((F(1), F(0), F(0)), (F(0), F(1), F(0)), (F(9, 10), F(0), F(1, 10))),
)
PROMPT = (0, 1)


@dataclass
class Markov:
    """A base policy whose prediction depends on the last token alone."""

    rows: Rows
    n_features: int = 1

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def n_tokens(self) -> int:
        return len(self.rows)

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        assert len(prompt_tokens) < n_positions
        return self, self.append(prompt_tokens[-1:].expand(n_episodes))

    def append(self, tokens, *, agent_wrote=None) -> BaseStep:
        probs = torch.tensor([[float(p) for p in row] for row in self.rows])[tokens]
        return BaseStep(
            log_probs=probs.log(),
            features=tokens[:, None].float(),
            missing_mass=torch.zeros(len(tokens)),
        )


MEMBERS = tuple(Markov(rows) for rows in MODELS)
LOG_PRIOR = [log(p) for p in PRIOR]


def weights(history: Sequence[int], counts: Sequence[bool]) -> list[Fraction]:
    """Prior times likelihood of the tokens that count; an impossible token changes nothing."""
    w = list(PRIOR)
    for (before, token), counted in zip(pairwise(history), counts, strict=True):
        if not counted:
            continue
        updated = [w_i * rows[before][token] for w_i, rows in zip(w, MODELS, strict=True)]
        if sum(updated):
            w = updated
    return [w_i / sum(w) for w_i in w]


def mixture(history, counts) -> list[Fraction]:
    w = weights(history, counts)
    return [sum(w[i] * MODELS[i][history[-1]][x] for i in range(3)) for x in range(3)]


def least_of_top_set(history, counts, alpha: Fraction) -> list[Fraction]:
    w = weights(history, counts)
    order = sorted(range(3), key=lambda i: -w[i])
    top = [i for n, i in enumerate(order) if w[i] >= alpha * sum(w[j] for j in order[: n + 1])]
    return [min(MODELS[i][history[-1]][x] for i in top) for x in range(3)]


def histories() -> list[tuple[int, ...]]:
    """All transcripts of three tokens after the prompt."""
    return [(*PROMPT, *tail) for tail in product(range(3), repeat=3)]


def walk(ensemble: EnsembleBase, agent_wrote: Sequence[bool]) -> list[tuple[int, BaseStep]]:
    """Predictions along all `histories` at once, with the number of tokens read."""
    tails = torch.tensor(histories())[:, len(PROMPT) :]
    session, step = ensemble.begin(torch.tensor(PROMPT), n_episodes=len(tails), n_positions=6)
    steps = [(len(PROMPT), step)]
    for i, (column, by_agent) in enumerate(zip(tails.T, agent_wrote, strict=True)):
        step = session.append(column, agent_wrote=torch.full((len(tails),), by_agent))
        steps.append((len(PROMPT) + i + 1, step))
    return steps


def check(steps: list[tuple[int, BaseStep]], expected) -> None:
    """Compare with rationals: `expected(history)` is a semi-distribution."""
    for length, step in steps:
        rows = [expected(history[:length]) for history in histories()]
        semi = torch.tensor([[float(p) for p in row] for row in rows])
        torch.testing.assert_close(step.missing_mass, 1 - semi.sum(dim=1), rtol=0, atol=1e-6)
        seen = step.log_probs.exp() * (1 - step.missing_mass)[:, None]
        torch.testing.assert_close(seen, semi, rtol=0, atol=1e-6)


AGENT = (True, False, True)


@pytest.mark.parametrize("update", Update)
def test_the_mixture_is_the_bayesian_one(update):
    ensemble = EnsembleBase(
        MEMBERS, log_prior=LOG_PRIOR, update=update, combine=predictive_log_probs
    )
    counts = [True] * 4 if update is Update.ALL else [True, *(not a for a in AGENT)]
    check(walk(ensemble, AGENT), lambda h: mixture(h, counts[: len(h) - 1]))


@pytest.mark.parametrize("update", Update)
@pytest.mark.parametrize("alpha", [F(1, 10), F(3, 8), F(1)])
def test_the_pessimistic_imitator_is_the_least_of_the_top_set(update, alpha):
    ensemble = EnsembleBase(
        MEMBERS, log_prior=LOG_PRIOR, update=update, combine=pessimistic(float(alpha))
    )
    counts = [True] * 4 if update is Update.ALL else [True, *(not a for a in AGENT)]
    check(walk(ensemble, AGENT), lambda h: least_of_top_set(h, counts[: len(h) - 1], alpha))


def test_the_features_are_those_of_all_members_and_the_posterior():
    ensemble = EnsembleBase(
        MEMBERS, log_prior=LOG_PRIOR, update=Update.ALL, combine=predictive_log_probs
    )
    for length, step in walk(ensemble, AGENT):
        assert step.features.shape == (27, ensemble.n_features)
        for history, row in zip(histories(), step.features, strict=True):
            posterior = weights(history[:length], [True] * (length - 1))
            expected = [history[length - 1]] * 3 + [float(w) for w in posterior]
            torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-6)


def test_an_agent_whose_tokens_count_can_talk_the_ensemble_into_what_mu_never_does():
    # mu does 0 with probability 0.1 after 0 or 1 and never 2; nu always does 0 and, after 0, 2.
    mu = ((F(1, 10), F(9, 10), F(0)), (F(1, 10), F(9, 10), F(0)), (F(1, 10), F(9, 10), F(0)))
    nu = ((F(0), F(0), F(1)), (F(1), F(0), F(0)), (F(1), F(0), F(0)))
    after_bad_action = {}
    for update in Update:
        ensemble = EnsembleBase(
            [Markov(mu), Markov(nu)], log_prior=[0, 0], update=update, combine=pessimistic(0.3)
        )
        session, _ = ensemble.begin(torch.tensor([1]), n_episodes=1, n_positions=4)
        step = session.append(torch.tensor([0]), agent_wrote=torch.tensor([True]))
        after_bad_action[update] = float(step.log_probs[0, 2].exp() * (1 - step.missing_mass[0]))
    assert after_bad_action == {Update.ALL: pytest.approx(1.0), Update.DEMONSTRATOR: 0.0}


def test_an_ensemble_of_one_language_model_is_that_model():
    model = HuggingFaceBase(tiny_model("llama, tied"))
    prompt = torch.tensor([3, 1, 4])
    for combine in (predictive_log_probs, pessimistic(0.5)):
        ensemble = EnsembleBase([model], log_prior=[0.0], update=Update.ALL, combine=combine)
        session, step = ensemble.begin(prompt, n_episodes=2, n_positions=9)
        alone, expected = model.begin(prompt, n_episodes=2, n_positions=9)
        for token in (1, 5, 9):
            torch.testing.assert_close(step.log_probs, expected.log_probs, rtol=0, atol=2e-6)
            assert torch.equal(step.features[:, :-1], expected.features)
            assert step.missing_mass.tolist() == [0.0, 0.0]
            step, expected = (s.append(torch.tensor([token, 2])) for s in (session, alone))


def test_a_member_may_be_an_ensemble_with_mass_missing():
    inner = EnsembleBase(
        MEMBERS, log_prior=LOG_PRIOR, update=Update.DEMONSTRATOR, combine=pessimistic(0.1)
    )
    outer = EnsembleBase(
        [inner], log_prior=[0.0], update=Update.DEMONSTRATOR, combine=predictive_log_probs
    )
    for (_, step), (_, expected) in zip(walk(outer, AGENT), walk(inner, AGENT), strict=True):
        torch.testing.assert_close(step.missing_mass, expected.missing_mass, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            step.log_probs.exp(), expected.log_probs.exp(), rtol=0, atol=1e-6
        )


def test_ensembles_that_make_no_sense_are_refused():
    options = {"update": Update.ALL, "combine": predictive_log_probs}
    with pytest.raises(InvalidArgumentError, match="at least 1 member, got 0"):
        EnsembleBase([], log_prior=[], **options)
    with pytest.raises(InvalidShapeError, match=r"log_prior must have 3 entries, .* got 2"):
        EnsembleBase(MEMBERS, log_prior=[0.0, 0.0], **options)
    with pytest.raises(InvalidArgumentError, match="must share n_tokens, got 2, 3"):
        EnsembleBase([Markov(MODELS[0][:2]), MEMBERS[0]], log_prior=[0.0, 0.0], **options)
    with pytest.raises(InvalidDistributionError, match="some weight must be > 0"):
        EnsembleBase(MEMBERS, log_prior=[-float("inf")] * 3, **options)
    with pytest.raises(InvalidArgumentError, match=r"alpha must lie in \(0, 1\], got 0"):
        pessimistic(0.0)
    prompt: Tensor = torch.tensor([[0]])
    with pytest.raises(InvalidShapeError, match=r"prompt_tokens must have shape \(p,\)"):
        EnsembleBase(MEMBERS, log_prior=LOG_PRIOR, **options).begin(
            prompt, n_episodes=1, n_positions=4
        )
