import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.observation import pack_observation, unpack_observation
from theory.errors import InvalidShapeError


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 6),
    st.floats(0, 1e6), st.floats(0, 1, width=32),
)  # fmt: skip
def test_an_observation_holds_what_was_packed(n, n_tokens, n_features, budget, left):
    generator = torch.Generator().manual_seed(n)
    step = BaseStep(
        log_probs=torch.rand(n, n_tokens, generator=generator).log(),
        features=torch.rand(n, n_features, generator=generator),
        missing_mass=torch.zeros(n),
    )
    budgets = torch.full((n,), budget, dtype=torch.float64)
    packed = pack_observation(step, fraction_left=left, budget_nats=budgets)
    assert packed.dtype == torch.float32
    seen = unpack_observation(packed, n_tokens=n_tokens)
    assert torch.equal(seen.features, step.features)
    assert torch.equal(seen.log_probs, step.log_probs)
    assert (seen.fraction_left == left).all()
    assert (seen.budget_nats.double() <= budgets).all(), "or the ledger could be overspent"
    assert (seen.budget_nats.double() >= budgets * (1 - 2**-23) - 2**-149).all()


def test_observations_too_short_for_the_vocabulary_are_refused():
    with pytest.raises(InvalidShapeError, match=r"\(n, n_features \+ 2 \+ 5\), got \(3, 6\)"):
        unpack_observation(torch.zeros(3, 6), n_tokens=5)
