"""The parent's side of the helper processes: compile in parallel, run and time one at a time, survive what crashes and hangs."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import numpy as np
import torch

from codegen.heuristics import Choice
from dlc.runtime.child import Child
from dlc.runtime.nursery import shared
from dlc.tune.accuracy import Error
from dlc.tune.adversary import ORDINARY
from dlc.tune.bounds import Bound
from dlc.tune.measure import COLD
from dlc.tune.peers import Peers
from dlc.tune.worker import Built, Planned, Work
from dsl.errors import DlcError


@dataclass
class Checked:
    """Results on a kind of data, the same for all candidates that give them: their bits, and their error where it was asked for."""

    bits: str
    error: Error | None = None


@dataclass
class Trial:
    """One candidate and everything that was found out about it.

    Attributes:
        number: in the order of trying; 0 is the default schedule.
        decisions: what was asked for.
        choices: what the heuristics made of it.
        tile, cycles: digest of its tile program, and how long that takes by counts; empty where it was not planned before it was built.
        code: digest of its generated code.
        order: the order of its reductions.
        schedule: the trace of its schedule.
        checked: kind of data to its results, where it ran.
        bound: what its orders of summation allow on the arguments as given; None where it was not asked for.
        samples: seconds, each beside the default's sample of the same round in ``beside``.
        failure: why it was not timed, or not to the end.
        at: seconds since the search began.
        facts: what its machine code shows and the least time it takes, for a GPU that is not here; see :mod:`dlc.tune.offline`.
    """

    number: int
    decisions: Mapping[str, Any]
    choices: tuple[Choice, ...] = ()
    tile: str = ""
    cycles: float = 0.0
    code: str = ""
    order: str = ""
    schedule: Any = ()
    checked: dict[str, Checked] = field(default_factory=dict)
    bound: Bound | None = None
    samples: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    failure: str | None = None
    at: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> Error | None:
        """Against float64 on the arguments as given; None when it did not run or nobody asked."""
        return self.checked[ORDINARY].error if ORDINARY in self.checked else None

    @property
    def least(self) -> float | None:
        """Seconds it takes at least by the model of :mod:`dlc.gpu_model`; None where it was not built or is refused."""
        return float(self.facts["seconds"]) if "seconds" in self.facts and self.failure is None else None

    @property
    def seconds(self) -> float | None:
        """The median of its samples; None when it was not timed."""
        return float(np.median(self.samples)) if self.samples else None

    @property
    def speedup(self) -> float | None:
        """Time of the default over its own, the best of the same rounds: above 1 it is faster. None when it failed.

        The best, because with few samples a median is at the mercy of whatever else the machine does.
        """
        return min(self.beside) / min(self.samples) if self.samples and self.failure is None else None

    def changes(self, other: Trial) -> str:
        """What another candidate chooses that this one does not, in words."""
        own = {c.name: c.value for c in self.choices}
        made = {c.name: c.value for c in other.choices} or dict(other.decisions)
        return ", ".join(f"{name}={value}" for name, value in made.items() if own.get(name) != value) or "the same choices"

    def fail(self, error: DlcError) -> None:
        """Note why it is out of the race."""
        self.failure = f"{error.title}: {error.reason.splitlines()[0]}" if error.reason else error.title


@dataclass(frozen=True)
class Helpers:
    """How helper processes are run: what answers in them, and the seconds after which one that compiles or runs a candidate is given up."""

    handler: str = "dlc.tune.worker:handle"
    build: float = 60.0
    run: float = 30.0


HELPERS = Helpers()


class Session:
    """Helper processes for one kernel and one set of arguments.

    Args:
        work: the kernel.
        arguments: what every candidate is called with.
        threads: threads to run with.
        jobs: processes that compile; the first of them also runs and times.
        helpers: how they are run.
        operands: where they are when a call is timed, see :func:`dlc.tune.measure.one_sample`.
    """

    def __init__(self, work: Work, arguments: Sequence[torch.Tensor], threads: int, jobs: int, helpers: Helpers = HELPERS,
                 operands: str = COLD) -> None:
        self.work, self.threads, self.helpers, self.operands = work, threads, helpers, operands
        self._arguments = pickle.dumps([_own(a) for a in arguments], protocol=5)  # torch would share them instead of sending them
        self._directory = tempfile.TemporaryDirectory(prefix="dlc-tune-", ignore_cleanup_errors=True)
        self._nursery = shared(helpers.handler)
        self._builders = [self._child() for _ in range(max(jobs, 1))]
        self._runner = self._builders[0]
        self._state: tuple[int, set[int]] = (0, set())
        self._sent = ""
        self._results: dict[tuple[str, str], Checked] = {}
        self._nursery.start()

    def _child(self) -> Child:
        """A process whose caches are of this session: the losers stay out of the user's, and a read-only one does not matter."""
        return self._nursery.child({name: self._directory.name for name in ("DLC_CACHE_DIR", "TRITON_CACHE_DIR")})

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for child in self._builders:
            child.close()
        self._directory.cleanup()

    # -- compiling ---------------------------------------------------------------------------------------------
    def plan(self, trials: Sequence[Trial], until: float) -> None:
        """Schedule and lower candidates, as :meth:`build` compiles them; those not begun in time stay without cycles."""
        def planned(trial: Trial, found: Planned) -> None:
            trial.choices, trial.order, trial.tile, trial.cycles = found.choices, found.order, found.tile, found.cycles

        self._share("plan", trials, until, planned)

    def build(self, trials: Sequence[Trial], until: float) -> None:
        """Compile candidates, as many at a time as there are processes; those not begun ``until`` then stay without code.

        Args:
            trials: what to compile.
            until: on the clock of ``time.perf_counter``.
        """
        def built(trial: Trial, found: Built) -> None:
            trial.code, trial.choices, trial.order, trial.schedule = found.code, found.choices, found.order, found.schedule
            trial.facts = found.facts
            trial.failure = found.facts.get("refused")

        self._share("build", trials, until, built)

    def _share(self, action: str, trials: Sequence[Trial], until: float, take: Callable[[Trial, Any], None]) -> None:
        """Have the processes do something with every trial, and take what comes back; what fails is noted."""
        todo, idle = list(trials), list(self._builders)
        busy: dict[Connection, tuple[Child, Trial, float]] = {}
        while todo or busy:
            while todo and idle and time.perf_counter() < until:
                child, trial = idle.pop(), todo.pop(0)
                try:
                    pipe = child.send((action, self.work, trial.decisions))
                except DlcError as e:
                    trial.fail(e)
                    idle.append(child)
                    continue
                busy[pipe] = child, trial, time.perf_counter() + self.helpers.build
            if not busy:
                return
            first = min(deadline for _, _, deadline in busy.values())
            ready = wait(list(busy), max(first - time.perf_counter(), 0.0))
            late = [pipe for pipe, (_, _, deadline) in busy.items() if pipe not in ready and time.perf_counter() >= deadline]
            for done in [pipe for pipe in busy if pipe in ready or pipe in late]:
                child, trial, _ = busy.pop(done)
                try:
                    take(trial, child.receive(0.0))
                except DlcError as e:
                    trial.fail(e)
                idle.append(child)

    # -- running -----------------------------------------------------------------------------------------------
    def emulate(self, trial: Trial, small: Work, arguments: bytes, seconds: float) -> str | None:
        """Run a candidate for a GPU with no GPU, on small arguments; why its results may not be used, None when they may.

        Args:
            trial: the candidate.
            small: the kernel at the small sizes.
            arguments: the small arguments, pickled.
            seconds: after which it is given up.
        """
        try:
            found: str | None = self._runner.call(("emulate", small, trial.decisions, arguments), seconds)
        except DlcError as e:
            return e.title
        return found

    def check(self, trial: Trial, kind: str) -> None:
        """Run a candidate on a kind of data and note its results, or its failure."""
        bits: str | None = self._ask(trial, "check", kind)
        if bits is not None:
            trial.checked[kind] = self._results.setdefault((kind, bits), Checked(bits))

    def tell_error(self, trial: Trial, kind: str, exact: Sequence[np.ndarray]) -> None:
        """Note the error of a candidate on a kind of data that it was checked on, unless that of the same bits is known."""
        known = trial.checked.get(kind)
        if known is None or known.error is not None:
            return
        try:
            if self._sent != kind:
                self._runner.call(("expect", exact), self.helpers.build)
                self._sent = kind
        except DlcError as e:
            trial.fail(e)
            return
        known.error = self._ask(trial, "error", kind)

    def sample(self, trial: Trial) -> float | None:
        """Seconds of one call; None when the candidate failed."""
        seconds: float | None = self._ask(trial, "sample", self.operands)
        return seconds

    def _ask(self, trial: Trial, action: str, *what: Any) -> Any:
        try:
            pid = self._runner.start()
            if self._state[0] != pid:
                self._runner.call(("open", self.work, self._arguments, self.threads), self.helpers.build)
                self._state, self._sent = (pid, set()), ""
            if trial.number not in self._state[1]:
                self._runner.call(("load", trial.number, trial.decisions), self.helpers.build)
                self._state[1].add(trial.number)
            return self._runner.call((action, trial.number, *what), self.helpers.run)
        except DlcError as e:
            trial.fail(e)
            return None

    def forget(self, trials: Sequence[Trial]) -> None:
        """Unload candidates that will not be run again soon."""
        numbers = [t.number for t in trials if t.number in self._state[1]]
        if numbers and self._state[0] == self._runner.start():
            self._runner.call(("forget", numbers), self.helpers.run)
            self._state[1].difference_update(numbers)

    def renew(self) -> None:
        """Run from now on in a process in which nothing has run yet."""
        for child in self._builders:
            child.close()
        self._runner = self._child()
        self._builders = [self._runner]
        self._state = 0, set()


