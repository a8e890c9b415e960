"""What is asked of arrays: one library, shapes that broadcast, rows that are distributions."""

import numpy as np
import pytest
import torch

from theory.arrays import (
    FULL_MASS_ROUNDING,
    MASS_TOLERANCE,
    SINGLE_PRECISION_ROUNDING,
    broadcast_shape,
    check_log_probabilities,
    common_namespace,
    common_shape,
    like,
)
from theory.divergences import log_missing_mass
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.process import check_distributions


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float64, MASS_TOLERANCE), (np.float32, SINGLE_PRECISION_ROUNDING)],
)
def test_a_row_may_be_off_by_the_tolerance_of_its_precision_and_no_more(dtype, tolerance):
    for off, refused in ((0.5 * tolerance, False), (2 * tolerance, True)):
        too_much = np.log(np.array([0.5, 0.5 + off])).astype(dtype)
        too_little = np.log(np.array([0.5, 0.5 - off])).astype(dtype)
        check_log_probabilities(rows=too_little)
        if not refused:
            check_log_probabilities(full=True, more=too_much, less=too_little)
            continue
        with pytest.raises(InvalidDistributionError, match="of rows must sum to at most 1"):
            check_log_probabilities(rows=too_much)
        with pytest.raises(InvalidDistributionError, match="of rows must sum to 1"):
            check_log_probabilities(full=True, rows=too_little)


def test_tables_have_the_same_tolerance():
    check_distributions(np.array([[0.5, 0.5 + 0.5 * MASS_TOLERANCE]]), name="the rows")
    with pytest.raises(InvalidDistributionError, match="of the rows must sum to at most 1"):
        check_distributions(np.array([[0.5, 0.5 + 2 * MASS_TOLERANCE]]), name="the rows")


def test_what_rounding_takes_from_a_full_row_is_no_missing_mass():
    missing = log_missing_mass(
        np.log([[0.5, 0.5 - 0.5 * FULL_MASS_ROUNDING], [0.5, 0.5 - 2 * FULL_MASS_ROUNDING]])
    )
    assert missing[0] == -np.inf
    assert np.exp(missing[1]) == pytest.approx(2 * FULL_MASS_ROUNDING, rel=1e-3)


def test_arrays_come_from_one_library_and_hold_floats():
    assert common_namespace(p=torch.zeros(2)).__name__.endswith("torch")
    with pytest.raises(InvalidArgumentError, match="p must be a NumPy array or a torch tensor"):
        common_namespace(p=[0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match="one library, got p: ndarray, q: Tensor"):
        common_namespace(p=np.zeros(2), q=torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match="q must hold real floating-point numbers"):
        common_namespace(p=np.zeros(2), q=np.zeros(2, dtype=int))
    with pytest.raises(InvalidArgumentError, match="one library"):
        like(torch.zeros(2), np.zeros(2), name="kl_nats")


def test_shapes_broadcast_or_are_refused():
    assert common_shape(p=np.zeros((3, 1, 4)), q=np.zeros((2, 4))) == (3, 2, 4)
    assert broadcast_shape(rows=(3, 1), k=()) == (3, 1)
    with pytest.raises(InvalidShapeError, match=r"q must have shape \(\.\.\., d\)"):
        common_shape(p=np.zeros(2), q=np.zeros(()))
    with pytest.raises(InvalidShapeError, match="the same number of symbols"):
        common_shape(p=np.zeros(2), q=np.zeros(3))
    with pytest.raises(InvalidShapeError, match="must broadcast"):
        common_shape(p=np.zeros((2, 4)), q=np.zeros((3, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused_with_the_remedy(dtype):
    rows = torch.log_softmax(torch.zeros(3, dtype=dtype), -1)
    with pytest.raises(InvalidArgumentError, match=r"take the logits to float32 first"):
        common_namespace(log_p=rows)
