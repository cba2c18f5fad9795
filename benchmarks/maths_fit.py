"""Fit the polynomials of codegen/micro/maths/tables.py and print the table.

Every entry is a weighted minimax fit, P(z) ~ g(z) on [low, high], found by the Remez exchange in 60-digit
arithmetic.  The weight turns the error of P into the relative error of the function it serves.  The first
coefficients, where rounding hurts most, are rounded one by one and the rest is fitted again around them.

    python benchmarks/maths_fit.py > codegen/micro/maths/tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf

mp.dps = 90
GRID = 1200
Function = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Fit:
    """One wanted polynomial: its meaning, its interval and its degree in each precision."""

    name: str
    meaning: str
    target: Function
    weight: Function
    interval: tuple[mpf, mpf] | dict[str, tuple[mpf, mpf]]
    degree: dict[str, int]

    def range_of(self, dtype: str) -> tuple[mpf, mpf]:
        """The interval for one precision."""
        return self.interval[dtype] if isinstance(self.interval, dict) else self.interval


def round_to(value: mpf, dtype: str) -> mpf:
    """The nearest f32 or f64 to value (f32 through f64: double rounding does not matter here)."""
    return mpf(float(np.float32(float(value)))) if dtype == "f32" else mpf(float(value))


def chebyshev_grid(low: mpf, high: mpf, count: int) -> list[mpf]:
    """Points clustered at both ends, where minimax errors peak; the ends themselves are left out."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]


def remez(points: list[mpf], values: list[mpf], weights: list[mpf], powers: range) -> list[mpf]:
    """Coefficients of z**p, p in powers, that minimise max |weight * (value - P)| over the points."""
    size = len(powers) + 1
    chosen = [round(i * (len(points) - 1) / (size - 1)) for i in range(size)]
    solution: list[mpf] = []
    for _ in range(30):
        matrix = mp.matrix(size, size)
        right = mp.matrix(size, 1)
        for row, index in enumerate(chosen):
            for column, power in enumerate(powers):
                matrix[row, column] = points[index] ** power
            matrix[row, size - 1] = (-1) ** row / weights[index]
            right[row] = values[index]
        solved = mp.lu_solve(matrix, right)
        solution, level = list(solved)[:-1], abs(solved[size - 1])
        errors = [w * (v - _horner(solution, powers, z)) for z, v, w in zip(points, values, weights)]
        chosen = _alternating_peaks(errors, size)
        if max(abs(e) for e in errors) < level * mpf("1.001"):
            break
    return solution


def _horner(coefficients: list[mpf], powers: range, z: mpf) -> mpf:
    return mp.polyval(coefficients[::-1], z) * z ** powers[0]