def rounds(session: Session, trials: Sequence[Trial], peers: Peers, until: float, least: int, most: int,
           apart: Sequence[float] = (float("inf"),)) -> None:
    """Time candidates and the peers in turn, one sample each a round, in alternating order; the first trial is the reference.

    Args:
        session: where the candidates run.
        trials: the reference, then the candidates. Their samples are appended.
        peers: run in this process.
        until: no round is begun later, once there are ``least`` of them.
        least: number of rounds there are in any case.
        most: number of rounds after which it ends.
        apart: how many times slower than the best a candidate may be after each round to be timed again; the last goes for all further.
    """
    live = list(trials)
    for n in range(most):
        if n >= least and time.perf_counter() > until:
            break
        taken = {t.number: session.sample(t) for t in (live if n % 2 == 0 else reversed(live))}
        reference = taken.get(trials[0].number)
        if reference is None:
            break
        seconds = {t.number: s for t in live if (s := taken[t.number]) is not None}
        for t in live:
            if t.number in seconds:
                t.samples.append(seconds[t.number])
                t.beside.append(reference)
        live = [t for t in live if t.number in seconds]
        best = min(min(t.samples) for t in live)
        live = [t for t in live if t is trials[0] or min(t.samples) <= apart[min(n, len(apart) - 1)] * best]
        peers.sample()
        if len(live) == 1 and len(trials) > 1 and n + 1 >= least:
            break


def _own(a: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides that holds nothing but what it reaches."""
    a = a.detach()
    if not a.numel():
        return a
    span = sum((n - 1) * s for n, s in zip(a.shape, a.stride())) + 1
    return a.as_strided((span,), (1,)).clone().as_strided(a.shape, a.stride())
