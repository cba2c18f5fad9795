"""The search: plan, compile what promises most, compare bits, time beside the default, confirm in a fresh process.

The protocol, for those who doubt the figures. Every sample is one call, with cold operands unless others are asked for. Candidates are
timed in turn with the default schedule and the peers, in alternating order, and compared with the default round by round; the clock of a
shared machine drifts by more than two good schedules differ. What is clearly slower than the best is not timed again, so that most rounds
go to the few that are near it. The three best then meet the default again in a process in which nothing has run yet. A candidate is taken
when three quarters of the rounds there say that it is faster, and the median by at least two per cent.

Results are held against float64 once for all candidates that give the same bits: on the arguments as given and, as far as the budget
allows, on adversarial data, where a candidate may err no more than the default does.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import llvmlite
import numpy as np
import torch

from dlc import records
from dlc.compiler import Request, record_key
from dlc.config import settings
from dlc.tune.accuracy import tolerance
from dlc.tune.adversary import ORDINARY, kinds
from dlc.tune.exactness import PATIENCE, TOO_LONG, Row, as_dict
from dlc.tune.measure import COLD, Measurement, ratio
from dlc.tune.outcome import TuneReport
from dlc.tune.peers import Peer, Peers
from dlc.tune.progress import Progress
from dlc.tune.race import Race
from dlc.tune.ranking import ranked
from dlc.tune.search import Known, Search
from dlc.tune.session import HELPERS, Helpers, Session, Trial, rounds
from dlc.tune.truth import Truth
from dlc.tune.worker import Work
from dsl.errors import InternalError, ScheduleError
from dsl.portable import dumps

FINALISTS, BATCH = 3, 8
WIDER = 3  # schedules planned for each one compiled
BETTER = 1.02
_CONFIRM_SHARE, _EXACT_SHARE = 0.3, 0.15  # of the budget, at most
_ROUNDS, _APART = (1, 6), (3.0, 1.5, 1.25, 1.12, 1.06)
_CONFIRM_ROUNDS, _CONFIRM_APART = (5, 60), (3.0, 1.5, 1.25, 1.12)


@dataclass(frozen=True)
class Task:
    """What to tune.

    Attributes:
        request: the kernel, the shapes and strides of the arguments, the target.
        arguments: the arguments.
        exact: from arguments to the exact results.
        against: peers by name.
        given: what peers are called with; the arguments when None.
        budget: seconds; infinite for a search that ends when it finds nothing better.
        reproducible: admit only candidates that keep the default's orders of summation, and the bits of its results.
        candidates: the most to compile; None for as many as the budget allows.
        tolerance: the largest relative error that a candidate's order may allow; None for any.
        data: kinds of data to tell errors on; None for as many as float64 takes little time for.
        seed: of the search.
        helpers: how helper processes are run.
        operands: where they are when a call is timed, see :func:`dlc.tune.measure.one_sample`.
    """

    request: Request
    arguments: Sequence[torch.Tensor]
    exact: Callable[[Sequence[torch.Tensor]], Sequence[np.ndarray]]
    against: Mapping[str, Peer] = field(default_factory=dict)
    budget: float = 30.0
    reproducible: bool = True
    seed: int = 0
    helpers: Helpers = HELPERS
    tolerance: float | None = None
    candidates: int | None = None
    given: Sequence[Any] | None = None
    data: str | Sequence[str] | None = None
    operands: str = COLD


def tune(task: Task, progress: Progress) -> TuneReport:
    """Search until the budget is spent, the space is exhausted or the user stops it; write the record; tell what was found.

    Raises:
        InternalError: the default schedule does not run, or not right.
        ScheduleError: no schedule keeps within the tolerance.
    """
    run = _Run(task, progress)
    request = task.request
    work = Work(dumps(request.program), request.shapes, request.strides, request.target, request.reproducible)
    threads, jobs = torch.get_num_threads(), settings().jobs
    with Session(work, task.arguments, threads, jobs, task.helpers, task.operands) as session, progress, torch.no_grad():
        interrupted = run.go(session)
    return run.finish(interrupted)


class _Run(Race):
    """The state of one search."""

    def __init__(self, task: Task, progress: Progress) -> None:
        super().__init__(task.budget, progress, "not confirmed in a fresh process")
        self.task = task
        self.truth = Truth(task.request, task.arguments, task.exact)
        self.peers = Peers(task.against, task.arguments if task.given is None else task.given, task.operands)
        self.finalists: dict[int, Trial] = {}
        self.kinds = kinds(task.data)
        self.dtypes = [a.dtype for a in task.arguments] + [torch.float32]
        self.sampling = 0.0
        self.excluded: str | None = None
        self.numbers = itertools.count(1)
        self.waiting: list[Trial] = []
        self.planned: dict[str, int] = {}

    def begin(self, session: Session) -> None:
        """The default: compiled, run, timed once; before it the exact results, where candidates may have others than its bits."""
        if not self.task.reproducible or self.task.tolerance is not None:
            with self.doing("exact results in float64"):
                self.truth.exact(ORDINARY)
        with self.doing("starting"):
            session.plan([self.default], math.inf)
            session.build([self.default], math.inf)
            if self.default.failure is None:
                session.check(self.default, ORDINARY)
        if self.default.failure is not None:
            raise InternalError(f"the default schedule of {self.task.request.program.name} does not run", self.default.failure,
                                "report it with the kernel and the shapes", self.task.request.program.loc)
        self.seen[self.default.code] = self.planned[self.default.tile] = 0
        self.excluded = self._refused(self.default)
        if self.excluded is not None and self.task.reproducible:
            raise self._nothing_left()
        started = time.perf_counter()
        with self.doing("timing"):
            rounds(session, [self.default], self.peers, 0.0, 2, 2)
        self.sampling = (time.perf_counter() - started) / 2

    def search(self, session: Session) -> None:
        """Batches of candidates until the time for the search is over."""
        until = self.end - self._reserve()
        key = record_key(self.task.request)
        first = [r.decisions for r in (*filter(None, [records.find(key)]), *records.similar(key))]
        search = Search(self.task.seed, first)
        most, compiled = self.task.candidates if self.task.candidates is not None else math.inf, 0
        while time.perf_counter() < until and compiled < most and self.goes_on(max(t.speedup or 0.0 for t in self.trials)):
            with self.doing("planning"):
                self._plan(session, search, until)
            if not self.waiting:
                self.notes.append("the whole space was tried")
                return
            batch = ranked(self.waiting, self.trials, first)[:int(min(BATCH, most - compiled))]
            compiled += len(batch)
            self._try(session, batch, until)

    def _reserve(self) -> float:
        """Seconds to keep for the confirmation: loading and checking the finalists, float64, and some rounds."""
        needed = 0.1 + 20 * self.sampling * (FINALISTS + 1) / (1 + len(self.peers.against)) + min(self._patience, 3 * self.truth.likely)
        return min(_CONFIRM_SHARE * self.task.budget, needed)

    @property
    def _patience(self) -> float:
        """Seconds for errors that nobody asked for by name."""
        return min(PATIENCE, _EXACT_SHARE * self.task.budget)

    def _plan(self, session: Session, search: Search, until: float) -> None:
        """Fill up what waits to be compiled with candidates whose order is admitted and whose tile program is new."""
        known = [Known(t.choices, t.speedup) for t in self.trials if t.choices]
        wanted = search.propose(known, max(WIDER * BATCH - len(self.waiting), 0))
        fresh = [Trial(next(self.numbers), p, at=time.perf_counter() - self.started) for p in wanted]
        session.plan(fresh, until)
        for t in fresh:
            if t.failure is None and t.tile:
                t.failure = self._refused(t) or self._known(self.planned, t.tile, t)
        self.waiting += [t for t in fresh if t.tile and t.failure is None]
        self.trials += [t for t in fresh if t.failure is not None]

    def _known(self, seen: dict[str, int], what: str, t: Trial) -> str | None:
        """Why a candidate is none of its own."""
        number = seen.setdefault(what, t.number)
        return f"the same code as candidate {number}" if number != t.number else None

    def _try(self, session: Session, batch: Sequence[Trial], until: float) -> None:
        """Compile, check and time some candidates."""
        with self.doing("compiling"):
            session.build(batch, until)
        tried = [t for t in batch if t.code or t.failure]
        self.waiting = [t for t in self.waiting if t not in batch]
        self.trials += tried
        for t in tried:
            t.failure = t.failure or self._known(self.seen, t.code, t)
        with self.doing("checking"):
            sound = [t for t in tried if self._sound(session, t)]
        if sound:
            reference = Trial(0, {}, code=self.default.code)
            with self.doing("timing"):
                rounds(session, [reference, *sound], self.peers, until, *_ROUNDS, _APART)
            if reference.failure is not None:
                self.notes.append(f"the default schedule failed while it was timed: {reference.failure}")
            self.default.samples += reference.samples
            self.default.beside += reference.samples
        session.forget(tried)
        self.progress.show("searching", self.trials)

    def _sound(self, session: Session, t: Trial) -> bool:
        """Run a candidate that compiles; whether its results may be used."""
        if t.failure is None:
            session.check(t, ORDINARY)
            t.failure = t.failure or self._wrong(session, ORDINARY, t)
        return t.failure is None

    def _wrong(self, session: Session, kind: str, t: Trial) -> str | None:
        """Why a candidate's results on a kind of data may not be used: those with the bits of the default's may."""
        mine, default, on = t.checked[kind], self.default.checked[kind], "" if kind == ORDINARY else f" on {kind} data"
        if mine.bits == default.bits:
            return None
        for one, found in ((self.default, default), (t, mine)):
            if found.error is None:
                session.check(one, kind)
                session.tell_error(one, kind, self.truth.exact(kind))
        if mine.error is None or default.error is None:
            return t.failure or self.default.failure
        allowed = tolerance(default.error, self.dtypes)
        if not (mine.error.relative <= allowed or np.isnan(allowed)):
            return f"wrong results{on}: error {mine.error.relative:.1e}, {allowed:.1e} allowed"
        return f"other bits than the default schedule{on} (reproducible=False admits it)" if self.task.reproducible else None

    def _refused(self, t: Trial) -> str | None:
        """Why a candidate's orders of summation are not admitted."""
        if self.task.reproducible and t.order != self.default.order:
            return f"another order of summation ({_difference(t.order, self.default.order)}; reproducible=False admits it)"
        if self.task.tolerance is None:
            return None
        t.bound = allowed = self.truth.bound(ORDINARY, t.order, {c.name: c.value for c in t.choices})
        if allowed.relative is None:
            return f"its error has no bound ({allowed.reason}), and a tolerance is asked for"
        return (f"its order allows an error of {allowed.relative:.1e}, {self.task.tolerance:.1e} tolerated"
                if allowed.relative > self.task.tolerance else None)

    def _nothing_left(self) -> ScheduleError:
        """Every order allows more than is tolerated."""
        known = [(t.bound.relative, n) for n, t in enumerate(self.trials) if n and t.bound is not None and t.bound.relative is not None]
        others = ""
        if known:
            least, number = min(known)
            others = f"; of {len(known)} others the least allows {least:.1e} ({self.default.changes(self.trials[number])})"
        remedy = "a larger tolerance" + (", or reproducible=False, which admits other orders" if self.task.reproducible else "")
        return ScheduleError(f"no schedule of {self.task.request.program.name} keeps within the tolerance of {self.task.tolerance:.1e}",
                             f"the default: {self.excluded}{others}", remedy, self.task.request.program.loc)

    def confirm(self, session: Session) -> None:
        """The best candidates against the default in a process of their own."""
        enough = 0.0 if self.excluded else 1.0
        best = sorted((t for t in self.trials[1:] if (t.speedup or 0.0) > enough), key=lambda t: -(t.speedup or 0.0))[:FINALISTS]
        again = {t.number: replace(t, samples=[], beside=[], failure=None) for t in (self.default, *best)}
        session.renew()
        with self.doing("errors against float64"):
            self._examine(session, list(again.values()))
        runners = [t for t in again.values() if t.failure is None]
        if again[0].failure is None:
            searched, self.peers = self.peers, Peers(self.task.against, self.peers.given, self.task.operands)
            self.peers.errors, self.peers.failures = searched.errors, searched.failures
            with self.doing("confirming in a fresh process"):
                rounds(session, runners, self.peers, self.end, *_CONFIRM_ROUNDS, _CONFIRM_APART)
            if again[0].samples:
                self.finalists = again
            else:
                self.peers = searched

    def _examine(self, session: Session, finalists: Sequence[Trial]) -> None:
        """Hold the finalists, the default first, against float64 on every kind of data, beside what their orders allow."""
        started = time.perf_counter()
        self._same(session, ORDINARY, finalists)
        for n, kind in enumerate(self.kinds):
            spent = time.perf_counter() - started
            if self.task.data is None and spent + 3 * self.truth.likely > self._patience:
                self.notes.append(f"no errors on data of the kinds {', '.join(self.kinds[n:])}: float64 takes some "
                                  f"{3 * self.truth.likely:.1f} s for each; name them in data= to have them")
                return
            if finalists[0].failure is not None:
                return
            exact = self.truth.exact(kind)
            self.peers.judge(kind, exact)
            if kind != ORDINARY:
                self._same(session, kind, finalists)
            for t in finalists:
                session.tell_error(t, kind, exact)
                if self.task.data is not None or 3 * self.truth.likely < self._patience:
                    self.truth.bound(kind, t.order, {c.name: c.value for c in t.choices})

    def _same(self, session: Session, kind: str, finalists: Sequence[Trial]) -> None:
        """Run the finalists, the default first, on a kind of data; out is whose results may not be used."""
        for t in finalists:
            session.check(t, kind)
            t.failure = t.failure or finalists[0].failure or self._wrong(session, kind, t)

    def finish(self, interrupted: bool) -> TuneReport:
        """Decide, write the record, report."""
        confirmed = bool(self.finalists)
        pool = self.finalists or {t.number: t for t in self.trials}
        able = [t for t in pool.values() if self.excluded is None or (t.number and t.speedup is not None)]
        if not able:
            raise self._nothing_left()
        best = max(able, key=lambda t: t.speedup or 0.0)
        reason, winner = _verdict(best, self.excluded, any(t.samples for t in self.trials[1:]))
        default = pool[0] if confirmed else Trial(0, {}, samples=winner.beside)
        cold = self.task.operands == COLD
        times = {"default": Measurement(tuple(default.samples), cold=cold), "tuned": Measurement(tuple(winner.samples), cold=cold),
                 **self.peers.times}
        chosen = next(t for t in self.trials if t.number == winner.number)
        if self.waiting:
            self.notes.append(f"{len(self.waiting)} further schedules were planned and not compiled: others promised more")
        rows = self._rows(chosen)
        record = self._record(chosen, times, confirmed, rows)
        records.save(record)
        return TuneReport(self.task.request.program.name, record, self.trials, chosen, times, reason, time.perf_counter() - self.started,
                          interrupted, (*self.notes, *self.peers.notes), rows, self.spent)

    def _rows(self, chosen: Trial) -> list[Row]:
        """The errors of the default, of what is used from now on and of the peers, on every kind of data that was come to."""
        sides = {"default": self.default, **({"tuned": chosen} if chosen.number else {})}
        out = []
        for kind in self.kinds:
            errors = {name: found.error for name, t in sides.items() if (found := t.checked.get(kind)) is not None and found.error}
            if errors:
                peers, failures = self.peers.errors.get(kind, ({}, {}))
                allowed = self.truth.bounds.get((kind, chosen.order), TOO_LONG)
                out.append(Row(kind, {**errors, **peers}, allowed, list(sides)[-1], failures))
        return out

    def _record(self, best: Trial, times: Mapping[str, Measurement], confirmed: bool, rows: Sequence[Row]) -> records.Record:
        decisions = {c.name: c.value for c in best.choices} if best.number else {}
        versions = {"llvmlite": llvmlite.__version__, "torch": torch.__version__, "numpy": np.__version__}
        gain = ratio(times["default"], times["tuned"]).median if best.number else 1.0
        return records.Record(record_key(self.task.request), self.task.request.program.name, decisions,
                              {n: m.samples for n, m in times.items()}, gain, as_dict(rows), best.schedule, best.code, confirmed,
                              self.task.reproducible, best.order, versions, time.time(),
                              self.task.budget if self.task.budget < math.inf else 0.0, len(self.trials), operands=self.task.operands)


def _difference(order: str, default: str) -> str:
    """The first reduction whose order is another one."""
    known = set(default.splitlines())
    return next((line for line in order.splitlines() if line not in known), "fewer reductions")


def _verdict(best: Trial, excluded: str | None, tried: bool) -> tuple[str, Trial]:
    """Why, and which: the best candidate where it beats the default beyond noise or the default may not be used, else the default."""
    if best.number == 0:
        return "the default schedule is kept: " + ("nothing that was tried is faster beyond doubt" if tried else
                                                   "there was nothing else to try, or no time for it"), best
    pairs = [d / s for s, d in zip(best.samples, best.beside)]
    low, gain = (float(q) for q in np.quantile(pairs, [0.25, 0.5]))
    if excluded is not None:
        return f"{gain:.2f}x as fast as the default schedule, which is refused: {excluded}", best
    if low > 1.0 and gain >= BETTER:
        return f"{gain:.2f}x as fast as the default schedule", best
    reference = Trial(0, {}, samples=list(best.beside), beside=list(best.beside))
    return f"the default schedule is kept: the best candidate is {gain:.2f}x as fast, which is within noise", reference
