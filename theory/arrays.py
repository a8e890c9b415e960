"""What NumPy and torch arrays share here: shapes, checks, float64, detached values, derivatives.

`theory` is written once, against the Python array API, and imports no torch. Conventions of
every function that takes log-probabilities:

- Arrays have shape (..., d); distributions lie along the last axis; leading axes broadcast.
- Arithmetic is float64 whatever the input's precision. One number a row comes back in float64;
  what has the shape of the input comes back in the input's precision. (A device without float64
  raises its own error.)
- Gradients flow wherever the library tracks them.
- `unchecked=True` skips the checks that must read the data, because on a GPU each of them waits
  for the device. Shapes and dtypes are always checked. On valid data it changes no result.

Annotations say shapes and dtypes in jaxtyping's words. `Float64[Array, "*rows d"]` is a float64
array whose last axis is called `d`, after any number of other axes, `rows`. One name means one
length in the whole signature, `#` allows length 1 as in broadcasting, and `Shaped` any dtype. The
tests check them. The names of axes:

    *rows       the axes before a distribution, any number of them
    d           the symbols of a distribution, always the last axis
    *episodes   the axes of a budget, one number an episode
    n           the rows of a solver, all leading axes made one
    models      the models of a mixture
    histories   the histories of one length; A is the number of actions, O of observations

Tables on history trees (`theory.process`) are tuples of arrays whose shapes grow with the step;
what they are is said in words.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
)

if TYPE_CHECKING:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Float64 as Float64
    from jaxtyping import Shaped as Shaped
else:
    # jaxtyping takes as long to import as NumPy, and only checkers read what it says. Whoever
    # has loaded it first (pytest does) gets its annotations; everybody else gets the same words
    # as plain `Annotated`, which is also what type checkers make of them.
    Bool, Float, Float64, Shaped = (
        getattr(sys.modules.get("jaxtyping"), dtype, Annotated)
        for dtype in ("Bool", "Float", "Float64", "Shaped")
    )

Array: TypeAlias = Any
"""A NumPy array or a torch tensor."""
Namespace: TypeAlias = Any
"""The array-API namespace of such an array."""

LogRows: TypeAlias = Float[Array, "*#rows d"]
"""Log-probabilities of distributions along the last axis; the axes before it broadcast."""
PerRow: TypeAlias = Float64[Array, "*rows"]
"""One number a row."""
NumberOrPerRow: TypeAlias = Float[Array, "*#rows"] | float
"""One number for all rows, or one a row."""

MASS_TOLERANCE: Final = 1e-9
"""How far the mass of a float64 row may be from what is asked of it (at most 1, or exactly 1).

Long products of conditionals and numbers read from text round by so much; a mistake in a model
is larger. It decides which arguments are refused, and nothing else."""
FULL_MASS_ROUNDING: Final = 1e-12
"""From `1 - FULL_MASS_ROUNDING` on a float64 row counts as a full distribution in formulas.

