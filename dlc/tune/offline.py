"""Tuning for a GPU that is not here: compile, refuse what cannot be fast, rank the rest by a model, check the best by emulation.

Candidates come from the same search as on a CPU and are compiled in the same helper processes, which may crash or hang. Refused is what
spills, what the device would not launch, and what has its warpgroup products serialised. The rest is ranked by the least time of
``dlc/gpu_model.py``; the best are run with no GPU at small sizes, and one whose results are wrong is refused too. Where the GPU is
present after all, the finalists are timed on it and the fastest is taken.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from codegen.tile.text import show
from dlc import records
from dlc.compiler import Plan, Request, record_key
from dlc.config import settings
from dlc.gpu_launch import GpuLauncher, present
from dlc.gpu_model import supposed
from dlc.lazy import lazy
from dlc.runtime.arguments import torch_dtype
from dlc.tune.outcome import OfflineReport
from dlc.tune.progress import Progress
from dlc.tune.race import Race
from dlc.tune.search import Known, Search
from dlc.tune.session import HELPERS, Helpers, Session, Trial
from dlc.tune.worker import Work
from dsl.bind import bind_sizes
from dsl.dim import Var
from dsl.errors import DlcError, InternalError
from dsl.portable import dumps
from dsl.program import Program

triton = lazy("triton")

BATCH, FINALISTS = 6, 3
WIDER = 4  # schedules planned for each one compiled
BETTER = 1.02
_ELEMENTS = 1 << 15  # of a tensor of the small sizes
_CHECK_SHARE = 0.4  # of the budget, at most, for emulation
_EMULATION = 60.0  # seconds after which one is given up


def tune_offline(request: Request, budget: float, progress: Progress, reproducible: bool = True, seed: int = 0,
                 candidates: int | None = None, helpers: Helpers = HELPERS) -> OfflineReport:
    """Search until the budget is spent, the space is exhausted or the user stops it; write the record; tell what was found.

    Args:
        request: for a GPU target; ``decisions`` None.
        budget: seconds.
        progress: where to show it.
        reproducible: admit only candidates that add up in the default's order.
        seed: of the search.
        candidates: try no more than so many.
        helpers: how helper processes are run.

    Raises:
        InternalError: the default schedule does not compile.
    """
    work = Work(dumps(request.program), request.shapes, request.strides, request.target, request.reproducible)
    run = _Run(request, budget, progress, reproducible, seed, candidates)
    with Session(work, [], 1, settings().jobs, helpers) as session, progress:
        interrupted = run.go(session)
    return run.finish(interrupted)


class _Run(Race):
    """The state of one search."""

    def __init__(self, request: Request, budget: float, progress: Progress, reproducible: bool, seed: int, candidates: int | None) -> None:
        super().__init__(budget, progress, "the best so far was not run under emulation")
        self.request, self.budget, self.reproducible, self.seed = request, budget, reproducible, seed
        self.most = candidates if candidates is not None else 1 << 30
        self.checked: set[int] = set()
        self.measured: dict[int, float] = {}
        self.planned: set[str] = set()
        self.skipped = 0

    def begin(self, session: Session) -> None:
        """Compile the default."""
        self.progress.show("default schedule", self.trials)
        session.build([self.default], float("inf"))
        if not self.default.code:
            raise InternalError(f"the default schedule of {self.request.program.name} does not compile for {self.request.target.name}",
                                self.default.failure or "", "report it with the kernel and the shapes", self.request.program.loc)
        if self.default.failure is not None:
            self.notes.append(f"the default schedule: {self.default.failure}")
        self.seen[self.default.code] = 0

    def search(self, session: Session) -> None:
        """Batches of candidates until the time for the search is over."""
        until = self.end - min(_CHECK_SHARE * self.budget, 2.0 * FINALISTS)
        key = record_key(self.request)
        first = [r.decisions for r in (*filter(None, [records.find(key)]), *records.similar(key))]
        search = Search(self.seed, first)
        while time.perf_counter() < until and len(self.trials) <= self.most and self.goes_on(max(
                (1.0 / t.least for t in self.trials if t.least), default=0.0)):
            known = [Known(t.choices, None if t.least is None else 1.0 / t.least) for t in self.trials if t.choices]
            proposals = search.propose(known, WIDER * BATCH)
            if not proposals:
                self.notes.append("the whole space was tried")
                return
            self.progress.show("compiling", self.trials)
            self._batch(session, self._promising(proposals)[:min(BATCH, self.most + 1 - len(self.trials))], until)

    def _promising(self, proposals: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Proposals by their bounds before compilation.

        Without what is the same tile program, cannot be scheduled, or adds up otherwise.
        """
        found: list[tuple[float, int, Mapping[str, Any]]] = []
        for n, p in enumerate(proposals):
            plan = Plan(replace(self.request, decisions=dict(p)))
            try:
                text = show(plan.tile, places=False)
                if text in self.planned or (self.reproducible and plan.order != self.default.order):
                    self.skipped += 1
                    continue
                self.planned.add(text)
                found.append((sum(e.seconds for e in supposed(plan.tile, self.request.target)), n, p))
            except DlcError:
                self.skipped += 1
        self.skipped += max(len(found) - BATCH, 0)
        return [p for _, _, p in sorted(found, key=lambda f: f[:2])]

    def _batch(self, session: Session, proposals: Sequence[Mapping[str, Any]], until: float) -> None:
        """Compile some candidates and judge what comes out."""
        batch = [Trial(len(self.trials) + n, p, at=time.perf_counter() - self.started) for n, p in enumerate(proposals)]
        session.build(batch, until)
        tried = [t for t in batch if t.code or t.failure]
        self.trials += tried
        for t in tried:
            self._judge(t)

    def _judge(self, t: Trial) -> None:
        """Refuse what is there already, and what adds up otherwise."""
        if t.failure is None and self.seen.setdefault(t.code, t.number) != t.number:
            t.failure = f"the same code as candidate {self.seen[t.code]}"
        elif t.failure is None and self.reproducible and t.order != self.default.order:
            t.failure = "another order of summation (reproducible=False admits it)"

    def ranked(self) -> list[Trial]:
        """What is left in the race, the least time first; of equals the earlier."""
        return sorted((t for t in self.trials if t.least is not None), key=lambda t: (t.least or 0.0, t.number))

    def confirm(self, session: Session) -> None:
        """Run the best under emulation at small sizes; what is wrong leaves the race and the next one comes up."""
        small, arguments = small_work(self.request)
        while time.perf_counter() < self.end or not self.checked:
            todo = [t for t in self.ranked()[:FINALISTS] if t.number not in self.checked]
            if not todo:
                break
            t = todo[0]
            self.progress.show(f"emulating candidate {t.number}", self.trials)
            t.failure = session.emulate(t, small, arguments, min(_EMULATION, max(self.end - time.perf_counter(), 10.0)))
            self.checked.add(t.number)
            if t.number == 0 and t.failure is not None:
                self.notes.append(f"the default schedule: {t.failure}")
        if present(self.request.target.name):
            self.measured = _measured(self.request, self.ranked()[:FINALISTS], self.default)

    def finish(self, interrupted: bool) -> OfflineReport:
        """Decide, write the record, report."""
        best, reason = self._winner()
        if self.skipped:
            self.notes.append(f"{self.skipped} further schedules were planned and not compiled: the same as others, of another "
                              "order, or of larger bounds")
        record = self._record(best)
        records.save(record)
        return OfflineReport(self.request.program.name, record, self.trials, best, reason, time.perf_counter() - self.started, interrupted,
                             tuple(self.notes), frozenset(self.checked), dict(self.measured))

    def _winner(self) -> tuple[Trial, str]:
        if self.measured:
            number = min(self.measured, key=lambda n: self.measured[n])
            gain = self.measured[0] / self.measured[number]
            return self.trials[number], f"{gain:.2f}x as fast as the default schedule, measured on the GPU"
        ranked = self.ranked()
        if not ranked:
            return self.default, "the default schedule is kept: nothing else is left"
        best, default = ranked[0], self.default.least
        if best.number == 0 or best.least is None or (default is not None and default / best.least < BETTER):
            return self.default, "the default schedule is kept: no other has a bound lower by two per cent"
        if default is None:
            return best, f"candidate {best.number}: the default is refused ({self.default.failure})"
        return best, f"candidate {best.number}: its bound is {best.least * 1e6:.1f} us, that of the default {default * 1e6:.1f} us"

    def _record(self, best: Trial) -> records.Record:
        decisions = {c.name: c.value for c in best.choices} if best.number else {}
        versions = {"triton": triton.__version__, "torch": torch.__version__}
        gain = self.default.least / best.least if best.number and self.default.least and best.least else 1.0
        seconds = {"default": [self.measured[0]], "tuned": [self.measured[best.number]]} if self.measured else {}
        return records.Record(record_key(self.request), self.request.program.name, decisions, seconds, gain, {}, best.schedule, best.code,
                              bool(self.measured), self.reproducible, best.order, versions, time.time(),
                              self.budget if self.budget < math.inf else 0.0, len(self.trials),
                              {str(t.number): t.failure or f"bound {(t.least or 0.0) * 1e6:.2f} us" for t in self.trials})


