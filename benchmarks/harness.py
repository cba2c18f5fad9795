"""One case, its peers, and everything measured about them: times in turn, first calls, errors against float64, shares of the limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.calls import Bound, Compiled, Jax, NoVariant, Tunable, untuned
from dlc.tune.accuracy import Error, as_values, error, worst
from dlc.tune.limits import Limits
from dlc.tune.measure import Call, Measurement, Ratio, describe, measure, ratio

OURS, TUNED, REFERENCE = "dlc", "dlc tuned", "float64"
_COMPILED = ("compile", "autotune", "jax")  # libraries whose first call compiles, as ours does
INTO = " into"  # after the name of a library: results written to memory given


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
        calls: library -> function of the operands: for ours a kernel, or one :class:`benchmarks.calls.Adapted`. Wrap a function
            with :func:`compiled` for torch.compile.
        flops: operations of one call.
        bytes: least memory traffic of one call.
        reference: function of the operands in float64; integers and booleans are passed as they are. The torch peer when None.
        dtype: as in :class:`Case`.
    """

    def setup() -> dict[str, Call]:
        operands = tuple(inputs())
        exact = reference or calls.get("torch")
        bound: dict[str, Call] = {n: Bound(untuned(f) if n == OURS else f, operands) for n, f in calls.items()}
        if exact is not None:
            bound[REFERENCE] = lambda: exact(*(_doubled(x) for x in operands))
        return bound

    return Case(name, setup, flops, bytes, None, dtype)


def compiled(function: Callable[..., object], **options: Any) -> Compiled:
    """``torch.compile(function)``: see :class:`benchmarks.calls.Compiled`."""
    return Compiled(function, **options)


def peers(function: Callable[..., object], in_jax: Callable[..., object] | None = None) -> dict[str, Callable[..., object]]:
    """torch eager, torch.compile in its two settings, and JAX where the same function is given in its words."""
    found: dict[str, Callable[..., object]] = {
        "torch": function, "compile": compiled(function), "autotune": compiled(function, mode="max-autotune-no-cudagraphs")}
    return found if in_jax is None else found | {"jax": Jax(in_jax)}


