"""`theory.kl_paths` in machine code, for arrays that lie in a processor's memory.

One call solves all rows, each by itself, and another pulls a gradient back through them. A row is
gone through once for the masses of a and b, once for their ratio or its logarithm, and once for
each of Newton's steps, several numbers at a time: exponentials and logarithms are written out
below, because a loop that calls the library's takes one number at a time. What is not said here is
said in `theory.projections` (the mathematics) and in `theory.kl_paths` (the same by array
operations).

Of a row these are kept, shape (d,) each, and the numbers of `ROW`:

    base        b, a and b being normalised
    ratio       u = a/b - 1, so that a = b (1 + u) and a - b = b u
    tilt        s = log(a/b) less its mean under b, `LOG_ZERO` where a = 0; geometric path only

Where a/b > e^40, b is taken to be a/(1 + u), which up to e^650 is the same but for rounding.
Beyond that u is cut off, and the *excess*, `log(a/b) - 650`, is added to the logarithms; b is then
too small to matter.

KL(x||b) is the sum of `b h`, `h = (1 + y) L - y >= 0` with `y = x/b - 1` and `L = log(1 + y)`. Both
ways to h, from y and from L, lose no digits where it is small.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from theory.compiled import numeric, summing
from theory.kl_paths import (
    BASIN,
    EXP_LIMIT,
    EXP_MODERATE,
    GEOMETRIC_ZERO,
    HIGHEST_LOG_ODDS,
    LARGEST_STEP,
    LARGEST_WEIGHT,
    LOG_ZERO,
    MARGIN,
    NEAR_BASE_NATS,
    RESIDUAL_GOAL,
    SMALLEST_KL,
    SMALLEST_WEIGHT,
)

Floats: TypeAlias = NDArray[np.float64]
Record: TypeAlias = Any
"""One entry of an array of dtype `ROW`, whose fields are attributes in compiled code."""

_SOLUTION: Final = ("weight", "target", "kl", "residual")
_DERIVATIVES: Final = (
    "weight_by_target",
    "weight_by_share",
    "target_by_k",
    "target_by_share",
    "target_by_end",
    "spends",
)
_PATH: Final = (
    "floor",  # the least log b that counts
    "log_mass_b",  # of b as it came
    "shift",  # log of a's mass over b's, as they came
    "end",  # KL(a||b)
    "half_chi2",  # half of chi2(a||b)
    "excesses",  # 0 if no u is cut off
    "meets",  # whether a has mass where b has, as 0 or 1
    "top_a",  # the largest log a that counts
    "mass_a",  # of a over e^top
    "mass_b",  # of `base`
    "n_far",  # symbols at which a/b > e^40
    "lost",  # b's mass where a = 0
    "kept",  # and where not
    "jump",  # the KL next to b on the geometric path
    "variance",  # of the tilt where that starts
    "spread",  # the tilt's range
    "highest",  # the tilt's largest value
    "cubic",  # coefficients of the polynomial through A, A' at both ends and A'' at weight 0
    "quartic",
    "log_sum",  # A(lambda) at the weight
    "mean",  # the tilt's mean there; before, that of s under b
    "third",  # its third moment about that; 0 if it was not read
)
ROW: Final = np.dtype(
    [(name, np.float64) for name in (*_SOLUTION, *_DERIVATIVES, *_PATH)], align=True
)
"""The numbers of a row: the fields of `kl_paths.Solution` and of `kl_paths.TargetDerivatives`, and
what is known of its path."""

IMPOSSIBLE: Final = 0.5 * LOG_ZERO
"""A logarithm below it is that of 0."""
LEAST_EXPONENT: Final = -746.0
"""e^s is 0 in float64 from here down."""
ROUGH_NATS: Final = 1e-9
CERTAINLY: Final = 1.0 + 1e-6
"""KL(a||b) as `masses_and_means` has it, right to about 1e-14, is surely above k if it is above
k times the one and the other."""
POLYNOMIAL_STEPS: Final = 5
"""Of Newton's, on single numbers, for the first guess."""
MOST_CHANGE: Final = 0.5
"""A guess at e^A that is further off than this part of it, or than the KL, is not good enough."""
MOST_SHIFT: Final = 100.0
"""Nor is a guess at tilt's mean that is further off than this many of its variances, squared."""
LEAST_RATIO_EXPONENT: Final = -50.0
"""e^s - 1 is -1 in float64 from here down."""

# ----------------------------------------------------------------------------------- elementary


def _bits_of(_context: Any, _number: Any) -> Any:
    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


def _with_bits(_context: Any, _word: Any) -> Any:
    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


bits_of = cast(Callable[[float], int], intrinsic(_bits_of))
"""The 64 bits of a float as an integer."""
with_bits = cast(Callable[[int], float], intrinsic(_with_bits))
"""The float of these 64 bits."""

MANTISSA_BITS: Final = 52
EXPONENT_BIAS: Final = 1023
ROUNDER: Final = 1.5 * 2.0**MANTISSA_BITS
"""A number of moderate size is rounded to an integer by adding this and subtracting it again."""
ROUNDER_BITS: Final = int(np.float64(ROUNDER).view(np.int64))
COUNTER_BITS: Final = int(np.float64(2.0**MANTISSA_BITS).view(np.int64))
"""Those of 2^52, whose last bits count."""
ROOT_HALF_BITS: Final = int(np.float64(math.sqrt(0.5)).view(np.int64))
LN_2_HIGH: Final = float.fromhex("0x1.62e42ff000000p-1")
"""ln 2 to 32 bits, so that its products with exponents are exact."""
LN_2_LOW: Final = float.fromhex("-0x1.718432a1b0e26p-35")
"""ln 2 less that."""
LOG2_E: Final = 1 / math.log(2)
EXP_SERIES: Final = tuple(1 / math.factorial(n) for n in range(13, 1, -1))
"""(e^r - 1 - r) / r^2 in r, highest power first; right to 1e-17 for |r| <= log(2)/2."""
LOG_SERIES: Final = tuple(2 / (2 * n + 1) for n in range(10, 0, -1))
"""(log((1 + s)/(1 - s)) - 2 s) / s^3 in s^2; right to 1e-17 for |s| <= (sqrt(2) - 1)^2."""