A sum of d floats rounds by some d 1e-16. What is missing beyond that is taken as meant, the
probability that nothing comes; so it must be far below `MASS_TOLERANCE`."""
SINGLE_PRECISION_ROUNDING: Final = 1e-5
"""Both of the above for rows that come in float32."""

INF: Final = float("inf")


_NAMESPACES: Final[dict[type, Namespace]] = {}
_FLOAT_NAMESPACES: Final[dict[tuple[tuple[type, Any], ...], Namespace]] = {}
"""What was found before, by type, and by types and dtypes that passed the checks: for a row of few
symbols looking it up again takes longer than its divergence."""


def array_namespace(array: Array) -> Namespace:
    """The namespace of an array that is known to be one."""
    xp = _NAMESPACES.get(type(array))
    if xp is None:
        xp = _NAMESPACES[type(array)] = array_api_compat.array_namespace(array)
    return xp


def common_namespace(**arrays: Array) -> Namespace:
    """The namespace that all `arrays` (by name, for the message) share.

    Raises:
        InvalidArgumentError: something that is no array of real floating-point numbers, or
            arrays of two libraries.
    """
    kinds = tuple((type(array), getattr(array, "dtype", None)) for array in arrays.values())
    xp = _FLOAT_NAMESPACES.get(kinds)
    if xp is None:
        xp = _FLOAT_NAMESPACES[kinds] = _float_namespace(arrays)
    return xp


def _float_namespace(arrays: Mapping[str, Array]) -> Namespace:
    for name, array in arrays.items():
        if not array_api_compat.is_array_api_obj(array):
            raise InvalidArgumentError(
                f"{name} must be a NumPy array or a torch tensor, got {type(array).__name__}"
            )
    try:
        xp = array_api_compat.array_namespace(*arrays.values())
    except TypeError:
        kinds = ", ".join(f"{name}: {type(array).__name__}" for name, array in arrays.items())
        raise InvalidArgumentError(
            f"arrays must come from one library, got {kinds}; convert one of them"
        ) from None
    for name, array in arrays.items():
        if "bfloat16" in str(array.dtype) or "float16" in str(array.dtype):
            raise InvalidArgumentError(
                f"{name} must be float32 or float64, got dtype {array.dtype}, in which "
                f"probabilities are off by a thousandth; take the logits to float32 first, as in "
                "logits.float().log_softmax(-1)"
            )
        if not xp.isdtype(array.dtype, "real floating"):
            raise InvalidArgumentError(
                f"{name} must hold real floating-point numbers, got dtype {array.dtype}"
            )
    return xp


def common_shape(**arrays: Array) -> tuple[int, ...]:
    """The shape to which `arrays`, distributions along their last axes, broadcast.

    Raises:
        InvalidShapeError: no last axis, an empty one, or shapes that do not fit together.
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    for name, shape in shapes.items():
        if not shape or shape[-1] == 0:
            raise InvalidShapeError(
                f"{name} must have shape (..., d) with d >= 1 symbols, got {shape}"
            )
    if len(set(shapes.values())) == 1:
        return next(iter(shapes.values()))
    if len({shape[-1] for shape in shapes.values()}) > 1:
        raise InvalidShapeError(f"rows must have the same number of symbols, got shapes {shapes}")
    return broadcast_shape(**shapes)


