"""One case, its peers, and everything measured about them: times in turn, first calls, errors against float64, shares of the limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from dlc.tune.limits import Limits
from dlc.tune.measure import Call, Measurement, Ratio, describe, measure, ratio

OURS, REFERENCE = "dlc", "float64"


@dataclass(frozen=True)
class Case:
    """One operator at one size.

    ``setup()`` makes the operands and returns a call for each library: "dlc" is ours, every other name is a peer. A call
    returns its result (tensors, arrays, or a tuple of them). It may also return the reference, named "float64".

    Args:
        name: operator and size, as "matmul 512x512x512".
        setup: makes the calls; nothing is timed in it.
        flops: operations of one call, a multiply-add counted as two.
        bytes: the least memory traffic of one call: every operand read once, every result written once.
        reference: the same result in float64, when ``setup`` does not return it.
        dtype: the dtype that the arithmetic peak is taken of.
    """

    name: str
    setup: Callable[[], Mapping[str, Call]]
    flops: float = 0.0
    bytes: float = 0.0
    reference: Call | None = None
    dtype: str = "f32"


def case(
    name: str,
    inputs: Callable[[], Sequence[torch.Tensor]],
    calls: Mapping[str, Callable[..., object]],
    *,
    flops: float = 0.0,
    bytes: float = 0.0,  # noqa: A002 (the word of the trade)
    reference: Callable[..., object] | None = None,
    dtype: str = "f32",
) -> Case:
    """A case whose libraries are functions of the same operands.

    Args:
        name: operator and size.
        inputs: makes the operands, on the device and in the dtype to be measured.
        calls: library -> function of the operands. Wrap a function with :func:`compiled` for torch.compile.
        flops: operations of one call.
        bytes: least memory traffic of one call.
        reference: function of the operands in float64; integers and booleans are passed as they are. The torch peer when None.
        dtype: as in :class:`Case`.
    """

    def setup() -> dict[str, Call]:
        operands = tuple(inputs())
        exact = reference or calls.get("torch")
        bound: dict[str, Call] = {library: partial(function, *operands) for library, function in calls.items()}
        if exact is not None:
            bound[REFERENCE] = lambda: exact(*(_doubled(x) for x in operands))
        return bound

    return Case(name, setup, flops, bytes, None, dtype)


def compiled(function: Callable[..., object], **options: Any) -> Callable[..., object]:
    """``torch.compile(function)``, made when it is first called: it costs seconds and wants a C++ compiler."""

    @cache
    def made() -> Callable[..., object]:
        return torch.compile(function, **options)

    return lambda *operands: made()(*operands)


@dataclass(frozen=True)
class Error:
    """How far a result is from float64: the largest error over the largest result, and root mean square over the same."""

    largest: float
    rms: float


@dataclass
class Result:
    """All that was found out about one case at one thread count. Times in seconds."""

    family: str
    case: str
    threads: int
    dtype: str
    flops: float
    bytes: float
    cold: bool
    times: dict[str, Measurement] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    errors: dict[str, Error] = field(default_factory=dict)
    limit: float = float("nan")

    @property
    def key(self) -> tuple[str, str, int]:
        """What the result is of."""
        return self.family, self.case, self.threads

    @property
    def peers(self) -> list[str]:
        """The other libraries, those that failed among them."""
        return [name for name in self.times if name != OURS]

    @property
    def best_peer(self) -> str | None:
        """The fastest of the peers that ran."""
        ran = [name for name in self.peers if self.times[name].ok]
        return min(ran, key=lambda name: self.times[name].median, default=None)

    def ratio(self, peer: str | None = None) -> Ratio | None:
        """Time of a peer (the best when None) over ours; None when either did not run."""
        peer = peer or self.best_peer
        ours = self.times.get(OURS)
        if peer is None or ours is None or not (ours.ok and self.times[peer].ok):
            return None
        return ratio(self.times[peer], ours)

    def gflops(self, name: str = OURS) -> float:
        """10^9 operations a second."""
        return self.flops / self._median(name) / 1e9

    def gbs(self, name: str = OURS) -> float:
        """10^9 bytes a second of the least traffic."""
        return self.bytes / self._median(name) / 1e9

    def share(self, name: str = OURS) -> float:
        """The shortest possible time over the time taken; 1 is the machine's limit."""
        return self.limit / self._median(name)

    def _median(self, name: str) -> float:
        return self.times[name].median if name in self.times else float("nan")


