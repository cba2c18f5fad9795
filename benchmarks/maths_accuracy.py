"""Measure the functions of codegen.micro.maths: their largest error, and their speed beside torch's.

    python -m benchmarks.maths_accuracy                      every 257th f32, all functions
    python -m benchmarks.maths_accuracy --stride 1 --functions exp tanh      every f32
    python -m benchmarks.maths_accuracy --dtype f64          random doubles, against mpmath

f32 errors are against numpy's and scipy's float64 functions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.maths_jit import Loop, aligned, compile_loop
from codegen.micro.maths import FUNCTIONS, arity

CHUNK = 1 << 20
Array = Any


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _from_torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Array], Array]:
    return lambda x: function(torch.from_numpy(x)).numpy()


REFERENCES: dict[str, Callable[..., Array]] = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2, "pow": np.power,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "softplus": _softplus,
    "sigmoid": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1.0 + np.exp(-np.abs(x))),
    "rsqrt": lambda x: 1.0 / np.sqrt(x), "erf": _from_torch(torch.erf), "erfc": _from_torch(torch.erfc),
    "lgamma": _from_torch(torch.lgamma),
}  # fmt: skip

EXACT: dict[str, Callable[..., Any]] = {
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)), "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "lgamma": mpmath.loggamma, "rsqrt": lambda x: 1 / mpmath.sqrt(x), "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2), "pow": lambda x, y: mpmath.mpf(1) if x == 1 else mpmath.power(x, y),
}  # fmt: skip

INTERVALS: dict[str, tuple[float, float]] = {
    "exp": (-745, 709.7), "exp2": (-1074, 1023.9), "expm1": (-40, 709.7), "sinh": (-710, 710), "cosh": (-710, 710),
    "tanh": (-22, 22), "sigmoid": (-745, 40), "softplus": (-745, 745), "erf": (-6.2, 6.2), "erfc": (-7, 27.2),
    "asin": (-1, 1), "acos": (-1, 1), "atanh": (-1, 1), "acosh": (1, 1e300), "asinh": (-1e300, 1e300), "log1p": (-1, 4), "log": (0, 4),
    "log2": (0, 4), "log10": (0, 4), "rsqrt": (0, 4), "lgamma": (0, 12),
}  # fmt: skip


def reference(name: str, *inputs: Array) -> Array:
    """The named function in float64."""
    with np.errstate(all="ignore"):
        function = REFERENCES[name] if name in REFERENCES else getattr(np, name)
        return function(*(x.astype(np.float64) for x in inputs))


def ulp_errors(got: Array, wanted: Array) -> Array:
    """|got - wanted| in units of the last place of float32 at wanted; inf where one is NaN or infinite and not both."""
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(wanted)
        unit = np.ldexp(1.0, np.maximum(exponent - 1, -126) - 23)
        errors = np.abs(got.astype(np.float64) - wanted) / unit
        same = (got == wanted.astype(np.float32)) | (np.isnan(got) & np.isnan(wanted))
    return np.where(same & ~np.isfinite(errors), 0.0, np.where(np.isnan(errors), np.inf, errors))


def bit_patterns(stride: int) -> Iterator[Array]:
    """Every stride-th float32, in chunks."""
    for start in range(0, 1 << 32, CHUNK * stride):
        yield np.arange(start, min(start + CHUNK * stride, 1 << 32), stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def paired_samples(name: str, chunks: int) -> Iterator[tuple[Array, Array]]:
    """Random arguments of the two-argument functions: half any bits, half such that a power is moderate."""
    random = np.random.default_rng(0)
    for _ in range(chunks):
        x, y = (random.integers(0, 1 << 32, CHUNK, dtype=np.uint32).view(np.float32) for _ in range(2))
        if name == "pow":
            half = CHUNK // 2
            x[:half] = np.abs(x[:half])
            with np.errstate(all="ignore"):
                y[:half] = random.uniform(-104, 89, half) / np.log(x[:half].astype(np.float64))
        yield x, y


def measure_f32(name: str, stride: int, progress: Progress) -> dict[str, Any]:
    """The largest error over the float32 patterns, and where it is."""
    loop = compile_loop(name, "f32")
    count = -(-(1 << 32) // (CHUNK * stride))
    chunks: Iterator[Any] = ((x,) for x in bit_patterns(stride)) if arity(name) == 1 else paired_samples(name, count)
    worst: float = -1.0
    where: tuple[float, ...] = (math.nan,)
    for inputs in progress.track(chunks, total=count, description=name):
        errors = ulp_errors(loop(*inputs), reference(name, *inputs))
        index = int(np.argmax(errors))
        if errors[index] > worst:
            worst, where = float(errors[index]), tuple(float(x[index]) for x in inputs)
    return {"function": name, "dtype": "f32", "max_ulp": worst, "at": where, "stride": stride}


def double_samples(name: str, count: int) -> tuple[Array, ...]:
    """Doubles over the interesting interval, over all magnitudes within it, and close to zero and one."""
    random = np.random.default_rng(1)
    low, high = INTERVALS.get(name, (-1e5, 1e5))
    flat = random.uniform(low, high, count // 2)
    spread = random.choice([-1.0, 1.0], count // 2) * 10 ** random.uniform(-18, math.log10(high), count // 2)
    x = np.concatenate([flat, spread, 1 + spread[: count // 8] * 1e-3])
    x = x[(x >= low) & (x <= high)]
    if arity(name) == 1:
        return (x,)
    if name == "atan2":
        return x, random.permutation(x)
    x = np.abs(x) + 1e-300
    with np.errstate(divide="ignore"):
        return x, random.uniform(-745, 709, x.size) / np.log(x)


def measure_f64(name: str, count: int, progress: Progress) -> dict[str, Any]:
    """The largest error over random doubles, against 40 digits."""
    inputs = double_samples(name, count)
    got = compile_loop(name, "f64", 8)(*inputs)
    exact = exact_function(name)
    worst: float = -1.0
    where: tuple[float, ...] = (math.nan,)
    with mpmath.workdps(40):
        for index in progress.track(range(got.size), description=name):
            values = [mpmath.mpf(float(x[index])) for x in inputs]
            error = double_ulp_error(float(got[index]), exact(*values))
            if not error <= worst:
                worst, where = error, tuple(float(x[index]) for x in inputs)
    return {"function": name, "dtype": "f64", "max_ulp": worst, "at": where, "samples": got.size}


def exact_function(name: str) -> Callable[..., Any]:
    """The named function of mpmath's numbers."""
    return EXACT[name] if name in EXACT else getattr(mpmath, name)


