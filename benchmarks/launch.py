"""What a call costs when there is next to nothing to compute: our kernels beside torch's own operations on the same small tensors.

``python -m benchmarks launch`` calls each many times on one thread, in turns, and prints the time of one call; also how fast a large
result is written into memory kept from an earlier one, and into memory that was given back.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import dlc
from dlc import f32, memory

M, N, K = dlc.dims("M N K")
_ROUNDS = 9


@dataclass(frozen=True)
class Cost:
    """Seconds of one call: median, quartiles and least of the rounds."""

    name: str
    median: float
    p25: float
    p75: float
    least: float


@dlc.kernel
def add(x: f32[M, N], y: f32[M, N]):
    """x + y."""
    return x + y


@dlc.kernel
def add3(x: f32[M, N], y: f32[M, N], z: f32[M, N]):
    """x + y + z."""
    return x + y + z


@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    """A linear layer."""
    return dlc.linear(x, w, b)


@dlc.kernel
def scale(x: f32[M], s: f32):
    """x times a number."""
    return x * s


class Sum(torch.autograd.Function):
    """What following a call costs in torch itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The sum."""
        ctx.save_for_backward(x, y)
        return x + y

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient, twice."""
        return g, g


def calls() -> dict[str, Callable[[], Any]]:
    """What is called, by name; a kernel of ours before its counterpart in torch."""
    x, y, z = (torch.randn(16, 16) for _ in range(3))
    w, b, v = torch.randn(16, 16), torch.randn(16), torch.randn(256)
    many = dlc.kernel(linear.fn)
    for m in range(2, 8):  # by now M is an argument of the kernel
        many(torch.randn(m, 16), w, b)
    out, array_out = torch.empty(16, 16), np.empty((16, 16), np.float32)
    array, turned, followed = x.numpy(), torch.randn(16, 16).T, torch.randn(16, 16, requires_grad=True)
    pair = itertools.cycle((x, turned))
    return {
        "dlc add, 2 inputs": lambda: add(x, y), "torch.add": lambda: torch.add(x, y),
        "dlc add, 3 inputs": lambda: add3(x, y, z), "x + y + z": lambda: x + y + z,
        "dlc add, 2 inputs, out=": lambda: add(x, y, out=out), "torch.add, out=": lambda: torch.add(x, y, out=out),
        "dlc add, numpy arrays": lambda: add(array, array), "numpy +": lambda: array + array,
        "dlc add, numpy arrays, out=": lambda: add(array, array, out=array_out), "numpy +, out=": lambda: np.add(array, array, array_out),
        "dlc add, a transposed view": lambda: add(turned, y), "dlc add, strides in turns": lambda: add(next(pair), y),
        "dlc add, autograd": lambda: add(followed, y), "torch.autograd.Function": lambda: Sum.apply(followed, y),
        "dlc scale by a number": lambda: scale(v, 2.0), "torch.mul": lambda: torch.mul(v, 2.0),
        "dlc linear, 3 inputs": lambda: linear(x, w, b), "dlc linear, any M": lambda: many(x, w, b),
        "F.linear": lambda: torch.nn.functional.linear(x, w, b),
    }


def measure(named: Mapping[str, Callable[[], Any]], inner: int = 5000) -> list[Cost]:
    """The cost of each, called ``inner`` times a round, in turns."""
    samples: dict[str, list[float]] = {name: [] for name in named}
    for call in named.values():
        call()
    for _ in range(_ROUNDS):
        for name, call in named.items():
            started = time.perf_counter()
            for _ in range(inner):
                call()
            samples[name].append((time.perf_counter() - started) / inner)
    return [cost(name, s) for name, s in samples.items()]


def results(megabytes: int = 64) -> list[Cost]:
    """Writing a result of so many megabytes: into memory kept from the call before, into memory given back, by torch."""
    x = torch.randn(megabytes << 18)

    def given_back() -> None:
        memory.trim()
        double(x, x)

    double = dlc.kernel(add.fn)
    x = x.view(-1, 1024)
    return measure({f"{megabytes} MB, kept memory": lambda: double(x, x), f"{megabytes} MB, memory given back": given_back,
                    f"{megabytes} MB, torch.add": lambda: torch.add(x, x)}, 3)


def run(quick: bool = False) -> dict[str, Any]:
    """Everything, as plain data; times in seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measure(calls(), 500 if quick else 5000)
    finally:
        torch.set_num_threads(before)
    return {"calls": [asdict(c) for c in found], "results": [asdict(c) for c in results(8 if quick else 64)]}


def cost(name: str, samples: list[float]) -> Cost:
    """The cost that some samples show."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return Cost(name, middle, low, high, min(samples))
