"""Tuning the kernels of a recorded step where they stand: on the arrays that they meet in it, and by what the step gains."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from dlc import records
from dlc.compiler import collector_paused, record_key
from dlc.lazy import lazy
from dlc.realize.frozen import Frozen
from dlc.realize.generated import Generated
from dlc.runtime.arguments import as_numpy
from dlc.runtime.launch import Launcher
from dlc.tune.measure import Measurement, ratio
from dlc.tune.steps import Part, StepReport, Wish, allotted, noise_of, turns
from dsl.errors import DlcError

if TYPE_CHECKING:
    from dlc.tune import progress as bars
    from dlc.tune import tuner
    from dsl import interp
else:
    bars, tuner, interp = lazy("dlc.tune.progress"), lazy("dlc.tune.tuner"), lazy("dsl.interp")

_ROUNDS = 7, 100  # of the whole step, as time allows: the noise of its median decides what is worth a search
_SHARE = 0.1  # of the budget, for measuring the whole step first, and again in the end
_BESIDE = 9, 15, 1.0  # rounds of the step with a kernel as it was and as it is: at least, at most, and seconds


def tune_step(name: str, frozen: Frozen, given: Sequence[torch.Tensor], wish: Wish) -> StepReport:
    """Tune the kernels of a plan, the largest first; what is found is used at once by every plan that launches them.

    Args:
        name: of the step.
        frozen: the plan.
        given: the arrays that it reads; nothing is written to them.
        wish: how to tune.
    """
    return _Tuning(name, frozen, given, wish).run()


class _Tuning:
    """The state of tuning one step."""

    def __init__(self, name: str, frozen: Frozen, given: Sequence[torch.Tensor], wish: Wish) -> None:
        self.name, self.frozen, self.given, self.wish = name, frozen, list(given), wish
        self.started = time.perf_counter()
        self.parts: dict[Generated, Part] = {}
        self.before: dict[Generated, Launcher] = {}

    def run(self) -> StepReport:
        """From the shares of the kernels to the comparison of the whole step."""
        with self._bar(self.name) as bar:
            bar.show("measuring the step", ())
            whole = self._shares()
        times = {"before": whole, "after": whole}
        interrupted = False
        try:
            self._search(whole)
        except KeyboardInterrupt:
            interrupted = True
        try:
            if any(part.kept for part in self.parts.values()):
                with self._bar(self.name) as bar:
                    bar.show("measuring the step as it was and as it is", ())
                    times = self._beside(None, _ROUNDS[0], _ROUNDS[1], _SHARE * self.wish.budget)
        except KeyboardInterrupt:
            interrupted = True
        parts = sorted(self.parts.values(), key=lambda p: -p.share)
        return StepReport(self.name, parts, times, time.perf_counter() - self.started, interrupted)

    def _bar(self, name: str, seconds: float | None = None) -> bars.Progress:
        return bars.Progress(name, seconds or self.wish.budget, self.wish.progress)

    # -- measuring ---------------------------------------------------------------------------------------------
    def _timed(self) -> tuple[float, dict[Generated, float]]:
        """Seconds of one step, and of all launches of each kernel in it."""
        spent: dict[Generated, float] = {}
        started = time.perf_counter()
        for step, inputs, outs in self.frozen.launches(self.given):
            began = time.perf_counter()
            step.launcher(inputs, outs)
            spent[step.kernel] = spent.get(step.kernel, 0.0) + time.perf_counter() - began
        return time.perf_counter() - started, spent

    def _shares(self) -> Measurement:
        """Find the kernels, and what each takes of the step; the times of the whole."""
        launches: dict[Generated, int] = {}
        for step, inputs, outs in self.frozen.launches(self.given):
            step.launcher(inputs, outs)
            launches[step.kernel] = launches.get(step.kernel, 0) + 1
        until = time.perf_counter() + _SHARE * self.wish.budget
        found: list[tuple[float, dict[Generated, float]]] = []
        with collector_paused():
            while len(found) < _ROUNDS[0] or (len(found) < _ROUNDS[1] and time.perf_counter() < until):
                found.append(self._timed())
        whole = Measurement(tuple(seconds for seconds, _ in found))
        for kernel, count in launches.items():
            seconds = Measurement(tuple(spent[kernel] for _, spent in found)).median
            self.parts[kernel] = Part(kernel.request.program.name, kernel.request, count, seconds, seconds / whole.median)
            self.before[kernel] = kernel.launcher
        return whole

    def _beside(self, kernel: Generated | None, least: int, most: int, seconds: float) -> dict[str, Measurement]:
        """Times of a kernel (of the whole step for None) in the step as it was and as it is now, in turn, in alternating order."""
        now = {k: k.launcher for k in self.parts}
        sides = {"before": self.before if kernel is None else {kernel: self.before[kernel]}, "after": now}
        samples: dict[str, list[float]] = {name: [] for name in sides}
        until = time.perf_counter() + seconds
        try:
            with collector_paused():
                for n in range(most):
                    if n >= least and time.perf_counter() > until:
                        break
                    for side in sides if n % 2 else reversed(sides):
                        _use(sides[side])
                        whole, spent = self._timed()
                        samples[side].append(whole if kernel is None else spent[kernel])
        finally:
            _use(now)
        return {side: Measurement(tuple(own)) for side, own in samples.items()}

    # -- searching ---------------------------------------------------------------------------------------------
    def _search(self, whole: Measurement) -> None:
        """Give each kernel its turn while there is time."""
        known = {id(part): kernel for kernel, part in self.parts.items()}
        found = [records.find(record_key(kernel.request)) for kernel in self.parts]
        waiting = turns(list(self.parts.values()), found, noise_of(whole.samples), self.wish)
        end = self.started + self.wish.budget - min(_SHARE * self.wish.budget, 2 * _ROUNDS[1] * whole.median)
        for n, part in enumerate(waiting):
            seconds = allotted(waiting[n:], end - time.perf_counter())
            if not seconds:
                return
            label = f"{n + 1} of {len(waiting)}: {part.name}, {part.share:.0%} of {self.name}"
            part.reason = "stopped by the user"
            try:
                self._tune(known[id(part)], part, seconds, label)
            except DlcError as e:
                part.reason = f"could not be tuned: {e.title}"
            if part.report is not None and part.report.interrupted:
                raise KeyboardInterrupt

    def _tune(self, kernel: Generated, part: Part, seconds: float, label: str) -> None:
        """Search for a kernel, and use what is found if the step is not slower for it."""
        request, earlier = part.request, records.find(record_key(part.request))
        arguments = self._arguments(kernel)

        def exact(given: Sequence[Any]) -> Any:
            return interp.evaluate(request.program, *map(as_numpy, given), float64=True)

        task = tuner.Task(request, arguments, exact, budget=seconds, reproducible=self.wish.reproducible, seed=self.wish.seed,
                          candidates=self.wish.candidates)
        report = part.report = tuner.tune(task, self._bar(label, seconds))
        part.reason = report.reason
        if report.record.decisions == (earlier.decisions if earlier else {}):
            return
        kernel.renew()
        part.times = self._beside(kernel, *_BESIDE)
        gain = ratio(part.times["before"], part.times["after"])
        part.kept = not gain.p75 < 1
        if not part.kept:
            default = report.history[0]
            records.save(earlier or replace(report.record, decisions={}, ratio=1.0, schedule=default.schedule, code=default.code,
                                            order=default.order))
            kernel.launcher = self.before[kernel]
            part.reason += f"; not used, since in the step it is slower, {gain}"

    def _arguments(self, kernel: Generated) -> list[torch.Tensor]:
        """What the kernel is first launched with; the step is computed up to there."""
        for step, inputs, outs in self.frozen.launches(self.given):
            if step.kernel is kernel:
                return inputs
            step.launcher(inputs, outs)
        raise AssertionError(kernel.request.program.name)


def _use(launchers: Mapping[Generated, Launcher]) -> None:
    for kernel, launcher in launchers.items():
        kernel.launcher = launcher
