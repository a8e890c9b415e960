"""The KL of a step and the estimators' mean and variance, against sums over rational numbers."""

import math
from fractions import Fraction

import pytest
import torch

from llm_experiment.auditing.estimators import ESTIMATORS, step_divergences

POLICY = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6), Fraction(0)]
BASE = [Fraction(1, 4), Fraction(1, 4), Fraction(2, 5), Fraction(1, 10)]


def logs(rows):
    return torch.tensor([[float(p) for p in row] for row in rows], dtype=torch.float64).log()


def by_hand(policy, base):
    """For each estimator its values, mean and variance, a token at a time."""
    found = {name: [] for name in ESTIMATORS}
    for p, b in zip(policy, base, strict=True):
        r = math.log(p / b) if p else None
        found["k1"].append(r)
        found["k2"].append(None if r is None else r**2 / 2)
        found["k3"].append(None if r is None else float(b / p) - 1 + r)
    moments = {}
    for name, values in found.items():
        mean = math.fsum(float(p) * v for p, v in zip(policy, values, strict=True) if p)
        square = math.fsum(float(p) * v * v for p, v in zip(policy, values, strict=True) if p)
        moments[name] = (values, mean, square - mean**2)
    return moments


def test_every_number_of_a_step_is_a_sum_over_the_vocabulary():
    drawn = torch.tensor([1, 2])
    found = step_divergences(logs([POLICY, BASE]), logs([BASE, POLICY]), drawn)
    for k, name in enumerate(ESTIMATORS):
        values, mean, variance = by_hand(POLICY, BASE)[name]
        assert float(found.drawn_nats[k, 0]) == pytest.approx(values[1], rel=1e-12)
        assert float(found.mean_nats[k, 0]) == pytest.approx(mean, rel=1e-12)
        assert float(found.variance[k, 0]) == pytest.approx(variance, rel=1e-11)
    kl = math.fsum(float(p) * math.log(p / b) for p, b in zip(POLICY, BASE, strict=True) if p)
    assert float(found.kl_nats[0]) == pytest.approx(kl, rel=1e-12)
    assert math.isinf(found.kl_nats[1])  # the other way round something impossible is done


def test_k1_and_k3_have_the_mean_kl_and_k2_another():
    full = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 8), Fraction(1, 8)]
    found = step_divergences(logs([full]), logs([BASE]), torch.tensor([0]))
    exact = float(found.kl_nats[0])
    k1, k2, k3 = found.mean_nats[:, 0].tolist()
    assert k1 == pytest.approx(exact, rel=1e-12)
    assert k3 == pytest.approx(exact, rel=1e-12)
    assert abs(k2 - exact) > 0.01
    # Where pi leaves out a tenth of b, k3 is short by just that.
    short = step_divergences(logs([POLICY]), logs([BASE]), torch.tensor([0]))
    missed = float(short.kl_nats[0] - short.mean_nats[2, 0])
    assert missed == pytest.approx(0.1, rel=1e-12)


def test_parts_by_token_add_up_to_the_kl():
    rows = [[Fraction(1, 2), Fraction(1, 4), Fraction(1, 8), Fraction(1, 8)], POLICY]
    found = step_divergences(logs(rows), logs([BASE, BASE]), torch.tensor([0, 0]))
    assert float(found.parts_nats.sum()) == pytest.approx(float(found.kl_nats.sum()), rel=1e-12)
    counts = [sum(float(row[v]) for row in rows) for v in range(4)]
    assert found.policy_mass.tolist() == pytest.approx(counts)
    assert found.base_mass.tolist() == pytest.approx([2 * float(b) for b in BASE])


def test_a_policy_that_is_its_base_costs_nothing():
    found = step_divergences(logs([BASE]), logs([BASE]), torch.tensor([2]))
    for numbers in (found.kl_nats, found.drawn_nats, found.mean_nats, found.variance):
        assert not numbers.any()
