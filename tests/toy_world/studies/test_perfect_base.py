"""TVD beside KL with a base policy that never does something bad."""

from fractions import Fraction

import pytest

from theory.constraints import expected_kl_nats
from toy_world.studies.perfect_base import BAD_BASE, contrasts, ever_bad, proxy_world


@pytest.fixture(scope="module")
def found():
    return contrasts()


def test_under_tvd_a_perfect_base_policy_is_left_with_probability_c_and_under_kl_never(found):
    for contrast in found:
        assert contrast.kl[0] == 0
        if contrast.budget <= 1:
            assert contrast.tvd == (Fraction(contrast.budget),) * 3
    assert [c.kl for c in found] == sorted(c.kl for c in found)


def test_without_a_budget_the_agent_is_as_bad_as_its_base_policy(found):
    for bad, measured in zip(BAD_BASE, found[0].kl, strict=True):
        assert measured == pytest.approx(float(1 - (1 - bad) ** 3), rel=1e-9)


def test_the_probability_of_ever_acting_badly_counts_every_step():
    beta, nu, _ = proxy_world(Fraction(1, 3))
    assert ever_bad(beta, nu) == 1 - Fraction(2, 3) ** 3
    assert expected_kl_nats(beta, beta, nu) == 0