SIGN_LESS: Final = 2**63 - 1


@numeric
def ordered(x: float) -> int:
    """An integer that grows with x: a loop finds the largest of these several at a time."""
    bits = bits_of(x)
    return bits ^ (SIGN_LESS if bits < 0 else 0)


@numeric
def unordered(word: int) -> float:
    """The float of `ordered`."""
    return with_bits(word ^ (SIGN_LESS if word < 0 else 0))


@numeric
def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """By Horner's rule, highest power first."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


@numeric
def power_of_two(n: int) -> float:
    """2^n for -1023 < n < 1024."""
    return with_bits((n + EXPONENT_BIAS) << MANTISSA_BITS)


@numeric
def reduced(x: float) -> tuple[int, float, float]:
    """Of e^x: n and r with `x = n log 2 + r`, |r| <= log(2)/2, and P with `e^r = 1 + r + r^2 P`."""
    rounded = x * LOG2_E + ROUNDER
    n = rounded - ROUNDER
    r = (x - n * LN_2_HIGH) - n * LN_2_LOW
    return bits_of(rounded) - ROUNDER_BITS, r, polynomial(EXP_SERIES, r)


@numeric
def exponential(x: float) -> float:
    """e^x for x <= 700."""
    n, r, series = reduced(max(x, LEAST_EXPONENT))
    half = n >> 1  # 2^n alone may be no normal number
    return (1.0 + (r + r * r * series)) * power_of_two(half) * power_of_two(n - half)


@numeric
def ratio_and_h(log_ratio: float) -> tuple[float, float]:
    """Y = e^L - 1 and h = (1 + y) L - y, for L <= 700."""
    n, r, series = reduced(max(log_ratio, LEAST_RATIO_EXPONENT))
    scale = power_of_two(n)
    y = scale * (r + r * r * series) + (scale - 1.0)
    h = r * r * (1.0 + (r - 1.0) * series) if n == 0 else (1.0 + y) * log_ratio - y
    return y, h


@numeric
def log_ratio_and_h(y: float) -> tuple[float, float]:
    """L = log(1 + y) and h = (1 + y) L - y, for y > -1."""
    bits = bits_of(1.0 + y)
    exponent = (bits - ROOT_HALF_BITS + (EXPONENT_BIAS << MANTISSA_BITS)) >> MANTISSA_BITS
    mantissa = with_bits(bits - ((exponent - EXPONENT_BIAS) << MANTISSA_BITS))
    k = with_bits(exponent + COUNTER_BITS) - (2.0**MANTISSA_BITS + EXPONENT_BIAS)
    f = y if k == 0.0 else mantissa - 1.0
    s = f / (2.0 + f)
    rest = s * s * s * polynomial(LOG_SERIES, s * s)
    log_ratio = k * LN_2_HIGH + (2.0 * s + (rest + k * LN_2_LOW))
    # With 1 + y = (1 + s)/(1 - s) the terms of first order in s cancel in h; 1/(1 - s) = 1 + f/2.
    h = (s * s + 0.5 * (1.0 + s) * rest) * (2.0 + f) if k == 0.0 else (1.0 + y) * log_ratio - y
    return log_ratio, h


@numeric
def product(b: float, u: float, by: float) -> float:
    """`b u by`, from the left: `b u` is at most a probability where `u by` may overflow."""
    return b * u * by


@numeric
def difference(x: float, y: float, z: float) -> float:
    """`x - y - z` rounded about once (Knuth's exact differences)."""
    first = x - y
    minus_y = first - x
    lost_first = (x - (first - minus_y)) - (y + minus_y)
    second = first - z
    minus_z = second - first
    return second + (lost_first + ((first - (second - minus_z)) - (z + minus_z)))


# --------------------------------------------------------------------------------- a row's ends


@numeric
def cleaned(log_a: float, log_b: float, floor: float) -> tuple[float, float]:
    """Logarithms with `LOG_ZERO` for 0: b is 0 where log b < floor, and a where b is."""
    possible = log_b >= floor
    return max(log_a, LOG_ZERO) if possible else LOG_ZERO, log_b if possible else LOG_ZERO


@numeric
def tops(log_a: Floats, log_b: Floats, floor: float) -> tuple[float, float, float]:
    """The largest log a, and the largest and the least log b."""
    top_a, top_b, bottom_b = ordered(LOG_ZERO), ordered(LOG_ZERO), ordered(-LOG_ZERO)
    for i in range(log_a.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        a, b = ordered(p), ordered(q)
        top_a = max(top_a, a)
        top_b = max(top_b, b)
        bottom_b = min(bottom_b, b)
    return unordered(top_a), unordered(top_b), unordered(bottom_b)


@summing
def masses(
    log_a: Floats, log_b: Floats, floor: float, top_a: float, top_b: float, base: Floats
) -> tuple[float, float]:
    """The masses of a and b over e^top; fills `base` with b over it."""
    mass_a, mass_b = 0.0, 0.0
    for i in range(log_a.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        b = exponential(q - top_b)
        base[i] = b
        mass_a += exponential(p - top_a)
        mass_b += b
    return mass_a, mass_b


@summing
def masses_and_means(
    log_a: Floats,
    log_b: Floats,
    floor: float,
    top_a: float,
    top_b: float,
    base: Floats,
    row: Record,
) -> tuple[float, float]:
    """As `masses`; notes what the geometric path begins with, and KL(a||b) roughly."""
    mass_a, mass_b, lost, kept, first_a, first_b = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(log_a.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        from_top = (p - top_a) - (q - top_b)
        a, b = exponential(p - top_a), exponential(q - top_b)
        b_kept = b if p > IMPOSSIBLE else 0.0
        base[i] = b
        mass_a += a
        mass_b += b
        lost += b - b_kept
        kept += b_kept
        first_a += a * from_top
        first_b += b_kept * from_top
    log_masses = math.log(mass_a) - math.log(mass_b)
    row.lost, row.kept = lost / mass_b, kept / mass_b
    row.end, row.mean = first_a / mass_a - log_masses, first_b / kept - log_masses
    return mass_a, mass_b


@summing
def compare(
    log_a: Floats,
    log_b: Floats,
    far: bool,
    base: Floats,
    ratio: Floats,
    row: Record,
) -> None:
    """Note KL(a||b) to all its digits, half of chi2(a||b) and excesses.

    Divides `base` by its mass and fills `ratio`. Where a/b > e^40 only right if `far`; how often
    that is it notes too.
    """
    floor, shift, by_mass_b = row.floor, row.shift, 1.0 / row.mass_b
    top_a, mass_a = row.top_a, row.mass_a
    end, half_chi2, excesses, n_far = 0.0, 0.0, 0.0, 0.0
    for i in range(log_a.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        s = difference(p, q, shift)
        excess = max(s - EXP_LIMIT, 0.0) if far else 0.0
        u, h = ratio_and_h(min(s, EXP_LIMIT))
        b = base[i] * by_mass_b
        if far:
            b = exponential(p - top_a) / mass_a / (1.0 + u) if s > EXP_MODERATE else b
        ratio[i] = u
        base[i] = b
        end += b * h
        end += product(b, 1.0 + u, excess)
        half_chi2 += 0.5 * b * u * u
        excesses += excess
        n_far += 1.0 if s > EXP_MODERATE else 0.0
    row.end, row.half_chi2 = end, half_chi2
    row.excesses, row.n_far = excesses, n_far
    row.mass_b = 1.0


@numeric
def read_ends(geometric: bool, log_a: Floats, log_b: Floats, base: Floats, row: Record) -> None:
    """Fill `base` but for its mass, and note what `row` says of both ends but for `compare`'s."""
    floor = IMPOSSIBLE
    top_a, top_b, bottom_b = tops(log_a, log_b, floor)
    if geometric:
        floor = top_b + GEOMETRIC_ZERO
        if bottom_b < floor:
            top_a, top_b, _ = tops(log_a, log_b, floor)
    meets = top_a > IMPOSSIBLE
    top_a = top_a if meets else 0.0
    if geometric:
        mass_a, mass_b = masses_and_means(log_a, log_b, floor, top_a, top_b, base, row)
    else:
        mass_a, mass_b = masses(log_a, log_b, floor, top_a, top_b, base)
    mass_a = mass_a if meets else 1.0
    row.meets = 1.0 if meets else 0.0
    row.floor, row.top_a, row.mass_a, row.mass_b = floor, top_a, mass_a, mass_b
    row.log_mass_b = top_b + math.log(mass_b)
    row.shift = top_a + math.log(mass_a) - row.log_mass_b
    row.jump = 0.0


# ------------------------------------------------------------------------------- the linear path


@summing
def linear_point(weight: float, base: Floats, ratio: Floats) -> tuple[float, float]:
    """KL(x||b) and its slope, but for the excess."""
    kl, slope = 0.0, 0.0
    for i in range(base.size):
        b, u = base[i], ratio[i]
        log_ratio, h = log_ratio_and_h(weight * u)
        kl += b * h
        slope += b * u * log_ratio
    return kl, slope


@summing
def linear_excess(
    weight: float, log_a: Floats, log_b: Floats, base: Floats, ratio: Floats, row: Record
) -> tuple[float, float]:
    """What the excess adds to KL(x||b) and to its slope."""
    floor, shift = row.floor, row.shift
    kl, slope = 0.0, 0.0
    for i in range(base.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        excess = max(difference(p, q, shift) - EXP_LIMIT, 0.0)
        kl += product(base[i], 1.0 + weight * ratio[i], excess)
        slope += product(base[i], ratio[i], excess)
    return kl, slope


@numeric
def linear_start(target: float, row: Record) -> tuple[float, float]:
    """A weight below the root, by convexity, and a guess at it; see `kl_paths.LinearPath`."""
    quotient = target / (row.half_chi2 if row.half_chi2 > SMALLEST_KL else 1.0)
    half = 0.5 * (target / row.end - quotient)
    return 0.99 * target / row.end, half + math.hypot(half, math.sqrt(quotient))


@summing
def write_linear(
    weight: float, log_a: Floats, log_b: Floats, ratio: Floats, row: Record, log_x: Floats
) -> None:
    """Fill `log_x` for a weight below 1."""
    floor, shift, log_mass_b = row.floor, row.shift, row.log_mass_b
    for i in range(ratio.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        log_ratio, _ = log_ratio_and_h(weight * ratio[i])
        excess = max(difference(p, q, shift) - EXP_LIMIT, 0.0)
        log_x[i] = q - log_mass_b + (log_ratio + excess) if q > IMPOSSIBLE else -math.inf


# ---------------------------------------------------------------------------- the geometric path


@summing
def tilted(
    weight: float, log_b: Floats, log_mass_b: float, tilt: Floats, x: Floats
) -> tuple[float, float, float]:
    """`A = log sum b e^(lambda tilt)` and tilt's mean under x; fills `x`, and returns its mass.

    Only where a > 0; x is not normalised.
    """
    top = LOG_ZERO
    for i in range(tilt.size):
        start = log_b[i] - log_mass_b + weight * tilt[i] if tilt[i] > IMPOSSIBLE else LOG_ZERO
        top = start if start > top else top
    mass, first = 0.0, 0.0
    for i in range(tilt.size):
        inside = tilt[i] > IMPOSSIBLE
        part = exponential(log_b[i] - log_mass_b + weight * tilt[i] - top if inside else LOG_ZERO)
        x[i] = part
        mass += part
        first += part * (tilt[i] if inside else 0.0)
    return top + math.log(mass), first / mass, mass


@summing
def read_tilt(
    log_a: Floats, log_b: Floats, base: Floats, tilt: Floats, scratch: Floats, row: Record
) -> None:
    """Fill `tilt` and what `row` says of the geometric path."""
    floor, shift, log_mass_b = row.floor, row.shift, row.log_mass_b
    log_kept, mean, mass, start = math.log1p(-row.lost), row.mean, row.kept, base
    if not row.lost < 0.5:  # what is left may be too small for `base`
        for i in range(tilt.size):
            p, q = cleaned(log_a[i], log_b[i], floor)
            tilt[i] = difference(p, q, shift) if p > IMPOSSIBLE else LOG_ZERO
        log_kept, mean, mass = tilted(0.0, log_b, log_mass_b, tilt, scratch)
        start = scratch
    second, low, high, by_mass_b = 0.0, ordered(-LOG_ZERO), ordered(LOG_ZERO), 1.0 / row.mass_b
    for i in range(tilt.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        base[i] *= by_mass_b
        # A constant in s changes no x; without s's mean, L keeps its digits where it is small.
        inside = p > IMPOSSIBLE
        t = difference(p, q, shift + mean)
        tilt[i] = t if inside else LOG_ZERO
        second += start[i] * t * t if inside else 0.0
        low = min(low, ordered(t if inside else -LOG_ZERO))
        high = max(high, ordered(t if inside else LOG_ZERO))
    row.jump = -log_kept
    row.variance = second / mass
    # A(1) = -mean, A'(1) = KL(a||b) - mean; A(0) = -jump, A'(0) = 0.
    rise, slope = -mean + row.jump - 0.5 * row.variance, row.end - mean - row.variance
    row.quartic = slope - 3.0 * rise
    row.cubic = rise - row.quartic
    row.highest = unordered(high)
    row.spread = row.highest - unordered(low)
    row.mass_b = 1.0


@numeric
def guess_sums(last: float, weight: float, slope: float, row: Record) -> None:
    """Note guesses at A and at tilt's mean: by Taylor's series from the last weight and its slope.

    From weight 0 by the polynomial through both ends.
    """
    step = weight - last
    if last > 0.0:
        variance = slope / last
        row.log_sum += step * (row.mean + 0.5 * step * variance)
        row.mean += step * variance
    else:
        variance, cubic, quartic = row.variance, row.cubic, row.quartic
        row.log_sum = step * step * (0.5 * variance + step * (cubic + step * quartic)) - row.jump
        row.mean = step * (variance + step * (3.0 * cubic + step * 4.0 * quartic))


@summing
def corrected_point(
    weight: float, base: Floats, tilt: Floats, row: Record
) -> tuple[float, float, float]:
    """KL(x||b) and tilt's variance under x, from guesses at A and tilt's mean; corrects these.

    Also gives `d = e^(A - guess) - 1`, the sum of `b y`, or inf if the mean was too far off: with L
    and h of the guess, `KL(x||b) = (sum b h)/(1 + d) + d/(1 + d) - log(1 + d)`, of which the second
    part is of the order of d^2. Only for L below `EXP_MODERATE`.
    """
    log_sum, guess = row.log_sum, row.mean
    kl, change, first, second, third = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(tilt.size):
        inside = tilt[i] > IMPOSSIBLE
        y, h = ratio_and_h(weight * tilt[i] - log_sum if inside else LOG_ZERO)
        x = base[i] * (1.0 + y)
        gap = tilt[i] - guess if inside else 0.0
        kl += base[i] * h
        change += base[i] * y
        first += x * gap
        second += x * gap * gap
        third += x * gap * gap * gap
    mass = 1.0 + change
    if not mass > 0.0:
        return 0.0, 0.0, change
    log_mass = math.log1p(change)
    row.log_sum, row.mean = log_sum + log_mass, guess + first / mass
    kl = (kl + change) / mass - log_mass
    first, second, third = first / mass, second / mass, third / mass
    row.third = third - first * (3.0 * second - 2.0 * first * first)
    variance = second - first * first
    return kl, variance, change if first * first < MOST_SHIFT * variance else math.inf


@summing
def exact_point(
    weight: float, log_b: Floats, base: Floats, tilt: Floats, scratch: Floats, row: Record
) -> tuple[float, float]:
    """The same whatever L is, by two passes and without guesses."""
    log_sum, mean, mass = tilted(weight, log_b, row.log_mass_b, tilt, scratch)
    kl, variance = 0.0, 0.0
    for i in range(tilt.size):
        inside = tilt[i] > IMPOSSIBLE
        x = scratch[i] / mass
        log_ratio = weight * tilt[i] - log_sum if inside else LOG_ZERO
        _, h = ratio_and_h(min(log_ratio, EXP_MODERATE))
        kl += base[i] * h if log_ratio < EXP_MODERATE else x * (log_ratio - 1.0)
        gap = tilt[i] - mean if inside else 0.0
        variance += x * gap * gap
    row.log_sum, row.mean, row.third = log_sum, mean, 0.0
    return kl, variance


@numeric
def geometric_point(
    weight: float, log_b: Floats, base: Floats, tilt: Floats, scratch: Floats, row: Record
) -> tuple[float, float]:
    """KL(x||b) and its slope; `log_sum` and `mean` are guesses before, and right afterwards."""
    tries = 2
    while tries > 0 and weight * row.highest - row.log_sum < EXP_MODERATE:
        tries -= 1
        kl, variance, change = corrected_point(weight, base, tilt, row)
        if abs(change) < min(kl, MOST_CHANGE):
            return kl, weight * variance
    kl, variance = exact_point(weight, log_b, base, tilt, scratch, row)
    return kl, weight * variance


@numeric
def geometric_start(target: float, row: Record) -> tuple[float, float]:
    """A weight below the root, and a guess at it; see `kl_paths.GeometricPath`."""
    rise, span = target - row.jump, row.end - row.jump
    lowest = 0.99 * math.sqrt(8.0 * rise) / (row.spread if row.spread > 0.0 else 1.0)
    first = math.sqrt(rise / max(0.5 * row.variance, span))
    # Newton's steps, unless they go astray, on the KL that the polynomial through both ends gives.
    square, cube, fourth = 0.5 * row.variance, 2.0 * row.cubic, 3.0 * row.quartic
    weight = first
    for _ in range(POLYNOMIAL_STEPS):
        kl = weight * weight * (square + weight * (cube + weight * fourth))
        slope = weight * (2.0 * square + weight * (3.0 * cube + weight * 4.0 * fourth))
        weight += (rise - kl) / slope
        if not (slope > 0.0 and lowest < weight < 1.0):
            return lowest, first
    return lowest, weight


@summing
def write_geometric(weight: float, log_b: Floats, tilt: Floats, row: Record, log_x: Floats) -> None:
    """Fill `log_x` for a weight inside (0, 1)."""
    log_mass_b, log_sum = row.log_mass_b, row.log_sum
    for i in range(tilt.size):
        log_p = log_b[i] - log_mass_b + (weight * tilt[i] - log_sum)
        log_x[i] = log_p if tilt[i] > IMPOSSIBLE else -math.inf


@summing
def write_end(proposal: bool, log_a: Floats, log_b: Floats, row: Record, log_x: Floats) -> None:
    """Fill `log_x` with a, projected onto b's support, or with b."""
    floor, shift, log_mass_b = row.floor, row.shift, row.log_mass_b
    for i in range(log_x.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        log_p = q - log_mass_b + (difference(p, q, shift) if proposal else 0.0)
        log_x[i] = log_p if log_p > IMPOSSIBLE else -math.inf


# -------------------------------------------------------------------------------------- the root


@numeric
def log_odds(weight: float) -> float:
    """`log(weight / (1 - weight))`, the weight first brought inside (0, 1)."""
    weight = min(max(weight, SMALLEST_WEIGHT), LARGEST_WEIGHT)
    return math.log(weight) - math.log1p(-weight)


@numeric
def newton_step(
    place: float,
    low: float,
    high: float,
    last_error: float,
    weight: float,
    kl: float,
    slope: float,
    row: Record,
) -> tuple[float, float, float, float]:
    """The next log-odds, the bracket, and the error in log-odds of the KL; see `kl_paths`."""
    low = place if kl < row.target else low
    high = high if kl < row.target else place
    span = row.end - row.jump
    rise = max(kl - row.jump, SMALLEST_KL)
    left = max(span - rise, MARGIN * span)
    error = math.log((row.target - row.jump) / (row.end - row.target) * (left / rise))
    size = abs(error)
    rate = slope * weight * (1.0 - weight) * (span / left / rise)
    proposed = place + error / max(rate, size / LARGEST_STEP + SMALLEST_KL)
    good = (low < proposed < high and size < 0.5 * last_error) or size < BASIN
    return proposed if good else 0.5 * (low + high), low, high, size


@numeric
def chebyshev_step(weight: float, kl: float, slope: float, row: Record) -> float:
    """The next log-odds on the geometric path, near its root: Newton's step, one order further."""
    step = (row.target - kl) / slope
    curvature = slope / weight + weight * row.third
    return log_odds(weight + step * (1.0 - 0.5 * step * curvature / slope))


@numeric
def seek(
    geometric: bool,
    log_a: Floats,
    log_b: Floats,
    most_steps: int,
    base: Floats,
    ratio: Floats,
    tilt: Floats,
    scratch: Floats,
    row: Record,
) -> None:
    """Note the weight whose KL is the target, that KL, its residual and the weight's slope."""
    lowest, guess = geometric_start(row.target, row) if geometric else linear_start(row.target, row)
    low, high, error = log_odds(lowest), HIGHEST_LOG_ODDS, math.inf
    place, before = max(log_odds(guess), low), math.inf
    weight, kl, slope, residual = 0.0, 0.0, 0.0, math.inf
    while most_steps > 0 and residual > RESIDUAL_GOAL and place != before:
        most_steps -= 1
        last, weight = weight, 1.0 / (1.0 + math.exp(-place))
        if geometric:
            guess_sums(last, weight, slope, row)
            kl, slope = geometric_point(weight, log_b, base, tilt, scratch, row)
        else:
            kl, slope = linear_point(weight, base, ratio)
            if row.excesses > 0.0:
                more, steeper = linear_excess(weight, log_a, log_b, base, ratio, row)
                kl, slope = kl + more, slope + steeper
        residual = abs(kl - row.target) / row.target
        before = place
        place, low, high, error = newton_step(place, low, high, error, weight, kl, slope, row)
        if geometric and error < BASIN and slope > SMALLEST_KL:
            place = chebyshev_step(weight, kl, slope, row)
    row.weight, row.kl, row.residual = weight, kl, residual
    row.weight_by_target = 1.0 / slope if slope > SMALLEST_KL else 0.0


@numeric
def solve_row(
    geometric: bool,
    log_a: Floats,
    log_b: Floats,
    k: float,
    share: float,
    most_steps: int,
    keeps_ends: bool,
    base: Floats,
    ratio: Floats,
    tilt: Floats,
    log_x: Floats,
    row: Record,
) -> None:
    """One row of `solve_rows`."""
    read_ends(geometric, log_a, log_b, base, row)
    # What no derivative asks for is left out: to the last digit KL(a||b) of a row that cannot pay
    # for a, and the tilt of one that can, or has nothing to pay with.
    if not geometric or keeps_ends or not row.end > CERTAINLY * k + ROUGH_NATS:
        compare(log_a, log_b, False, base, ratio, row)
        if row.n_far > 0.0:
            compare(log_a, log_b, True, base, ratio, row)
    moves = k > SMALLEST_KL and not (row.end <= k and share >= 1.0)
    if geometric and row.meets > 0.0 and (keeps_ends or moves or row.lost > 0.0):
        read_tilt(log_a, log_b, base, tilt, log_x, row)
    # Where x ends up; see `kl_paths.solve`.
    something = k > SMALLEST_KL and row.meets > 0.0
    to_spend = something and k > row.jump
    reached = row.end <= k
    reach = min(row.end, k) if something else 0.0
    target = share * reach
    enough = to_spend and reached and share >= 1.0
    near = to_spend and row.end < NEAR_BASE_NATS <= k and 0.0 < share < 1.0
    inside = to_spend and target > SMALLEST_KL and target > row.jump and not enough and not near

    row.target = target
    row.weight = 1.0 if enough else math.sqrt(share) if near else 0.0
    row.kl = target if enough or near else 0.0
    row.residual = 0.0
    row.weight_by_target = 0.0
    row.weight_by_share = 0.5 / row.weight if near else 0.0
    row.target_by_k = 0.0 if reached else share
    row.target_by_share = reach
    row.target_by_end = share if reached else 0.0
    row.spends = 1.0 if enough or near or inside else 0.0
    if inside:
        seek(geometric, log_a, log_b, most_steps, base, ratio, tilt, log_x, row)
    elif near and geometric:
        guess_sums(0.0, row.weight, 0.0, row)
        geometric_point(row.weight, log_b, base, tilt, log_x, row)
    if not (inside or near):
        write_end(enough, log_a, log_b, row, log_x)
    elif geometric:
        write_geometric(row.weight, log_b, tilt, row, log_x)
    else:
        write_linear(row.weight, log_a, log_b, ratio, row, log_x)


@numeric
def solve_rows(
    geometric: bool,
    log_a: Floats,
    log_b: Floats,
    k: Floats,
    share: Floats,
    most_steps: int,
    record: Floats,
    log_x: Floats,
    rows: NDArray[np.void],
) -> None:
    """The point of each row's path whose KL from b is `share min(k, KL(a||b))`.

    Args:
        geometric: which path.
        log_a: log-probabilities of the proposals, shape (n, d), -inf allowed.
        log_b: those of the bases.
        k: shape (n,); not above 0 counts as 0.
        share: in [0, 1], shape (n,).
        most_steps: of Newton's, for a row.
        record: for base, ratio and tilt of every row, shape (3, n, d); or (3, 1, d), if they
            are not wanted.
        log_x: for the results, shape (n, d).
        rows: for their numbers, of dtype `ROW`, shape (n,).
    """
    keeps_ends = not geometric or record.shape[1] == log_x.shape[0]
    for i in range(log_x.shape[0]):
        j = min(i, record.shape[1] - 1)
        base, ratio, tilt = record[0, j], record[1, j], record[2, j]
        solve_row(
            geometric, log_a[i], log_b[i], k[i], share[i], most_steps, keeps_ends,
            base, ratio, tilt, log_x[i], rows[i],
        )  # fmt: skip


# ----------------------------------------------------------------------------------- derivatives


@numeric
def seen(by_log_x: float, p: float, q: float, base_stays: bool) -> float:
    """A cotangent of log x, or 0 where x is impossible, as are a where log a = p, b where q."""
    return by_log_x if q > IMPOSSIBLE and (base_stays or p > IMPOSSIBLE) else 0.0


@summing
def linear_by_weight(by_log_x: Floats, log_b: Floats, ratio: Floats, row: Record) -> float:
    """What `by_log_x` says of a weight inside (0, 1): `d log x = (a - b)/x d alpha`."""
    weight, floor = row.weight, row.floor
    total = 0.0
    for i in range(ratio.size):
        _, q = cleaned(LOG_ZERO, log_b[i], floor)
        total += seen(by_log_x[i], q, q, True) * ratio[i] / (1.0 + weight * ratio[i])
    return total


@summing
def linear_by_a(
    by_kl: float,
    by_end: float,
    by_log_x: Floats,
    log_a: Floats,
    log_b: Floats,
    base: Floats,
    ratio: Floats,
    row: Record,
    by_log_a: Floats,
) -> None:
    """Fill `by_log_a`; the derivatives are those of `kl_paths.LinearPath`."""
    weight, floor, shift, end = row.weight, row.floor, row.shift, row.end
    base_stays = weight < 1.0
    total = 0.0
    for i in range(ratio.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        s, u = difference(p, q, shift), ratio[i]
        log_ratio, _ = log_ratio_and_h(weight * u if base_stays else 0.0)
        log_ratio += max(s - EXP_LIMIT, 0.0)
        part = weight * (1.0 + u) / (1.0 + weight * u) if base_stays else 1.0  # alpha a / x
        change = seen(by_log_x[i], p, q, base_stays) * part
        by_a = by_kl * weight * log_ratio + by_end * (s - end)
        change += product(base[i], 1.0 + u, by_a)
        by_log_a[i] = change
        total += change
    for i in range(ratio.size):
        by_log_a[i] -= base[i] * (1.0 + ratio[i]) * total


@summing
def linear_by_b(
    by_kl: float,
    by_end: float,
    by_log_x: Floats,
    log_a: Floats,
    log_b: Floats,
    base: Floats,
    ratio: Floats,
    row: Record,
    by_log_b: Floats,
) -> None:
    """Fill `by_log_b`, likewise."""
    weight, floor, shift = row.weight, row.floor, row.shift
    base_stays = weight < 1.0
    total = 0.0
    for i in range(ratio.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        u = ratio[i]
        log_ratio, _ = log_ratio_and_h(weight * u if base_stays else 0.0)
        log_ratio += max(difference(p, q, shift) - EXP_LIMIT, 0.0)
        part = (1.0 - weight) / (1.0 + weight * u) if base_stays else 0.0  # (1 - alpha) b / x
        change = seen(by_log_x[i], p, q, base_stays) * part
        change += base[i] * (by_kl * ((1.0 - weight) * log_ratio - weight * u) - by_end * u)
        by_log_b[i] = change
        total += change
    for i in range(ratio.size):
        by_log_b[i] -= base[i] * total


@numeric
def geometric_log_ratio(
    p: float, q: float, tilt: float, weight: float, shift: float, log_sum: float
) -> float:
    """L at a weight in [0, 1]."""
    inside = weight * tilt - log_sum if tilt > IMPOSSIBLE else LOG_ZERO
    inside = difference(p, q, shift) if weight == 1.0 else inside
    return 0.0 if weight == 0.0 else inside


@summing
def geometric_means(
    by_log_x: Floats, log_a: Floats, log_b: Floats, tilt: Floats, row: Record, x: Floats
) -> tuple[float, float]:
    """What `by_log_x` says of the weight, `d log x = (tilt - mean) d lambda`, and L's mean.

    Fills `x`.
    """
    weight, floor, shift = row.weight, row.floor, row.shift
    log_sum, log_mass_b = row.log_sum, row.log_mass_b
    first, mean, total, mean_log_ratio = 0.0, 0.0, 0.0, 0.0
    for i in range(tilt.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        log_ratio = geometric_log_ratio(p, q, tilt[i], weight, shift, log_sum)
        part = exponential(q - log_mass_b + log_ratio)
        t = tilt[i] if tilt[i] > IMPOSSIBLE else 0.0
        v = seen(by_log_x[i], p, q, weight == 0.0)
        x[i] = part
        first += v * t
        mean += part * t
        total += v
        mean_log_ratio += part * log_ratio
    return first - mean * total, mean_log_ratio


@summing
def geometric_by_a(
    by_kl: float,
    by_end: float,
    mean_log_ratio: float,
    by_log_x: Floats,
    log_a: Floats,
    log_b: Floats,
    base: Floats,
    ratio: Floats,
    tilt: Floats,
    x: Floats,
    row: Record,
    by_log_a: Floats,
) -> None:
    """Fill `by_log_a`; the derivatives are those of `kl_paths.GeometricPath`."""
    weight, floor, shift, log_sum, end = row.weight, row.floor, row.shift, row.log_sum, row.end
    total = 0.0
    for i in range(ratio.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        log_ratio = geometric_log_ratio(p, q, tilt[i], weight, shift, log_sum)
        change = weight * seen(by_log_x[i], p, q, weight == 0.0)
        change += by_kl * weight * x[i] * (log_ratio - mean_log_ratio)
        change += by_end * base[i] * (1.0 + ratio[i]) * (difference(p, q, shift) - end)
        by_log_a[i] = change
        total += change
    for i in range(ratio.size):
        by_log_a[i] -= x[i] * total


@summing
def geometric_by_b(
    by_kl: float,
    by_end: float,
    mean_log_ratio: float,
    by_log_x: Floats,
    log_a: Floats,
    log_b: Floats,
    base: Floats,
    ratio: Floats,
    tilt: Floats,
    x: Floats,
    row: Record,
    by_log_b: Floats,
) -> None:
    """Fill `by_log_b`, likewise."""
    weight, floor, shift, log_sum = row.weight, row.floor, row.shift, row.log_sum
    total = 0.0
    for i in range(ratio.size):
        p, q = cleaned(log_a[i], log_b[i], floor)
        log_ratio = geometric_log_ratio(p, q, tilt[i], weight, shift, log_sum)
        change = (1.0 - weight) * seen(by_log_x[i], p, q, weight == 0.0)
        change += by_kl * ((1.0 - weight) * x[i] * (log_ratio - mean_log_ratio) - x[i] + base[i])
        change -= by_end * base[i] * ratio[i]
        by_log_b[i] = change
        total += change
    for i in range(ratio.size):
        by_log_b[i] -= x[i] * total


@numeric
def pull_back_rows(
    geometric: bool,
    log_a: Floats,
    log_b: Floats,
    record: Floats,
    rows: NDArray[np.void],
    by: NDArray[np.void],
    by_log_x: Floats,
    by_log_a: Floats,
    by_log_b: Floats,
    by_k: Floats,
    by_share: Floats,
) -> None:
    """Derivatives of what `solve_rows` gave, times a cotangent, by what it was given.

    Args:
        geometric: as it was then, like the next four.
        log_a: the proposals.
        log_b: the bases.
        record: of every row.
        rows: their numbers.
        by: cotangents of weight, target and kl in these fields of `ROW`, shape (n,).
        by_log_x: that of log x, shape (n, d).
        by_log_a: for the results, shape (n, d); or (0, d), if they are not wanted.
        by_log_b: likewise.
        by_k: shape (n,).
        by_share: shape (n,).
    """
    x = np.empty(by_log_x.shape[1])
    for i in range(by_log_x.shape[0]):
        a, b, v, row = log_a[i], log_b[i], by_log_x[i], rows[i]
        base, ratio, tilt = record[0, i], record[1, i], record[2, i]
        mean_log_ratio, moved = 0.0, 0.0
        if geometric:
            moved, mean_log_ratio = geometric_means(v, a, b, tilt, row, x)
        elif 0.0 < row.weight < 1.0:
            moved = linear_by_weight(v, b, ratio, row)
        by_weight = by[i].weight + moved
        # The weight depends on the target less the KL at that weight, and on the share; the kl that
        # is returned is the target, where anything is spent.
        by_kl = -row.weight_by_target * by_weight
        by_target = by[i].target + row.spends * by[i].kl - by_kl
        by_end = row.target_by_end * by_target
        by_k[i] = row.target_by_k * by_target
        by_share[i] = row.target_by_share * by_target + row.weight_by_share * by_weight
        if by_log_a.shape[0] > 0:
            if geometric:
                geometric_by_a(
                    by_kl, by_end, mean_log_ratio, v, a, b, base, ratio, tilt, x, row, by_log_a[i]
                )
            else:
                linear_by_a(by_kl, by_end, v, a, b, base, ratio, row, by_log_a[i])
        if by_log_b.shape[0] > 0:
            if geometric:
                geometric_by_b(
                    by_kl, by_end, mean_log_ratio, v, a, b, base, ratio, tilt, x, row, by_log_b[i]
                )
            else:
                linear_by_b(by_kl, by_end, v, a, b, base, ratio, row, by_log_b[i])


# ------------------------------------------------------------------------------- for the caller


@dataclass(frozen=True, kw_only=True)
class SolvedRows:
    """What `solve` found, and what its derivatives need.

    Attributes:
        log_x: log-probabilities, shape (*rows, d), with -inf.
        rows: numbers of dtype `ROW`, shape (*rows).
        pull_back: from cotangents of log_x, weight, target and kl, and `wants` (which of the
            following are wanted), to those of log_a, log_b, k and share.
    """

    log_x: Floats
    rows: NDArray[np.void]
    pull_back: Callable[..., tuple[Floats | None, ...]]


def solve(
    log_a: Floats,
    log_b: Floats,
    k: Floats,
    share: Floats,
    *,
    geometric: bool,
    most_steps: int,
    keep: bool,
) -> SolvedRows:
    """`kl_paths.solve` for float64 arrays of shape (*rows, d) and (*rows).

    Args:
        log_a: log-probabilities of the proposals, shape (*rows, d), -inf allowed.
        log_b: those of the bases.
        k: shape (*rows); not above 0 counts as 0.
        share: in [0, 1], shape (*rows).
        geometric: which path.
        most_steps: of Newton's, for a row.
        keep: whether derivatives will be wanted; if not, `pull_back` must not be called.
    """
    shape, n, d = k.shape, k.size, log_a.shape[-1]
    a, b = (_flat(array, (n, d)) for array in (log_a, log_b))
    record, log_x = np.empty((3, n if keep else 1, d)), np.empty((n, d))
    rows = np.empty(n, dtype=ROW)
    solve_rows(geometric, a, b, _flat(k, (n,)), _flat(share, (n,)), most_steps, record, log_x, rows)

    def pull_back(
        by_log_x: Floats, by_weight: Floats, by_target: Floats, by_kl: Floats, *,
        wants: tuple[bool, ...],
    ) -> tuple[Floats | None, ...]:  # fmt: skip
        by = np.empty(n, dtype=ROW)
        for name, cotangent in (("weight", by_weight), ("target", by_target), ("kl", by_kl)):
            by[name] = cotangent.reshape(-1)
        v = _flat(by_log_x, (n, d))
        by_a, by_b = (np.empty((n if wanted else 0, d)) for wanted in wants[:2])
        by_k, by_share = np.empty(n), np.empty(n)
        pull_back_rows(geometric, a, b, record, rows, by, v, by_a, by_b, by_k, by_share)
        return (
            by_a.reshape(*shape, d) if wants[0] else None,
            by_b.reshape(*shape, d) if wants[1] else None,
            by_k.reshape(shape),
            by_share.reshape(shape),
        )

    return SolvedRows(log_x=log_x.reshape(*shape, d), rows=rows.reshape(shape), pull_back=pull_back)


def warm_up() -> None:
    """Compile all of this, or load what is kept, so that other processes need only load it."""
    row, one = np.log(np.array([[0.5, 0.5]])), np.ones(1)
    found = solve(row, row, one, one, geometric=False, most_steps=1, keep=True)
    found.pull_back(row, one, one, one, wants=(True, True, True, True))


def _flat(array: Floats, shape: tuple[int, ...]) -> Floats:
    """As one block of memory that may be written to, the form that the kernel is compiled for."""
    return np.require(array.reshape(shape), requirements=["C", "W"])