def double_ulp_error(got: float, wanted: Any) -> float:
    """|got - wanted| in units of the last place of float64 at wanted."""
    if not math.isfinite(got) or not mpmath.isfinite(wanted):
        return 0.0 if got == float(wanted) or (math.isnan(got) and mpmath.isnan(wanted)) else math.inf
    if wanted == 0:
        return 0.0 if got == 0 else math.inf
    exponent = max(int(mpmath.floor(mpmath.log(abs(wanted), 2))), -1022)
    return float(abs(got - wanted) / mpmath.mpf(2) ** (exponent - 52))


def best_seconds(call: Callable[[], None], repeats: int = 50) -> float:
    """The fastest of several runs of twenty calls, per call."""
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(20):
            call()
        best = min(best, (time.perf_counter() - start) / 20)
    return best


def throughput(name: str, dtype: str, unroll: int) -> dict[str, float | None]:
    """Nanoseconds per element on arrays that stay in L2, ours and torch's, with one thread."""
    torch.set_num_threads(1)
    lanes = 16 if dtype == "f32" else 8
    loop: Loop = compile_loop(name, dtype, lanes, unroll)
    low, high = {"acosh": (1.1, 4.0)}.get(name, (0.05, 0.95))
    if name not in ("log", "log2", "log10", "rsqrt", "acosh", "pow"):
        low = -high
    if name in ("exp", "tanh", "erf", "erfc", "sin", "cos", "tan", "sigmoid", "log", "log2", "log10"):
        low, high = 4 * low, 4 * high
    inputs = [aligned(8192, dtype) for _ in range(arity(name))]
    for seed, values in enumerate(inputs):
        values[:] = np.random.default_rng(seed).uniform(low, high, values.size)
    out = aligned(8192, dtype)
    ours = best_seconds(loop.bind(out, *inputs)) / out.size * 1e9
    function = torch.nn.functional.softplus if name == "softplus" else getattr(torch, name)
    tensors, result = [torch.from_numpy(x) for x in inputs], torch.from_numpy(out)
    if name == "softplus":
        theirs = best_seconds(lambda: function(tensors[0])) / out.size * 1e9
    else:
        theirs = best_seconds(lambda: function(*tensors, out=result)) / out.size * 1e9
    return {"ns": ours, "torch_ns": theirs, "times_faster": theirs / ours}


def main() -> None:
    """Measure what was asked for and print a table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="*", default=sorted(FUNCTIONS), choices=sorted(FUNCTIONS))
    parser.add_argument("--dtype", default="f32", choices=("f32", "f64"))
    parser.add_argument("--stride", type=int, default=257, help="take every n-th float32")
    parser.add_argument("--samples", type=int, default=20000, help="random doubles per function")
    parser.add_argument("--unroll", type=int, default=2, help="vectors per iteration when timing")
    parser.add_argument("--no-accuracy", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        for name in options.functions:
            row: dict[str, Any] = {"function": name, "dtype": options.dtype}
            if not options.no_accuracy:
                f32 = options.dtype == "f32"
                row |= measure_f32(name, options.stride, progress) if f32 else measure_f64(name, options.samples, progress)
            row |= throughput(name, options.dtype, options.unroll)
            rows.append(row)
            if options.json:
                print(json.dumps(row), flush=True)
    if not options.json:
        print_table(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """The figures, one function a line."""
    table = Table("function", "max ulp", "at", "ns", "torch ns", "times faster")
    for row in rows:
        where = ", ".join(f"{value:.9g}" for value in row.get("at", ()))
        figures = [f"{row[key]:.3f}" for key in ("ns", "torch_ns")]
        table.add_row(row["function"], f"{row.get('max_ulp', math.nan):.3f}", where, *figures, f"{row['times_faster']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
