"""The search: propose, compile in parallel, check against the exact results, time beside the default, confirm in a fresh process.

The protocol, for those who doubt the figures. Every sample is one call with cold operands. Candidates are timed in turn with the default
schedule and the peer, in alternating order, and compared with the default round by round; the clock of a shared machine drifts by more
than two good schedules differ. The three best then meet the default again in a process in which nothing has run yet. A candidate is
taken when three quarters of the rounds there say that it is faster, and the median by at least two per cent.
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
from dlc.tune.accuracy import tolerance
from dlc.tune.bounds import Bound, bound
from dlc.tune.measure import Measurement, describe, flush_caches, ratio
from dlc.tune.outcome import TuneReport
from dlc.tune.progress import Progress
from dlc.tune.race import Race
from dlc.tune.search import Known, Search
from dlc.tune.session import HELPERS, Helpers, Session, Trial, rounds
from dlc.tune.worker import Work
from dsl.errors import InternalError
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
        exact: computes the exact results.
        against: the peer, called without arguments; None for none.
        budget: seconds.
        reproducible: admit only candidates that keep the default's orders of summation, and the bits of its results.
        candidates: the most to try; None for as many as the budget allows.
        tolerance: the largest relative error that a candidate's order may allow; None for any.
        seed: of the search.
        helpers: how helper processes are run.
    """

    request: Request
    arguments: Sequence[torch.Tensor]
    exact: Callable[[], Sequence[np.ndarray]]
    against: Callable[[], Any] | None = None
    budget: float = 30.0
    reproducible: bool = True
    seed: int = 0
    helpers: Helpers = HELPERS
    tolerance: float | None = None
    candidates: int | None = None


