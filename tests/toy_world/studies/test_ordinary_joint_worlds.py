"""Joint predictors over programs in ordinary worlds."""

import math

import numpy as np
import pytest

from theory.errors import InvalidArgumentError, UnreachableLengthError
from toy_world.studies.ordinary_joint_worlds import (
    LANGUAGE,
    OrdinaryWorld,
    _joint_models,
    ordinary_mixture,
    ordinary_world,
)


def world(**changes):
    settings = {
        "trusted": "do(a0)",
        "observations": "mix(1/2, do(a1), do(a0))",
        "agent": "do(a1)",
    }
    settings |= changes
    return OrdinaryWorld(
        **{name: LANGUAGE.policies.parse(text) for name, text in settings.items()},
        event=LANGUAGE.events.parse("latch(ends(o1))"),
        news=1,
    )


def test_the_switched_version_of_the_trusted_policy_is_nine_bits_longer():
    costs = ordinary_mixture(
        ordinary_world(), n_training_steps=2, bits=20, horizon=1, rng=np.random.default_rng(0)
    )
    assert costs.bound.delta_bits == 9
    # One step: there is nothing yet in which readings could differ.
    assert costs.fixed_nats == pytest.approx(costs.expected_nats, rel=1e-12)
    assert costs.fixed_nats <= costs.bound.bound_nats + costs.residual_nats


def test_only_pairs_are_credited_though_a_switch_be_as_short(monkeypatch):
    """Below 26 bits no switch is; here the first of the shortest pairs passes for one."""
    found = []

    def relabelled(tree, *, bits):
        models = _joint_models(tree, bits=bits)
        models.is_pair[models.lengths.argmin()] = False
        found.append(models)
        return models

    monkeypatch.setattr("toy_world.studies.ordinary_joint_worlds._joint_models", relabelled)
    costs = ordinary_mixture(
        ordinary_world(), n_training_steps=2, bits=20, horizon=1, rng=np.random.default_rng(0)
    )
    ((lengths, is_pair, log_weights),) = (
        (models.lengths, models.is_pair, models.log_weights) for models in found
    )
    shares = np.exp(log_weights) / np.exp(log_weights).sum()
    credited = [i for i in range(len(shares)) if is_pair[i] and lengths[i] <= 20 - 9]
    assert 0 < len(credited) < (lengths <= 20 - 9).sum()
    assert costs.bound.log_rho == pytest.approx(math.log(sum(shares[credited])))


def test_a_world_that_excludes_the_news_is_refused():
    with pytest.raises(InvalidArgumentError, match="never shows observation 1 at step 2"):
        ordinary_mixture(
            world(observations="do(a0)"),
            n_training_steps=2,
            bits=8,
            horizon=1,
            rng=np.random.default_rng(0),
        )


@pytest.mark.parametrize(
    ("bits", "words"), [(6, "no joint program of at most 6 bits"), (14, "of at most 5 bits")]
)
def test_too_few_bits_are_refused_with_the_number(bits, words):
    with pytest.raises(UnreachableLengthError, match=words):
        ordinary_mixture(
            world(), n_training_steps=2, bits=bits, horizon=1, rng=np.random.default_rng(0)
        )