def broadcast_shape(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all `shapes` broadcast.

    Raises:
        InvalidShapeError: there is none.
    """
    rank = max(len(shape) for shape in shapes.values())
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes.values()]
    result = tuple(
        next((length for length in lengths if length != 1), 1)
        for lengths in zip(*padded, strict=True)
    )
    for shape in padded:
        if any(length not in (1, full) for length, full in zip(shape, result, strict=True)):
            raise InvalidShapeError(f"shapes must broadcast, got {shapes}")
    return result


def broadcast(array: Array, shape: tuple[int, ...]) -> Array:
    """`array` in that shape; itself where it has it, so that nothing is copied later."""
    same = tuple(array.shape) == shape
    return array if same else array_namespace(array).broadcast_to(array, shape)


def check_log_probabilities(*, full: bool = False, **arrays: Array) -> None:
    """Raise unless every row of `arrays` (by name) holds a semi-distribution's log-probabilities.

    Args:
        full: forbid missing mass too.
        arrays: shape (..., d).

    Raises:
        InvalidDistributionError: NaN, a log-probability above 0, too much mass, or, where
            `full`, too little; with the first offending number.
    """
    for name, log_p in arrays.items():
        xp = array_namespace(log_p)
        tolerance = SINGLE_PRECISION_ROUNDING if is_single_precision(log_p) else MASS_TOLERANCE
        if not (log_p <= tolerance).all():
            if xp.any(xp.isnan(log_p)):
                raise InvalidDistributionError(
                    f"{name} must not be NaN; write -inf for probability 0"
                )
            above = log_p[log_p > tolerance]
            raise InvalidDistributionError(
                f"{name} must hold log-probabilities, at most 0, got {float(above[0])}; "
                "take log_softmax of logits first"
            )
        mass = xp.sum(xp.exp(to_float64(log_p)), axis=-1)
        if not (mass <= 1 + tolerance).all():
            excess = xp.reshape(mass, (-1,))[xp.reshape(mass > 1 + tolerance, (-1,))]
            raise InvalidDistributionError(
                f"probabilities of {name} must sum to at most 1, got {float(excess[0])!r}"
            )
        if full and not (mass >= 1 - tolerance).all():
            short = xp.reshape(mass, (-1,))[xp.reshape(mass < 1 - tolerance, (-1,))]
            raise InvalidDistributionError(
                f"probabilities of {name} must sum to 1, got {float(short[0])!r}; say where the "
                "missing mass goes (with_missing_outcome), or divide by the sum"
            )


def check_budgets(**arrays: Array) -> None:
    """Raise `InvalidBudgetError` unless every entry of `arrays` (by name) is >= 0; inf is."""
    for name, nats in arrays.items():
        wrong = nats[~(nats >= 0)]
        if array_api_compat.size(wrong):
            raise InvalidBudgetError(f"{name} must be >= 0, got {float(wrong[0])}")


def is_single_precision(array: Array) -> bool:
    """Whether `array` is coarser than float64."""
    return _bits(array_namespace(array), array.dtype) < 64


@functools.cache
def _bits(xp: Namespace, dtype: Any) -> int:
    return int(xp.finfo(dtype).bits)


def to_float64(array: Array) -> Array:
    """`array` in float64, differentiably."""
    xp = array_namespace(array)
    return xp.astype(array, xp.float64, copy=False)


def reading_waits(array: Array) -> bool:
    """Whether reading a value of `array` waits for its device, as on a GPU."""
    return str(array_api_compat.device(array)) != "cpu"


def like(model: Array, value: Array | float, *, name: str) -> Array:
    """`value`, a number or an array, with the library, precision and device of `model`.

    Raises:
        InvalidArgumentError: an array of another library, or not of floats.
    """
    if isinstance(value, (int, float)):
        xp = array_namespace(model)
        # Filled where it lies: copying a number to a device would wait for it.
        return xp.full((), value, dtype=model.dtype, device=array_api_compat.device(model))
    xp = common_namespace(**{name: value, "the others": model})
    return xp.astype(value, model.dtype, copy=False)


def at_least(array: Array, bound: float) -> Array:
    """The larger of every entry and `bound`, without copying `bound` to a device."""
    return array.clip(bound, None)


def at_most(array: Array, bound: float) -> Array:
    """The smaller of every entry and `bound`, without copying `bound` to a device."""
    return array.clip(None, bound)


def row_dot(x: Array, y: Array) -> Array:
    """`sum x y` over the last axis."""
    return (x * y).sum(-1)


def tracks_gradient(array: Array) -> bool:
    """Whether the library would differentiate through `array` (never for NumPy)."""
    return bool(getattr(array, "requires_grad", False))


def stop_gradient(array: Array) -> Array:
    """`array` as a constant of differentiation."""
    return array.detach() if tracks_gradient(array) else array


def constant(array: Array) -> Array:
    """`array` as a constant of differentiation, float64."""
    return to_float64(stop_gradient(array))


def in_memory(array: Array) -> NDArray[np.float64]:
    """An array of a processor's, as a constant and in NumPy's words; the memory is shared."""
    return np.asarray(constant(array))


def zero_with_gradient(variable: Array) -> Array:
    """0 in value, the finite entries of `variable` in differentiation; float64."""
    xp = array_namespace(variable)
    finite = xp.abs(variable) < INF
    return to_float64(xp.where(finite, variable - stop_gradient(variable), 0.0))


def with_pull_back(
    values: Sequence[NDArray[np.float64]],
    variables: Sequence[Array],
    pull_back: Callable[..., Sequence[NDArray[np.float64] | None]],
) -> tuple[Array, ...]:
    """`values` as arrays of the variables' library, which differentiates through `pull_back`.

    First derivatives only. A variable that is overwritten before they are taken raises the
    library's own error.

    Args:
        values: what was computed from `variables`; shares its memory with the result.
        variables: of a library that tracks gradients (torch), float64, on a processor.
        pull_back: from a cotangent of each of `values`, and `wants` (whether each variable asks
            for its own), to one of each of `variables`.
    """
    xp = array_namespace(variables[0])
    return tuple(_function_of(xp).apply(pull_back, tuple(map(xp.asarray, values)), *variables))


@functools.cache
def _function_of(xp: Namespace) -> Any:
    """The library's class for functions that bring their own derivative."""

    class WithPullBack(xp.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(
            ctx: Any, pull_back: Any, values: tuple[Array, ...], *variables: Array
        ) -> tuple[Array, ...]:
            ctx.save_for_backward(*variables)
            ctx.pull_back = pull_back
            return values

        @staticmethod
        @xp.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
        def backward(ctx: Any, *cotangents: Array) -> tuple[Array | None, ...]:
            _ = ctx.saved_tensors  # raises if one was overwritten
            found = ctx.pull_back(*map(in_memory, cotangents), wants=ctx.needs_input_grad[2:])
            return None, None, *(None if by is None else xp.asarray(by) for by in found)

    return WithPullBack