def tune(task: Task, progress: Progress) -> TuneReport:
    """Search until the budget is spent, the space is exhausted or the user stops it; write the record; tell what was found.

    Raises:
        InternalError: the default schedule does not run, or not right.
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
        self.allowed = self.sampling = 0.0
        self.bounds: dict[str, Bound] = {}

    def begin(self, session: Session) -> None:
        """The exact results while the helpers start, then the default: compiled, checked, timed once."""
        self.progress.show("exact results in float64", self.trials)
        session.exact = list(self.task.exact())
        self.progress.show("default schedule", self.trials)
        session.build([self.default], float("inf"))
        if self.default.failure is None:
            session.check(self.default)
        if self.default.failure is not None:
            raise InternalError(f"the default schedule of {self.task.request.program.name} does not run", self.default.failure,
                                "report it with the kernel and the shapes", self.task.request.program.loc)
        self.seen[self.default.code] = 0
        if self.task.tolerance is not None and (why := self._refused(session, self.default)) is not None:
            self.notes.append(f"the default schedule: {why}")
        assert self.default.error is not None
        dtypes = [a.dtype for a in self.task.arguments] + [torch.float32]
        self.allowed = tolerance(self.default.error, dtypes)
        started = time.perf_counter()
        self.peers += rounds(session, [self.default], self._peer, 0.0, 2, 2)
        self.sampling = (time.perf_counter() - started) / 2

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
        return min(_CONFIRM_SHARE * self.task.budget, 1.5 + 30 * round_)

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
        if t.error is not None and t.failure is None:
            if not t.error.relative <= self.allowed:
                t.failure = f"wrong results: error {t.error.relative:.1e}, {self.allowed:.1e} allowed"
            elif self.task.reproducible and t.bits != self.default.bits:
                t.failure = "other bits than the default schedule (reproducible=False admits it)"
        return t.failure is None

    def _refused(self, session: Session, t: Trial) -> str | None:
        """Why a candidate's orders of summation are not admitted."""
        if self.task.reproducible and t.order != self.default.order:
            return f"another order of summation ({_difference(t.order, self.default.order)}; reproducible=False admits it)"
        if self.task.tolerance is None:
            return None
        allowed = self._bound(session, t)
        if allowed.relative is None:
            return f"its error has no bound ({allowed.reason}), and a tolerance is asked for"
        return (f"its order allows an error of {allowed.relative:.1e}, {self.task.tolerance:.1e} tolerated"
                if allowed.relative > self.task.tolerance else None)

    def _bound(self, session: Session, t: Trial) -> Bound:
        """What a candidate's orders allow; evaluated once for each set of orders."""
        if t.order not in self.bounds:
            plan = Plan(replace(self.task.request, decisions={c.name: c.value for c in t.choices}))
            self.bounds[t.order] = bound(plan, [as_numpy(a) for a in self.task.arguments], session.exact)
        return self.bounds[t.order]

    def _peer(self) -> float | None:
        """One cold sample of the peer, in this process; a peer that fails is left alone from then on."""
        if self.task.against is None or self.peer_fails is not None:
            return None
        flush_caches()
        started = time.perf_counter_ns()
        try:
            self.task.against()
        except Exception as e:  # whatever a peer raises is its result
            self.peer_fails = describe(e)
            self.notes.append(f"the peer failed: {self.peer_fails}")
            return None
        return max(time.perf_counter_ns() - started, 1) * 1e-9

    def confirm(self, session: Session) -> None:
        """The best candidates against the default in a process of their own."""
        self.progress.show("confirming in a fresh process", self.trials)
        ranked = sorted((t for t in self.trials[1:] if (t.speedup or 0.0) > 1.0), key=lambda t: -(t.speedup or 0.0))[:FINALISTS]
        again = {t.number: Trial(t.number, t.decisions, t.choices, t.code, t.order, t.schedule, t.error, t.bits)
                 for t in (self.default, *ranked)}
        session.renew()
        for t in list(again.values()):
            session.check(t)
        runners = [t for t in again.values() if t.failure is None]
        if again[0].failure is None:
            peers = rounds(session, runners, self._peer, self.end, *_CONFIRM_ROUNDS)
            if again[0].samples:
                self.finalists, self.peers = again, peers

    def finish(self, interrupted: bool) -> TuneReport:
        """Decide, write the record, report."""
        confirmed = bool(self.finalists)
        pool = self.finalists or {t.number: t for t in self.trials}
        best = max(pool.values(), key=lambda t: t.speedup or 0.0)
        reason, winner = _verdict(best)
        default = pool[0] if confirmed else Trial(0, {}, samples=winner.beside)
        times = {"default": Measurement(tuple(default.samples), cold=True), "tuned": Measurement(tuple(winner.samples), cold=True)}
        if self.task.against is not None:
            times["peer"] = Measurement(tuple(self.peers), self.peer_fails, cold=True)
        chosen = self.trials[winner.number]
        record = self._record(chosen, times, confirmed)
        records.save(record)
        return TuneReport(self.task.request.program.name, record, self.trials, chosen, times, reason, time.perf_counter() - self.started,
                          interrupted, self.notes)

    def _record(self, best: Trial, times: Mapping[str, Measurement], confirmed: bool) -> records.Record:
        decisions = {c.name: c.value for c in best.choices} if best.number else {}
        errors = {name: t.error.relative for name, t in (("default", self.default), ("tuned", best)) if t.error is not None}
        versions = {"llvmlite": llvmlite.__version__, "torch": torch.__version__, "numpy": np.__version__}
        gain = ratio(times["default"], times["tuned"]).median if best.number else 1.0
        return records.Record(record_key(self.task.request), self.task.request.program.name, decisions,
                              {n: m.samples for n, m in times.items()}, gain, errors, best.schedule, best.code, confirmed,
                              self.task.reproducible, best.order, versions, time.time(), self.task.budget, len(self.trials))


def _difference(order: str, default: str) -> str:
    """The first reduction whose order is another one."""
    known = set(default.splitlines())
    return next((line for line in order.splitlines() if line not in known), "fewer reductions")


def _verdict(best: Trial) -> tuple[str, Trial]:
    """Why, and which: the best candidate where it beats the default beyond noise, else the default."""
    if best.number == 0:
        return "the default schedule is kept: nothing that was tried is faster beyond doubt", best
    pairs = [d / s for s, d in zip(best.samples, best.beside)]
    low, gain = (float(q) for q in np.quantile(pairs, [0.25, 0.5]))
    if low > 1.0 and gain >= BETTER:
        return f"{gain:.2f}x as fast as the default schedule", best
    reference = Trial(0, {}, samples=list(best.beside), beside=list(best.beside))
    return f"the default schedule is kept: the best candidate is {gain:.2f}x as fast, which is within noise", reference
