"""The search: propose, compile in parallel, check against the exact results, time beside the default, confirm in a fresh process.

The protocol, for those who doubt the figures. Every sample is one call with cold operands. Candidates are timed in turn with the default
schedule and the peer, in alternating order, and compared with the default round by round; the clock of a shared machine drifts by more
than two good schedules differ. The three best then meet the default again in a process in which nothing has run yet. A candidate is
taken when three quarters of the rounds there say that it is faster, and the median by at least two per cent. In that process they are
also held against float64 on adversarial data, where a candidate may err no more than the default does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import llvmlite
import numpy as np
import torch

from dlc import records
from dlc.compiler import Plan, Request, record_key
from dlc.config import settings
from dlc.runtime.arguments import as_numpy
from dlc.tune.accuracy import Error, tolerance
from dlc.tune.adversary import ORDINARY, changed, kinds
from dlc.tune.bounds import Bound, bound
from dlc.tune.exactness import PATIENCE, TOO_LONG, Row, as_dict, compare, left_out
from dlc.tune.measure import Measurement, describe, flush_caches, ratio
from dlc.tune.outcome import TuneReport
from dlc.tune.progress import Progress
from dlc.tune.race import Race
from dlc.tune.search import Known, Search
from dlc.tune.session import HELPERS, Helpers, Session, Trial, rounds
from dlc.tune.worker import Work
from dsl.errors import InternalError, ScheduleError
from dsl.portable import dumps

FINALISTS, BATCH = 3, 8
BETTER = 1.02
_CONFIRM_SHARE = 0.3
_ROUNDS, _CONFIRM_ROUNDS = (3, 7), (5, 60)


@dataclass(frozen=True)
class Task:
    """What to tune.

    Attributes:
        request: the kernel, the shapes and strides of the arguments, the target.
        arguments: the arguments.
        exact: from arguments to the exact results.
        against: the peer; None for none.
        given: what the peer is called with; the arguments when None.
        budget: seconds.
        reproducible: admit only candidates that keep the default's orders of summation, and the bits of its results.
        candidates: the most to try; None for as many as the budget allows.
        tolerance: the largest relative error that a candidate's order may allow; None for any.
        data: kinds of data to tell errors on; None for as many as float64 takes little time for.
        seed: of the search.
        helpers: how helper processes are run.
    """

    request: Request
    arguments: Sequence[torch.Tensor]
    exact: Callable[[Sequence[torch.Tensor]], Sequence[np.ndarray]]
    against: Callable[..., Any] | None = None
    budget: float = 30.0
    reproducible: bool = True
    seed: int = 0
    helpers: Helpers = HELPERS
    tolerance: float | None = None
    candidates: int | None = None
    given: Sequence[Any] | None = None
    data: str | Sequence[str] | None = None


def tune(task: Task, progress: Progress) -> TuneReport:
    """Search until the budget is spent, the space is exhausted or the user stops it; write the record; tell what was found.

    Raises:
        InternalError: the default schedule does not run, or not right.
        ScheduleError: no schedule keeps within the tolerance.
    """
    run = _Run(task, progress)
    request = task.request
    work = Work(dumps(request.program), request.shapes, request.strides, request.target, request.reproducible)
    with Session(work, task.arguments, torch.get_num_threads(), settings().jobs, task.helpers) as session, progress, torch.no_grad():
        interrupted = run.go(session)
    return run.finish(interrupted)


class _Run(Race):
    """The state of one search."""

    def __init__(self, task: Task, progress: Progress) -> None:
        super().__init__(task.budget, "not confirmed in a fresh process")
        self.task, self.progress = task, progress
        self.peers: list[float] = []
        self.finalists: dict[int, Trial] = {}
        self.peer_fails: str | None = None
        self.kinds = kinds(task.data)
        self.given = task.arguments if task.given is None else task.given
        self.dtypes = [a.dtype for a in task.arguments] + [torch.float32]
        self.probe: Sequence[np.ndarray] = ()
        self.sampling = self.exacting = 0.0
        self.bounds: dict[tuple[str, str], Bound] = {}
        self.peer_errors: dict[str, tuple[dict[str, Error], dict[str, str]]] = {}
        self.excluded: str | None = None

    def begin(self, session: Session) -> None:
        """The exact results while the helpers start, then the default: compiled, checked, timed once."""
        self.progress.show("exact results in float64", self.trials)
        self._expect(session, ORDINARY)
        self.exacting = time.perf_counter() - self.started
        self.progress.show("default schedule", self.trials)
        session.build([self.default], float("inf"))
        if self.default.failure is None:
            session.check(self.default)
        if self.default.failure is not None:
            raise InternalError(f"the default schedule of {self.task.request.program.name} does not run", self.default.failure,
                                "report it with the kernel and the shapes", self.task.request.program.loc)
        self.seen[self.default.code] = 0
        self.excluded = self._refused(session, self.default)
        if self.excluded is not None and self.task.reproducible:
            raise self._nothing_left()
        started = time.perf_counter()
        self.peers += rounds(session, [self.default], self._peer, 0.0, 2, 2)
        self.sampling = (time.perf_counter() - started) / 2

    def _expect(self, session: Session, kind: str) -> None:
        """Check on a kind of data from now on; hold the peer against float64 there."""
        made = changed(self.task.arguments, kind)
        self.probe = [as_numpy(a) for a in made]
        session.expect(kind, self.task.exact(made))
        if self.task.against is not None:
            self.peer_errors[kind] = compare({"peer": self.task.against}, changed(self.given, kind), session.exact)

    def search(self, session: Session) -> None:
        """Batches of candidates until the time for the search is over."""
        until = self.end - self._reserve()
        first = [r.decisions
                 for r in (*filter(None, [records.find(record_key(self.task.request))]), *records.similar(record_key(self.task.request)))]
        search = Search(self.task.seed, first)
        most = self.task.candidates if self.task.candidates is not None else 1 << 30
        while time.perf_counter() < until and len(self.trials) <= most:
            known = [Known(t.choices, t.speedup) for t in self.trials if t.choices]
            proposals = search.propose(known, min(BATCH, most + 1 - len(self.trials)))
            if not proposals:
                self.notes.append("the whole space was tried")
                return
            self._batch(session, proposals, until)

    def _reserve(self) -> float:
        """Seconds to keep for the confirmation: loading and checking the finalists, and some thirty rounds."""
        round_ = self.sampling * (FINALISTS + 2)
        return min(_CONFIRM_SHARE * self.task.budget, 1.5 + 30 * round_ + min(PATIENCE, 4 * len(self.kinds) * self.exacting))

    def _batch(self, session: Session, proposals: Sequence[Mapping[str, Any]], until: float) -> None:
        """Compile, check and time some candidates."""
        batch = [Trial(len(self.trials) + n, p, at=time.perf_counter() - self.started) for n, p in enumerate(proposals)]
        self.progress.show("compiling", self.trials)
        session.build(batch, until)
        tried = [t for t in batch if t.code or t.failure]
        self.trials += tried
        fresh = [t for t in tried if t.failure is None and self.seen.setdefault(t.code, t.number) == t.number]
        for t in tried:
            if t.failure is None and t not in fresh:
                t.failure = f"the same code as candidate {self.seen[t.code]}"
        sound = [t for t in fresh if self._sound(session, t)]
        self.progress.show("timing", self.trials)
        if sound:
            reference = Trial(0, {}, code=self.default.code)
            self.peers += rounds(session, [reference, *sound], self._peer, until, *_ROUNDS, hopeless=1.5)
            if reference.failure is not None:
                self.notes.append(f"the default schedule failed while it was timed: {reference.failure}")
            self.default.samples += reference.samples
            self.default.beside += reference.samples
        session.forget(fresh)
        self.progress.show("searching", self.trials)

    def _sound(self, session: Session, t: Trial) -> bool:
        """Run a candidate whose order is admitted; whether its results may be used."""
        t.failure = self._refused(session, t)
        if t.failure is not None:
            return False
        session.check(t)
        t.failure = t.failure or self._wrong(session.data, t)
        return t.failure is None

    def _wrong(self, kind: str, t: Trial) -> str | None:
        """Why a candidate's results on a kind of data may not be used: no worse than the default's are those that may."""
        mine, default = t.checked[kind], self.default.checked[kind]
        allowed, on = tolerance(default.error, self.dtypes), "" if kind == ORDINARY else f" on {kind} data"
        if not (mine.error.relative <= allowed or np.isnan(allowed)):
            return f"wrong results{on}: error {mine.error.relative:.1e}, {allowed:.1e} allowed"
        if self.task.reproducible and mine.bits != default.bits:
            return f"other bits than the default schedule{on} (reproducible=False admits it)"
        return None

    def _refused(self, session: Session, t: Trial) -> str | None:
        """Why a candidate's orders of summation are not admitted."""
        if self.task.reproducible and t.order != self.default.order:
            return f"another order of summation ({_difference(t.order, self.default.order)}; reproducible=False admits it)"
        if self.task.tolerance is None:
            return None
        t.bound = allowed = self._bound(session, t)
        if allowed.relative is None:
            return f"its error has no bound ({allowed.reason}), and a tolerance is asked for"
        return (f"its order allows an error of {allowed.relative:.1e}, {self.task.tolerance:.1e} tolerated"
                if allowed.relative > self.task.tolerance else None)

    def _bound(self, session: Session, t: Trial) -> Bound:
        """What a candidate's orders allow on the data at hand; evaluated once for each set of orders."""
        key = session.data, t.order
        if key not in self.bounds:
            plan = Plan(replace(self.task.request, decisions={c.name: c.value for c in t.choices}))
            self.bounds[key] = bound(plan, self.probe, session.exact)
        return self.bounds[key]

    def _nothing_left(self) -> ScheduleError:
        """Every order allows more than is tolerated."""
        known = [(t.bound.relative, t.number) for t in self.trials[1:] if t.bound is not None and t.bound.relative is not None]
        others = ""
        if known:
            least, number = min(known)
            others = f"; of {len(known)} others the least allows {least:.1e} ({self.default.changes(self.trials[number])})"
        remedy = "a larger tolerance" + (", or reproducible=False, which admits other orders" if self.task.reproducible else "")
        return ScheduleError(f"no schedule of {self.task.request.program.name} keeps within the tolerance of {self.task.tolerance:.1e}",
                             f"the default: {self.excluded}{others}", remedy, self.task.request.program.loc)

    def _peer(self) -> float | None:
        """One cold sample of the peer, in this process; a peer that fails is left alone from then on."""
        if self.task.against is None or self.peer_fails is not None:
            return None
        flush_caches()
        started = time.perf_counter_ns()
        try:
            self.task.against(*self.given)
        except Exception as e:  # whatever a peer raises is its result
            self.peer_fails = describe(e)
            self.notes.append(f"the peer failed: {self.peer_fails}")
            return None
        return max(time.perf_counter_ns() - started, 1) * 1e-9

    def confirm(self, session: Session) -> None:
        """The best candidates against the default in a process of their own."""
        self.progress.show("confirming in a fresh process", self.trials)
        enough = 0.0 if self.excluded else 1.0
        ranked = sorted((t for t in self.trials[1:] if (t.speedup or 0.0) > enough), key=lambda t: -(t.speedup or 0.0))[:FINALISTS]
        again = {t.number: replace(t, samples=[], beside=[], failure=None) for t in (self.default, *ranked)}
        session.renew()
        self._examine(session, list(again.values()))
        runners = [t for t in again.values() if t.failure is None]
        if again[0].failure is None:
            peers = rounds(session, runners, self._peer, self.end, *_CONFIRM_ROUNDS)
            if again[0].samples:
                self.finalists, self.peers = again, peers

    def _examine(self, session: Session, finalists: Sequence[Trial]) -> None:
        """Hold the finalists, the default first, against float64 on every kind of data, beside what their orders allow."""
        started = time.perf_counter()
        for kind in dict.fromkeys((ORDINARY, *self.kinds)):
            spent = time.perf_counter() - started
            if self.task.data is None and kind != ORDINARY and spent > PATIENCE:
                self.notes.append(left_out(self.kinds[self.kinds.index(kind):], spent))
                return
            self.progress.show(f"errors on {kind} data", self.trials)
            if session.data != kind:
                self._expect(session, kind)
            for t in finalists:
                session.check(t)
                t.failure = t.failure or self._wrong(kind, t)
                if self.task.data is not None or 3 * self.exacting < PATIENCE:
                    self._bound(session, t)

    def finish(self, interrupted: bool) -> TuneReport:
        """Decide, write the record, report."""
        confirmed = bool(self.finalists)
        pool = self.finalists or {t.number: t for t in self.trials}
        able = [t for t in pool.values() if self.excluded is None or (t.number and t.speedup is not None)]
        if not able:
            raise self._nothing_left()
        best = max(able, key=lambda t: t.speedup or 0.0)
        reason, winner = _verdict(best, self.excluded)
        default = pool[0] if confirmed else Trial(0, {}, samples=winner.beside)
        times = {"default": Measurement(tuple(default.samples), cold=True), "tuned": Measurement(tuple(winner.samples), cold=True)}
        if self.task.against is not None:
            times["peer"] = Measurement(tuple(self.peers), self.peer_fails, cold=True)
        chosen = self.trials[winner.number]
        rows = self._rows(chosen)
        record = self._record(chosen, times, confirmed, rows)
        records.save(record)
        return TuneReport(self.task.request.program.name, record, self.trials, chosen, times, reason, time.perf_counter() - self.started,
                          interrupted, self.notes, rows)

    def _rows(self, chosen: Trial) -> list[Row]:
        """The errors of the default, of what is used from now on and of the peer, on every kind of data that was come to."""
        sides = {"default": self.default, **({"tuned": chosen} if chosen.number else {})}
        out = []
        for kind in (k for k in self.kinds if k in self.default.checked):
            peers, failures = self.peer_errors.get(kind, ({}, {}))
            errors = {name: t.checked[kind].error for name, t in sides.items() if kind in t.checked}
            allowed = self.bounds.get((kind, chosen.order), TOO_LONG)
            out.append(Row(kind, {**errors, **peers}, allowed, list(sides)[-1], failures))
        return out

    def _record(self, best: Trial, times: Mapping[str, Measurement], confirmed: bool, rows: Sequence[Row]) -> records.Record:
        decisions = {c.name: c.value for c in best.choices} if best.number else {}
        versions = {"llvmlite": llvmlite.__version__, "torch": torch.__version__, "numpy": np.__version__}
        gain = ratio(times["default"], times["tuned"]).median if best.number else 1.0
        return records.Record(record_key(self.task.request), self.task.request.program.name, decisions,
                              {n: m.samples for n, m in times.items()}, gain, as_dict(rows), best.schedule, best.code, confirmed,
                              self.task.reproducible, best.order, versions, time.time(), self.task.budget, len(self.trials))


def _difference(order: str, default: str) -> str:
    """The first reduction whose order is another one."""
    known = set(default.splitlines())
    return next((line for line in order.splitlines() if line not in known), "fewer reductions")


def _verdict(best: Trial, excluded: str | None) -> tuple[str, Trial]:
    """Why, and which: the best candidate where it beats the default beyond noise or the default may not be used, else the default."""
    if best.number == 0:
        return "the default schedule is kept: nothing that was tried is faster beyond doubt", best
    pairs = [d / s for s, d in zip(best.samples, best.beside)]
    low, gain = (float(q) for q in np.quantile(pairs, [0.25, 0.5]))
    if excluded is not None:
        return f"{gain:.2f}x as fast as the default schedule, which is refused: {excluded}", best
    if low > 1.0 and gain >= BETTER:
        return f"{gain:.2f}x as fast as the default schedule", best
    reference = Trial(0, {}, samples=list(best.beside), beside=list(best.beside))
    return f"the default schedule is kept: the best candidate is {gain:.2f}x as fast, which is within noise", reference