def _alternating_peaks(errors: list[mpf], size: int) -> list[int]:
    """The largest error of each run of one sign; short of runs, the ends of the widest gaps are added."""
    peaks: list[int] = []
    for index, error in enumerate(errors):
        if peaks and (errors[peaks[-1]] < 0) == (error < 0):
            peaks[-1] = index if abs(error) > abs(errors[peaks[-1]]) else peaks[-1]
        else:
            peaks.append(index)
    while len(peaks) > size:
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    while len(peaks) < size:
        ends = [-1, *peaks, len(errors)]
        gap = max(range(len(ends) - 1), key=lambda k: ends[k + 1] - ends[k])
        peaks.insert(gap, (ends[gap] + ends[gap + 1]) // 2)
    return peaks


def fit(wanted: Fit, dtype: str) -> tuple[list[mpf], mpf]:
    """The rounded coefficients, lowest power first, and the largest weighted error they leave.

    Refitting after a rounding usually helps, but not where the interval straddles zero (z, z^2, ... is no
    Chebyshev system there), so every number of refits up to three is tried and the best kept.
    """
    points = chebyshev_grid(*wanted.range_of(dtype), GRID)
    values, weights = [wanted.target(z) for z in points], [abs(wanted.weight(z)) for z in points]
    tried = [_round_and_refit(points, values, weights, wanted.degree[dtype], dtype, refits) for refits in (1, 2, 3)]
    return min(tried, key=lambda pair: pair[1])


def _round_and_refit(points: list[mpf], values: list[mpf], weights: list[mpf], degree: int, dtype: str,
                     refits: int) -> tuple[list[mpf], mpf]:
    rounded: list[mpf] = []
    rest = list(values)
    for power in range(degree + 1):
        if power < refits:
            solution = remez(points, rest, weights, range(power, degree + 1))
        rounded.append(round_to(solution[0], dtype))
        solution = solution[1:]
        rest = [v - rounded[-1] * z**power for v, z in zip(rest, points)]
    return rounded, max(abs(w * v) for w, v in zip(weights, rest))


def _by_root(function: Function) -> Function:
    """function(sqrt z)."""
    return lambda z: function(mp.sqrt(z))


def _erfcx(t: mpf) -> mpf:
    return mp.exp(t * t) * mp.erfc(t)


HALF_LN2 = mp.log(2) / 2 * mpf("1.0001")
QUARTER_TURN = (mp.pi / 4 * mpf("1.0001")) ** 2
ROOT = mp.sqrt(2)
ERFCX_CENTRE = 4
CHUNK_SCALE = 500


def _erfcx_t(q: mpf) -> mpf:
    return ERFCX_CENTRE * (1 + q) / (1 - q)


FITS = [
    Fit("expm1", "(e^r - 1 - r) / r^2", lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 / mp.expm1(r), (-HALF_LN2, HALF_LN2), {"f32": 5, "f64": 10}),
    Fit("exp", "(e^r - 1 - r) / r^2", lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 * mp.exp(-r), (-HALF_LN2, HALF_LN2), {"f32": 4, "f64": 9}),
    Fit("exp2", "(2^r - 1) / r", lambda r: mp.expm1(r * mp.log(2)) / r,
        lambda r: r / 2**r, (mpf("-0.5"), mpf("0.5")), {"f32": 5, "f64": 11}),
    Fit("log_f", "(log(1 + f) - f + f^2/2) / f^3", lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
        lambda f: f**3 / mp.log1p(f), (1 / ROOT - 1, ROOT - 1), {"f32": 8}),
    Fit("log_s", "(2 atanh(s) / s - 2) / s^2, in s^2", _by_root(lambda s: (2 * mp.atanh(s) / s - 2) / s**2),
        _by_root(lambda s: s**3 / (2 * mp.atanh(s))), (mpf(0), ((ROOT - 1) / (ROOT + 1)) ** 2), {"f64": 6}),
    Fit("log_tail", "(2 atanh(s)/s - 2 - 2/3 s^2) / s^4, in s^2",
        _by_root(lambda s: (2 * mp.atanh(s) / s - 2 - 2 * s**2 / 3) / s**4),
        _by_root(lambda s: s**5 / (2 * mp.atanh(s))), (mpf(0), ((ROOT - 1) / (ROOT + 1)) ** 2), {"f32": 2, "f64": 6}),
    Fit("sin_half", "(sin(r) - r) / r^3, in r^2", _by_root(lambda r: (mp.sin(r) - r) / r**3),
        _by_root(lambda r: r**3 / mp.sin(r)), (mpf(0), 4 * QUARTER_TURN), {"f32": 3}),
    Fit("sin", "(sin(r) - r) / r^3, in r^2", _by_root(lambda r: (mp.sin(r) - r) / r**3),
        _by_root(lambda r: r**3 / mp.sin(r)), (mpf(0), QUARTER_TURN), {"f32": 2, "f64": 5}),
    Fit("cos", "(cos(r) - 1 + r^2/2) / r^4, in r^2", _by_root(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4),
        _by_root(lambda r: r**4 / mp.cos(r)), (mpf(0), QUARTER_TURN), {"f32": 2, "f64": 5}),
    Fit("asin", "(asin(x)/x - 1) / x^2, in x^2", _by_root(lambda x: (mp.asin(x) / x - 1) / x**2),
        _by_root(lambda x: x**3 / mp.asin(x)), (mpf(0), mpf("0.25")), {"f32": 4, "f64": 12}),
    Fit("atan", "(atan(x)/x - 1) / x^2, in x^2", _by_root(lambda x: (mp.atan(x) / x - 1) / x**2),
        _by_root(lambda x: x**3 / mp.atan(x)), (mpf(0), mpf(1)), {"f32": 8, "f64": 20}),
    Fit("sinh", "(sinh(x)/x - 1) / x^2, in x^2", _by_root(lambda x: (mp.sinh(x) / x - 1) / x**2),
        _by_root(lambda x: x**3 / mp.sinh(x)), (mpf(0), mpf(1)), {"f32": 3, "f64": 6}),
    Fit("erf_near", "erf(x)/x - 1, in x^2", _by_root(lambda x: mp.erf(x) / x - 1),
        _by_root(lambda x: x / mp.erf(x)), (mpf(0), mpf(1)), {"f64": 12}),
    Fit("erf", "-log(erfc(t)) / t - 1", lambda t: -mp.log(mp.erfc(t)) / t - 1, lambda t: t * mp.erfc(t) / mp.erf(t),
        {"f32": (mpf("1e-6"), mpf(4)), "f64": (mpf("0.999"), mpf(6))}, {"f32": 8, "f64": 17}),
    Fit("erfcx", "(1 + 2t) e^(t^2) erfc(t), in q = (t - 4)/(t + 4)",
        lambda q: (1 + 2 * _erfcx_t(q)) * _erfcx(_erfcx_t(q)), lambda q: 1 / ((1 + 2 * _erfcx_t(q)) * _erfcx(_erfcx_t(q))),
        {"f32": (mpf(-1), mpf("6.2") / mpf("14.2")), "f64": (mpf(-1), mpf("23.3") / mpf("31.3"))}, {"f32": 11, "f64": 23}),
]

HEADER = '''"""Polynomial coefficients, lowest power first, keyed by (name, dtype).

Written by benchmarks/maths_fit.py; the comment beside each gives what it approximates, where, and the
error it leaves as a share of the function it serves (2^-24 is half a unit in the last place of an f32).
"""

POLYNOMIALS: dict[tuple[str, str], tuple[float, ...]] = {'''


def turn_chunks(top: int) -> tuple[float, float, float]:
    """The bits of 1 / (2 pi) from the weight 2^top down: 29, 29 and 53 of them."""
    rest = mp.frac(mpf(2) ** (-1 - top) / (2 * mp.pi))
    chunks, end = [], top + 1
    for width in (29, 29, 53):
        rest, end = rest * mpf(2) ** width, end - width
        chunks.append(float(mp.floor(rest) * mpf(2) ** end))
        rest -= mp.floor(rest)
    return chunks[0], chunks[1], chunks[2]


def print_turn_chunks() -> None:
    """The table that the reduction of large angles selects from."""
    print("# For angles from this power of two on (the first: for all below the second); see angles.py.")
    print("TURN_CHUNKS: tuple[tuple[int, tuple[float, float, float]], ...] = (")
    for first in (25, 60, 94):
        print(f"    ({first}, {turn_chunks(22 - first)!r}),")
    print(")")


def quarter_chunks(top: int) -> tuple[float, ...]:
    """The bits of 2 / pi from the weight 2^top down, times 2^CHUNK_SCALE, as a sum of six f64."""
    with mp.workprec(1600):
        unit = mpf(2) ** (top + 1)
        rest = 2 / mp.pi / unit
        rest = (rest - mp.floor(rest)) * unit * mpf(2) ** CHUNK_SCALE
        chunks = []
        for _ in range(6):
            chunks.append(float(rest))
            rest -= chunks[-1]
    return tuple(chunks)


def print_quarter_chunks() -> None:
    """The table that the reduction of large f64 angles selects from."""
    print("\n# For f64 angles from this power of two on, times 2^CHUNK_SCALE; see angles.py.")
    print(f"CHUNK_SCALE = {CHUNK_SCALE}")
    print("QUARTER_CHUNKS: tuple[tuple[int, tuple[float, ...]], ...] = (")
    for first in range(50, 1024, 122):
        values = [repr(v) for v in quarter_chunks(53 - first)]
        print(f"    ({first}, ({', '.join(values[:3])},\n        {', '.join(values[3:])})),")
    print(")")


def main() -> None:
    """Print the whole table as Python source; errors also go to stderr, to choose degrees by."""
    only = set(sys.argv[1:])
    print(HEADER)
    for wanted in FITS:
        if only and wanted.name not in only:
            continue
        for dtype in wanted.degree:
            coefficients, error = fit(wanted, dtype)
            bits = float(mp.log(error, 2)) if error else -999.0
            low, high = (float(v) for v in wanted.range_of(dtype))
            print(f"    # {wanted.meaning} on [{low:.4g}, {high:.4g}]: 2^{bits:.1f}")
            print(f'    ("{wanted.name}", "{dtype}"): (')
            for value in coefficients:
                print(f"        {float(value)!r},")
            print("    ),")
            print(f"{wanted.name} {dtype} degree {wanted.degree[dtype]}: 2^{bits:.2f}", file=sys.stderr)
    print("}\n")
    print_turn_chunks()
    print_quarter_chunks()


if __name__ == "__main__":
    main()
