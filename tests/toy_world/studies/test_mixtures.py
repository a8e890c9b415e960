"""The mixture of all programs: weighed as their codes, asked where the demonstration leads."""

from fractions import Fraction

import numpy as np
import pytest

from theory.bayes_mixture import stack_tables
from theory.errors import UnreachableLengthError
from theory.process import HistoryTree
from toy_world.programs.semantics import policy_on_tree
from toy_world.studies.mixtures import (
    Demonstration,
    Mixture,
    mixture_at,
    mixtures_while_watching,
    novel_mixture,
)
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of


def test_a_mixture_of_all_programs_at_the_start_weighs_every_program_as_its_code():
    setting = setting_of(WorldName.DOORBELL, horizon=1)
    (mixture,) = mixtures_while_watching(
        setting, limit_bits=12, times=(0,), rng=np.random.default_rng(0)
    )
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=1)
    masses: dict[bytes, Fraction] = {}
    for bits, program in setting.language.policies.up_to(12):
        row = policy_on_tree(program, tree)[0].astype(np.float64).tobytes()
        masses[row] = masses.get(row, Fraction(0)) + Fraction(1, 2**bits)
    total = sum(masses.values())
    for weight, row in zip(mixture.weights, mixture.models[0], strict=True):
        assert weight == pytest.approx(float(masses[row.tobytes()] / total), rel=1e-12)


def test_a_mixture_without_the_demonstrator_says_so():
    row = (np.array([[1.0, 0.0]]),)
    mixture = Mixture(
        weights=np.array([1.0]),
        models=stack_tables([row]),
        tau=(np.array([[0.5, 0.5]]),),
        nu=(np.ones((1, 2, 1)),),
    )
    with pytest.raises(UnreachableLengthError, match="allow more bits"):
        _ = mixture.place_of_tau


@pytest.mark.parametrize("name", WorldName)
def test_a_novel_situation_is_the_demonstration_and_then_the_novelty(name):
    setting = setting_of(name, horizon=1)
    watched = Demonstration.draw(setting, 12, rng=np.random.default_rng(4))
    situation = watched.novel(9)
    before = watched.state_at(watched.familiar(9))
    assert situation.n_steps == 9
    assert situation.extra[1::2] == setting.world.novelty[before]
    assert watched.state_at(situation) == setting.world.state_after(situation.extra, state=before)


def test_situations_that_are_asked_together_are_answered_as_if_alone():
    setting = setting_of(WorldName.ECHO, horizon=2)
    watched = Demonstration.draw(setting, 6, rng=np.random.default_rng(4))
    situations = [watched.familiar(3), watched.novel(6)]
    posteriors = watched.posteriors_at(situations, limit_bits=12)
    together = [
        mixture_at(found, setting, state=watched.state_at(situation))
        for found, situation in zip(posteriors, situations, strict=True)
    ]
    novel = novel_mixture(setting, limit_bits=12, n_steps=6, rng=np.random.default_rng(4))
    (familiar,) = mixtures_while_watching(
        setting, limit_bits=12, times=(3,), rng=np.random.default_rng(4)
    )
    for one, other in zip(together, (familiar, novel), strict=True):
        np.testing.assert_allclose(np.sort(one.weights), np.sort(other.weights), rtol=1e-12)