@dataclass(frozen=True)
class Protocol:
    """How to measure: which peers, on how many threads, for how long, with warm or cold operands."""

    peers: tuple[str, ...] = ("torch",)
    threads: tuple[int, ...] = (1,)
    budget: float = 1.0
    cold: bool = True


def run_case(family: str, what: Case, protocol: Protocol, limits: Callable[[int], Limits]) -> Iterable[Result]:
    """Measures a case at every thread count of the protocol; a library that fails is recorded with its reason."""
    try:
        calls = dict(what.setup())
    except Exception as error:
        failed = {OURS: Measurement(failure="setup: " + describe(error))}
        yield from (_result(family, what, threads, protocol, failed) for threads in protocol.threads)
        return
    reference = calls.pop(REFERENCE, what.reference)
    wanted = {name: call for name, call in calls.items() if name == OURS or name in protocol.peers}
    exact = None if reference is None else reference()
    for threads in protocol.threads:
        yield _measure_case(_result(family, what, threads, protocol, {}), wanted, exact, protocol.budget, limits(threads))


def _result(family: str, what: Case, threads: int, protocol: Protocol, times: dict[str, Measurement]) -> Result:
    return Result(family, what.name, threads, what.dtype, what.flops, what.bytes, protocol.cold, times)


def _measure_case(result: Result, calls: Mapping[str, Call], exact: object, budget: float, limits: Limits) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(result.threads)
    try:
        failures = _first_calls(result, calls, exact)
    finally:
        torch.set_num_threads(before)
    runnable = {name: call for name, call in calls.items() if name not in failures}
    found = measure(runnable, budget=budget, cold=result.cold, threads=result.threads)
    result.times = {name: found.get(name, failures.get(name, Measurement())) for name in calls}
    level = "DRAM" if result.cold else limits.level_of(result.bytes)
    result.limit = limits.seconds(result.flops, result.bytes, result.dtype, level)
    return result


def _first_calls(result: Result, calls: Mapping[str, Call], exact: object) -> dict[str, Measurement]:
    """Notes what the first call of each costs and how exact it is; those that raise are returned with the reason."""
    failures = {}
    for name, call in calls.items():
        started = time.perf_counter()
        try:
            got = call()
            result.first[name] = time.perf_counter() - started
            if exact is not None:
                result.errors[name] = error_against(got, exact)
        except Exception as error:
            failures[name] = Measurement(failure=describe(error))
    return failures


def error_against(got: object, exact: object) -> Error:
    """The distance of a result from the float64 one; the largest of its parts when there are several.

    Raises:
        ValueError: the results differ in number or shape.
    """
    ours, theirs = _parts(got), _parts(exact)
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        raise ValueError(f"shapes {[a.shape for a in ours]} instead of {[b.shape for b in theirs]}")
    pairs = [_error(a, b) for a, b in zip(ours, theirs)]
    return Error(max((e.largest for e in pairs), default=0.0), max((e.rms for e in pairs), default=0.0))


def _error(got: np.ndarray, exact: np.ndarray) -> Error:
    if exact.size == 0:
        return Error(0.0, 0.0)
    differs = (got != exact) & ~(np.isnan(got) & np.isnan(exact))  # equal infinities agree
    difference = np.abs(np.subtract(got, exact, out=np.zeros_like(exact), where=differs))
    scale = float(np.abs(exact).max(initial=0.0, where=np.isfinite(exact)))
    largest, rms = float(difference.max()), float(np.sqrt(np.mean(difference**2)))
    return Error(largest / scale, rms / scale) if scale > 0 else Error(largest, rms)


def _parts(value: object) -> list[np.ndarray]:
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in _parts(item)]
    if not isinstance(value, (torch.Tensor, np.ndarray, float, int)) and hasattr(value, "__dlpack__"):
        value = torch.from_dlpack(value)
    if isinstance(value, torch.Tensor):
        return [value.detach().to("cpu", torch.float64).numpy()]
    return [np.asarray(value, dtype=np.float64)]


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x.detach().double() if x.is_floating_point() else x
