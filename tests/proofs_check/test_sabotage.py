"""A fault is in place wherever the code is held, and only for a while; what ran is seen."""

import inspect
import sys
from dataclasses import replace
from types import ModuleType

import pytest

import theory
from proofs_check import checks
from proofs_check.sabotage import (
    Sabotage,
    cross_off,
    returning,
    sabotaged,
    watch_calls,
    with_keyword,
    with_result,
)
from theory import bounds
from theory.bounds import Theorem1Bound, elias_delta_bits


def test_a_faulty_function_is_faulty_wherever_it_was_imported(monkeypatch):
    importer = ModuleType("proofs_check.importer")
    importer.renamed = elias_delta_bits
    monkeypatch.setitem(sys.modules, "proofs_check.importer", importer)
    sabotage = Sabotage(name="none", owner=bounds, attribute="elias_delta_bits", fault=returning(0))
    with sabotaged(sabotage):
        assert bounds.elias_delta_bits(17) == theory.elias_delta_bits(17) == 0
        assert importer.renamed(17) == 0
        assert elias_delta_bits(17) == 9, "this module is none of the toolkit's"
    assert bounds.elias_delta_bits(17) == importer.renamed(17) == 9


def test_the_original_is_back_after_an_error():
    sabotage = Sabotage(name="none", owner=bounds, attribute="elias_delta_bits", fault=returning(0))
    with pytest.raises(ZeroDivisionError), sabotaged(sabotage):
        1 / bounds.elias_delta_bits(3)
    assert bounds.elias_delta_bits(1) == 1


def test_methods_and_properties_are_replaced_in_their_class():
    bound = Theorem1Bound(delta_bits=2)
    nats, expected = bound.bound_nats, bound.expected_bound_nats(log_environment_weight=-1.0)
    owner = Theorem1Bound
    for fault, value in ((with_result(lambda v: 2 * v), 2 * nats), (returning(-1.0), -1.0)):
        with sabotaged(Sabotage(name="_", owner=owner, attribute="bound_nats", fault=fault)):
            assert bound.bound_nats == value
    fault = with_keyword("log_environment_weight", lambda weight: 3 * weight)
    with sabotaged(Sabotage(name="_", owner=owner, attribute="expected_bound_nats", fault=fault)):
        assert bound.expected_bound_nats(log_environment_weight=-1.0) == expected + 2
    assert bound.bound_nats == nats


def test_what_is_covered_has_the_name_of_its_class():
    fault = returning(None)
    method = Sabotage(name="_", owner=Theorem1Bound, attribute="bound_nats", fault=fault)
    function = Sabotage(name="_", owner=bounds, attribute="elias_delta_bits", fault=fault)
    assert method.covers == "Theorem1Bound.bound_nats"
    assert function.covers == "elias_delta_bits"


def called(n):
    return n


def never_called():
    raise AssertionError


def test_watching_sees_what_ran_and_restores_the_profiler():
    codes = [called.__code__, never_called.__code__]
    before = sys.getprofile()
    with watch_calls(codes) as missing:
        assert sys.getprofile() is not before
        called(1)
        assert missing == {never_called.__code__}
    assert sys.getprofile() is before


def test_only_calls_cross_off_and_the_last_one_ends_the_watch():
    # The interpreter runs profiling functions unseen by coverage: this one is called by hand.
    frame, ended = inspect.currentframe(), []
    missing = {frame.f_code, called.__code__}
    profile = cross_off(missing, lambda: ended.append(True))
    profile(frame, "return", None)
    assert len(missing) == 2
    profile(frame, "call", None)
    assert missing == {called.__code__}
    assert not ended
    missing |= {frame.f_code}
    missing -= {called.__code__}
    profile(frame, "call", None)
    assert ended


def test_watching_ends_once_everything_ran():
    before = sys.getprofile()
    with watch_calls([called.__code__]) as missing:
        called(1)
        assert sys.getprofile() is before
    assert not missing
    with watch_calls([]):
        assert sys.getprofile() is before


def test_a_sabotage_that_nothing_notices_is_named():
    (check,) = checks.select(["pinsker"])
    fault = Sabotage(name="no bits", owner=bounds, attribute="elias_delta_bits", fault=returning(0))
    covering = replace(check, sabotages=(fault,))
    assert checks.uncaught_sabotages([covering]) == ("pinsker: no bits",)
    assert checks.uncaught_sabotages([check]) == ()
