"""Timing of alternatives in one process: interleaved, with cold operands, every sample and every failure kept.

The clock of a shared machine drifts by more than two good kernels differ. So the candidates take turns, one sample each
per round, in alternating order, and two of them are compared round by round (:func:`ratio`), never median by median.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from dlc.host import cache_bytes

Call = Callable[[], object]
Candidate = Call | Sequence[Call]

COLD, WARM, BOTH = OPERANDS = ("cold", "warm", "both")
MIN_ROUNDS, MAX_ROUNDS = 3, 1000
_SHORTEST, _MOST_CALLS = 1e-3, 100  # seconds of a warm sample, and calls in it
_LONG = 0.2  # seconds of a call that is warm when it has run once
_SMALLEST_FLUSH, _LARGEST_FLUSH = 32 << 20, 512 << 20
_GPU_FLUSH_BYTES = 256 << 20


@dataclass(frozen=True)
class Measurement:
    """The times of one candidate, in seconds for one call.

    ``samples[r]`` was taken in round ``r``, next to every other candidate's sample of that round. A candidate that
    raised keeps the samples it had and says why in ``failure``; its statistics are NaN when it has none.
    """

    samples: tuple[float, ...] = ()
    failure: str | None = None
    inner: int = 1
    cold: bool = False

    @property
    def ok(self) -> bool:
        """True when the candidate ran to the end."""
        return self.failure is None and bool(self.samples)

    @property
    def median(self) -> float:
        """The time of a typical call."""
        return self.quantile(0.5)

    @property
    def p25(self) -> float:
        """A quarter of the samples are faster."""
        return self.quantile(0.25)

    @property
    def p75(self) -> float:
        """A quarter of the samples are slower."""
        return self.quantile(0.75)

    @property
    def min(self) -> float:
        """The fastest sample."""
        return self.quantile(0.0)

    @property
    def spread(self) -> float:
        """The interquartile range as a share of the median: 0.02 reads as two per cent."""
        return (self.p75 - self.p25) / self.median if self.samples else float("nan")

    def quantile(self, q: float) -> float:
        """The ``q`` quantile of the samples, NaN when there are none."""
        return float(np.quantile(self.samples, q)) if self.samples else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain data; :meth:`from_json` reads it back. Times in seconds."""
        return {"samples": list(self.samples), "failure": self.failure, "inner": self.inner, "cold": self.cold}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        """The measurement that :meth:`to_json` wrote."""
        return Measurement(tuple(data["samples"]), data.get("failure"), data.get("inner", 1), data.get("cold", False))


@dataclass(frozen=True)
class Ratio:
    """Time of ``a`` over time of ``b``, round by round: above 1, ``b`` is faster."""

    median: float
    p25: float
    p75: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.p25:.2f}, {self.p75:.2f}]"


def measure(
    candidates: Mapping[str, Candidate],
    *,
    warmup: float = 0.02,
    min_time: float = 1e-3,
    budget: float = 1.0,
    cold: bool = False,
    threads: int | None = None,
) -> dict[str, Measurement]:
    """Times every candidate; one that raises is recorded, never fatal.

    Args:
        candidates: name -> a call without arguments, or several calls of the same work over different copies of the
            operands, which one sample then walks through (operands stay cold without a flush).
        warmup: seconds each candidate runs before it is timed; at least one call.
        min_time: a sample lasts at least this many seconds; short calls are repeated within it. With ``cold`` a sample
            is one call of each copy, however short.
        budget: seconds for all rounds together. There are at least three rounds unless one round alone takes twice this.
        cold: empty the caches before every sample.
        threads: size of the thread pool while measuring; unchanged when None.

    Returns:
        A measurement for each name, in the order given.
    """
    with _threads(threads), _no_gc():
        runs = {name: _prepare(call, warmup, min_time, cold) for name, call in candidates.items()}
        sync = torch.cuda.synchronize if torch.cuda.is_initialized() else None
        started = time.perf_counter()
        for round_ in range(MAX_ROUNDS):
            live = [run for run in runs.values() if run.failure is None]
            for run in live if round_ % 2 == 0 else reversed(live):
                run.sample(sync)
            if not live or _enough(round_ + 1, time.perf_counter() - started, budget):
                break
    return {name: Measurement(tuple(run.samples), run.failure, run.inner, cold) for name, run in runs.items()}


def measure_one(call: Candidate, **options: Any) -> Measurement:
    """:func:`measure` of a single candidate, with the same options."""
    return measure({"": call}, **options)[""]