@dataclass
class Result:
    """All that was found out about one case at one thread count, with operands in the caches or out of them. Times in seconds.

    ``times`` are those of calls as in real use, ``into`` those of calls that write to memory given; ``limit`` is the shortest time that
    the machine's measured limits allow.
    """

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
    into: dict[str, Measurement] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, bool]:
        """What the result is of."""
        return self.family, self.case, self.threads, self.cold

    @property
    def peers(self) -> list[str]:
        """The other libraries, those that failed among them."""
        return [name for name in self.times if name not in (OURS, TUNED)]

    @property
    def best_peer(self) -> str | None:
        """The fastest of the peers that ran."""
        return self._best(self.times)

    def ratio(self, peer: str | None = None, ours: str = OURS) -> Ratio | None:
        """Time of a peer (the best when None) over ours; None when either did not run."""
        return self._ratio(self.times, peer, ours)

    def ratio_into(self, ours: str = OURS) -> Ratio | None:
        """The same with memory for the results given on both sides."""
        return self._ratio(self.into, None, ours)

    def _best(self, times: Mapping[str, Measurement]) -> str | None:
        ran = [name for name in self.peers if name in times and times[name].ok]
        return min(ran, key=lambda name: times[name].median, default=None)

    def _ratio(self, times: Mapping[str, Measurement], peer: str | None, ours: str) -> Ratio | None:
        peer, own = peer or self._best(times), times.get(ours)
        if peer is None or own is None or not (own.ok and peer in times and times[peer].ok):
            return None
        return ratio(times[peer], own)

    def gflops(self, name: str = OURS) -> float:
        """10^9 operations a second."""
        return self.flops / self._median(name) / 1e9

    def gbs(self, name: str = OURS) -> float:
        """10^9 bytes a second of the least traffic."""
        return self.bytes / self._median(name) / 1e9

    def share(self, name: str = OURS) -> float:
        """The shortest possible time over the time taken, at most 1: the machine's limit. See :attr:`doubtful`."""
        return min(self.limit / self._median(name), 1.0) if self._median(name) == self._median(name) else float("nan")

    @property
    def doubtful(self) -> bool:
        """Whether something was faster than the limit: it was measured on a busy machine, or the operands stayed in a cache."""
        return any(m.ok and m.median < self.limit for m in (*self.times.values(), *self.into.values()))

    def _median(self, name: str) -> float:
        return self.times[name].median if name in self.times else float("nan")


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        peers: the libraries to compare with.
        threads: thread counts.
        budget: seconds for two calls of a case; more for more.
        cold: which states of the operands: out of the caches, or in them.
        into: whether to measure calls with memory for the results given too.
        tune: seconds to tune each kernel, or each step of training, for; 0 for the default schedule alone.
        exact_flops: the largest case whose error is measured.
        patience: seconds of a call that is made just once: its first time is the measurement.
    """

    peers: tuple[str, ...] = ("torch",)
    threads: tuple[int, ...] = (1,)
    budget: float = 1.0
    cold: tuple[bool, ...] = (True,)
    into: bool = False
    tune: float = 0.0
    exact_flops: float = float("inf")
    patience: float = float("inf")

    @property
    def operands(self) -> str:
        """Where they are while a kernel is tuned."""
        return "both" if len(set(self.cold)) == 2 else "cold" if True in self.cold else "warm"

    @property
    def runs(self) -> int:
        """Results for each case."""
        return len(self.threads) * len(self.cold)


GetLimits = Callable[[int, bool], Limits]
"""The limits for a thread count; measured again when the second argument is True."""


def run_case(family: str, what: Case, protocol: Protocol, limits: GetLimits) -> Iterable[Result]:
    """Measures a case at every thread count and state of the operands; a library that fails is recorded with its reason."""
    wanted = [(threads, cold) for threads in protocol.threads for cold in protocol.cold]
    try:
        calls = dict(what.setup())
    except Exception as error:
        failed = {OURS: Measurement(failure="setup: " + describe(error))}
        yield from (_result(family, what, threads, cold, failed) for threads, cold in wanted)
        return
    reference = calls.pop(REFERENCE, what.reference)
    chosen = _variants({name: call for name, call in calls.items() if name == OURS or name in protocol.peers}, protocol)
    exact = None if reference is None or what.flops > protocol.exact_flops else reference()
    for threads, cold in wanted:
        yield _measure_case(_result(family, what, threads, cold, {}), chosen, exact, protocol, limits)


def _variants(calls: Mapping[str, Call], protocol: Protocol) -> dict[str, Call]:
    """The calls, tuned and with memory given where that is wanted and possible."""
    found = dict(calls)
    ours = calls.get(OURS)
    if protocol.tune > 0 and isinstance(ours, Tunable):
        try:
            found[TUNED] = ours.tuned(protocol.tune, protocol.operands)
        except NoVariant:
            pass
    if protocol.into:
        found |= {name + INTO: call.into() for name, call in found.items() if isinstance(call, Bound)}
    return found


def _result(family: str, what: Case, threads: int, cold: bool, times: dict[str, Measurement]) -> Result:
    return Result(family, what.name, threads, what.dtype, what.flops, what.bytes, cold, times)


def _measure_case(result: Result, calls: Mapping[str, Call], exact: object, protocol: Protocol, limits: GetLimits) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(result.threads)
    try:
        settled, without = _first_calls(result, calls, exact, protocol.patience)
        runnable = {name: call.made() if isinstance(call, Bound) else call
                    for name, call in calls.items() if name not in settled and name not in without}
    finally:
        torch.set_num_threads(before)
    found = measure(runnable, budget=protocol.budget * max(len(runnable) / 2, 1), cold=result.cold, threads=result.threads)
    times = {name: found.get(name, settled.get(name, Measurement())) for name in calls if name not in without}
    result.times = {name: m for name, m in times.items() if not name.endswith(INTO)}
    result.into = {name.removesuffix(INTO): m for name, m in times.items() if name.endswith(INTO)}
    result.limit = _limit(result, limits(result.threads, False))
    if result.doubtful:
        result.limit = _limit(result, limits(result.threads, True))
    return result


def _limit(result: Result, limits: Limits) -> float:
    level = "DRAM" if result.cold else limits.level_of(result.bytes)
    return limits.seconds(result.flops, result.bytes, result.dtype, level)


def _first_calls(result: Result, calls: Mapping[str, Call], exact: object, patience: float) -> tuple[dict[str, Measurement], set[str]]:
    """Notes what the first call of each costs and how exact it is.

    Returns those that are settled, because they raise or take too long to be called again, and those that there are not.
    """
    settled: dict[str, Measurement] = {}
    without: set[str] = set()
    for name, call in calls.items():
        started = time.perf_counter()
        try:
            got = call()
            spent = time.perf_counter() - started
            if spent > patience and name.removesuffix(INTO) not in (OURS, TUNED, *_COMPILED):
                settled[name] = Measurement((spent,), cold=result.cold)
            if name.endswith(INTO):
                continue
            if name != TUNED:  # its first call is the search
                result.first[name] = spent
            if exact is not None:
                result.errors[name] = error_against(got, exact)
        except NoVariant:
            without.add(name)
        except Exception as error:
            settled[name] = Measurement(failure=describe(error))
    return settled, without


def error_against(got: object, exact: object) -> Error:
    """The distance of a result from the float64 one; the largest of its parts when there are several.

    Raises:
        ValueError: the results differ in number or shape.
    """
    ours, theirs = _parts(got), [part.to(torch.float64).numpy() for part in _parts(exact)]
    if [tuple(a.shape) for a in ours] != [b.shape for b in theirs]:
        raise ValueError(f"shapes {[tuple(a.shape) for a in ours]} instead of {[b.shape for b in theirs]}")
    return worst(error(a, b) for a, b in zip(ours, theirs))


def _parts(value: object) -> list[torch.Tensor]:
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in _parts(item)]
    if not isinstance(value, (torch.Tensor, np.ndarray, float, int)) and hasattr(value, "__dlpack__"):
        value = torch.from_dlpack(value)
    return [as_values(value).detach().cpu()]


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x.detach().double() if x.is_floating_point() else x
