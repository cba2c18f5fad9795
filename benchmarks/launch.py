"""What a call costs when there is next to nothing to compute: our kernels beside torch's own operations on the same small tensors.

``python -m benchmarks launch`` calls each many times on one thread, in turns, and prints the time of one call: with sizes that are known
and that change, numbers, arrays, memory for the results, under autograd with the backward and without it, recorded; beside torch, and what
torch.compile makes of the same. Also how fast a large result is written into memory kept from an earlier one, and into memory that was
given back.
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
from benchmarks.calls import Compiled, compiles
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
def mul(x: f32[M, N], y: f32[M, N]):
    """x * y."""
    return x * y


@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    """A linear layer."""
    return dlc.linear(x, w, b)


@dlc.kernel
def scale(x: f32[M], s: f32):
    """x times a number."""
    return x * s


class Product(torch.autograd.Function):
    """What following a call costs in torch itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The product."""
        ctx.save_for_backward(y)
        return x * y

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of the first."""
        return g * ctx.saved_tensors[0], None


def calls(compiled: bool = False) -> dict[str, Callable[[], Any]]:
    """What is called, by name: kernels of ours, each before its counterparts.

    Args:
        compiled: whether what torch.compile makes is called too; that is compiled first, for minutes.
    """
    found = {**_plain(), **_changing(), **_followed(), **_recorded()}
    return found if compiled else {name: call for name, call in found.items() if not name.startswith("torch.compile")}


def _plain() -> dict[str, Callable[[], Any]]:
    """Tensors of known sizes, numbers, arrays, memory for the results, views."""
    x, y, z, out = (torch.randn(16, 16) for _ in range(4))
    v, array, array_out, turned = torch.randn(256), x.numpy(), np.empty((16, 16), np.float32), torch.randn(16, 16).T
    pair = itertools.cycle((x, turned))
    by_compile, scaled, filled = Compiled(torch.add), Compiled(lambda a: a * 2.0), Compiled(torch.add).into()
    return {
        "dlc add, 2 inputs": lambda: add(x, y), "torch.add": lambda: torch.add(x, y), "torch.compile, add": lambda: by_compile(x, y),
        "dlc add, 3 inputs": lambda: add3(x, y, z), "x + y + z": lambda: x + y + z,
        "dlc add, 2 inputs, out=": lambda: add(x, y, out=out), "torch.add, out=": lambda: torch.add(x, y, out=out),
        "torch.compile, add into out": lambda: filled(out, x, y),
        "dlc scale by a number": lambda: scale(v, 2.0), "torch.mul by a number": lambda: torch.mul(v, 2.0),
        "torch.compile, scale": lambda: scaled(v),
        "dlc add, numpy arrays": lambda: add(array, array), "numpy +": lambda: array + array,
        "dlc add, numpy arrays, out=": lambda: add(array, array, out=array_out), "numpy +, out=": lambda: np.add(array, array, array_out),
        "dlc add, a transposed view": lambda: add(turned, y), "dlc add, strides in turns": lambda: add(next(pair), y),
    }


def _changing() -> dict[str, Callable[[], Any]]:
    """Sizes that are arguments of the kernel, another one in each call."""
    w, b = torch.randn(16, 16), torch.randn(16)
    x, many = torch.randn(16, 16), dlc.kernel(linear.fn)
    batches = [torch.randn(m, 16) for m in range(2, 24)]
    for batch in batches:  # by now M is an argument of the kernel
        many(batch, w, b)
    bound = linear.bind(w=w, b=b)
    ours, torchs, compiled = itertools.cycle(batches), itertools.cycle(batches), itertools.cycle(batches)
    functional = torch.nn.functional.linear
    varied, fixed = Compiled(functional, dynamic=True), Compiled(functional)
    return {
        "dlc linear, 3 inputs": lambda: linear(x, w, b), "dlc linear, weights bound": lambda: bound(x),
        "F.linear": lambda: functional(x, w, b), "torch.compile, linear": lambda: fixed(x, w, b),
        "dlc linear, M changing": lambda: many(next(ours), w, b), "F.linear, M changing": lambda: functional(next(torchs), w, b),
        "torch.compile, linear, M changing": lambda: varied(next(compiled), w, b),
    }


def _followed() -> dict[str, Callable[[], Any]]:
    """Calls that autograd follows, alone and with their backward."""
    x, y, g = torch.randn(16, 16, requires_grad=True), torch.randn(16, 16), torch.ones(16, 16)
    by_compile = Compiled(torch.mul)

    def both(call: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(call(x, y), x, g)

    return {
        "dlc mul, autograd": lambda: mul(x, y), "torch.mul, autograd": lambda: torch.mul(x, y),
        "torch.autograd.Function": lambda: Product.apply(x, y), "torch.compile, mul, autograd": lambda: by_compile(x, y),
        "dlc mul, with backward": both(mul), "torch.mul, with backward": both(torch.mul),
        "torch.autograd.Function, with backward": both(Product.apply), "torch.compile, mul, with backward": both(by_compile),
    }


def _recorded() -> dict[str, Callable[[], Any]]:
    """Functions of dlc's tensors: recorded, and run as they are."""
    x, w = torch.randn(16, 16), torch.randn(16, 16)
    a, c = dlc.tensor(x), dlc.tensor(w)

    def layers(a: Any, c: Any) -> Any:
        return ((a @ c).relu() @ c).relu() @ c

    one, three, by_compile = dlc.jit(lambda a, c: a + c), dlc.jit(layers), Compiled(layers)
    return {
        "dlc.jit, one kernel": lambda: one(a, c), "dlc.jit, three products": lambda: three(a, c),
        "torch, three products": lambda: layers(x, w), "torch.compile, three products": lambda: by_compile(x, w),
        "dlc tensors, one kernel": lambda: (a + c).realize(),
    }


def measure(named: Mapping[str, Callable[[], Any]], inner: int = 2000) -> list[Cost]:
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
    """Everything, as plain data; times in seconds. What torch.compile makes is called where there is a compiler, and time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measure(calls(compiles() and not quick), 200 if quick else 2000)
    finally:
        torch.set_num_threads(before)
    return {"calls": [asdict(c) for c in found], "results": [asdict(c) for c in results(8 if quick else 64)]}


def cost(name: str, samples: list[float]) -> Cost:
    """The cost that some samples show."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return Cost(name, middle, low, high, min(samples))