# -- small sizes ---------------------------------------------------------------------------------------------------
def small_work(request: Request) -> tuple[Work, bytes]:
    """The kernel at sizes that can be emulated, and arguments for it, pickled.

    The largest symbolic sizes are halved until every tensor is small; odd sizes stay odd, so that ragged edges stay ragged.
    """
    program = request.program
    sizes = dict(bind_sizes(program, request.shapes))
    while True:
        shapes = _shapes(program, sizes)
        large = [t for t, s in zip(program.inputs, shapes) if _count(s) > _ELEMENTS]
        able = [v for v in sizes if sizes[v] > 16 and any(v in n.vars for t in large for n in t.shape)]
        if not able:
            break
        v = max(able, key=lambda v: sizes[v])
        sizes[v] = sizes[v] // 2 | (sizes[v] & 1)
    generator = torch.Generator().manual_seed(0)
    tensors = [_random(t, s, min(sizes.values(), default=2), generator) for t, s in zip(program.inputs, shapes)]
    strides = [t.stride() for t in tensors]
    work = Work(dumps(program), tuple(shapes), tuple(tuple(s) for s in strides), request.target, request.reproducible)
    return work, pickle.dumps(tensors, protocol=5)


def _shapes(program: Program, sizes: Mapping[Var, int]) -> list[tuple[int, ...]]:
    return [tuple(int(n.eval(sizes)) for n in t.shape) for t in program.inputs]


def _count(shape: Sequence[int]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out


def _random(t: Any, shape: tuple[int, ...], least: int, generator: torch.Generator) -> torch.Tensor:
    dtype = torch_dtype(t.dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, max(min(least, 8), 1), shape, generator=generator).to(dtype)


# -- with a GPU after all ------------------------------------------------------------------------------------------
def _measured(request: Request, finalists: Sequence[Trial], default: Trial) -> dict[int, float]:
    """Seconds of the default and the finalists on the GPU that is here; those that fail are left out."""
    tensors = [torch.empty_strided(s, d, dtype=torch_dtype(t.dtype), device="cuda").zero_() for t, s, d in
               zip(request.program.inputs, request.shapes, request.strides)]
    out: dict[int, float] = {}
    for t in dict.fromkeys([default.number, *(f.number for f in finalists)]):
        trial = next(x for x in (default, *finalists) if x.number == t)
        try:
            out[t] = GpuLauncher(Plan(replace(request, decisions=dict(trial.decisions)))).seconds(tensors)
        except DlcError as e:
            trial.fail(e)
    return out if default.number in out else {}