def ratio(a: Measurement, b: Measurement) -> Ratio:
    """How many times longer ``a`` takes than ``b``, from the pairs of samples taken in the same round.

    Both must come from one call of :func:`measure`. NaN when either has no samples.
    """
    quotients = [x / y for x, y in zip(a.samples, b.samples) if y > 0]
    if not quotients:
        return Ratio(float("nan"), float("nan"), float("nan"), 0)
    p25, median, p75 = (float(q) for q in np.quantile(quotients, [0.25, 0.5, 0.75]))
    return Ratio(median, p25, p75, len(quotients))


def one_sample(call: Call, operands: str) -> float:
    """Seconds of one call.

    Args:
        call: without arguments.
        operands: ``cold`` empties the caches before it; ``warm`` has run it just before, and takes the mean of several calls where they are
            short; ``both`` is the geometric mean of the two.
    """
    if operands == BOTH:
        return math.sqrt(one_sample(call, COLD) * one_sample(call, WARM))
    if operands == COLD:
        flush_caches()
        return _timed((call,), 1, None)
    calls = min(max(math.ceil(_SHORTEST / _timed((call,), 1, None)), 1), _MOST_CALLS)
    return _timed((call,), calls, None) / calls


def flush_caches() -> None:
    """Leaves nothing useful in any cache, by writing a buffer larger than all of them on every thread.

    Not by reading: a core's private caches give up modified lines only when others take their place.
    """
    _flush_buffer().add_(1.0)
    if torch.cuda.is_initialized():
        _gpu_flush_buffer().zero_()
        torch.cuda.synchronize()


@cache
def _flush_buffer() -> torch.Tensor:
    size = min(max(2 * cache_bytes()["L3"], _SMALLEST_FLUSH), _LARGEST_FLUSH)
    return torch.zeros(size // 4, dtype=torch.float32)


@cache
def _gpu_flush_buffer() -> torch.Tensor:
    return torch.empty(_GPU_FLUSH_BYTES, dtype=torch.uint8, device="cuda")


@dataclass
class _Run:
    """One candidate while it is being measured."""

    calls: tuple[Call, ...]
    inner: int = 1
    cold: bool = False
    samples: list[float] = field(default_factory=list)
    failure: str | None = None

    def sample(self, sync: Call | None) -> None:
        """Times ``inner`` calls and notes the mean."""
        try:
            if self.cold:
                flush_caches()
            self.samples.append(_timed(self.calls, self.inner, sync) / self.inner)
        except Exception as error:  # whatever a candidate raises is its result
            self.failure = describe(error)


def describe(error: BaseException) -> str:
    """One line for the record of a failure."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _prepare(candidate: Candidate, warmup: float, min_time: float, cold: bool) -> _Run:
    """Warms a candidate up and settles how many calls one sample needs."""
    calls = (candidate,) if callable(candidate) else tuple(candidate)
    run = _Run(calls, cold=cold)
    try:
        fastest = _warm(calls, warmup)
    except Exception as error:
        run.failure = describe(error)
        return run
    repeats = 1 if cold else int(np.ceil(min_time / max(fastest, 1e-8)))
    run.inner = len(calls) * max(1, int(np.ceil(repeats / len(calls))))
    return run


def _warm(calls: tuple[Call, ...], seconds: float) -> float:
    """Runs every call once and then on for ``seconds``, unless that took ten times as long; the fastest call's time, in seconds."""
    started = time.perf_counter()
    for call in calls:
        call()
    spent = time.perf_counter() - started
    if spent > 10 * seconds * len(calls) and spent > _LONG * len(calls):
        return spent / len(calls)
    sync = torch.cuda.synchronize if torch.cuda.is_initialized() else None
    fastest, repeats, end = float("inf"), len(calls), time.perf_counter() + seconds
    while True:
        fastest = min(fastest, _timed(calls, repeats, sync) / repeats)
        if time.perf_counter() >= end:
            return fastest
        repeats = repeats if fastest * repeats > 1e-4 else repeats * 2


def _timed(calls: tuple[Call, ...], inner: int, sync: Call | None) -> float:
    """Seconds that ``inner`` calls take together, walking through the copies in turn."""
    if inner == 1:
        order: tuple[Call, ...] = calls[:1]
    else:
        order = tuple(itertools.islice(itertools.cycle(calls), inner))
    started = time.perf_counter_ns()
    for call in order:
        call()
    if sync is not None:
        sync()
    return max(time.perf_counter_ns() - started, 1) * 1e-9


def _enough(rounds: int, elapsed: float, budget: float) -> bool:
    if rounds < MIN_ROUNDS:
        return elapsed > 2 * budget
    return elapsed >= budget


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


@contextmanager
def _no_gc() -> Iterator[None]:
    """A collection in the middle of a sample is charged to whoever happens to run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
