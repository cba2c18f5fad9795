"""Steps tuned as a whole: the same bits, records for every process, faster kernels in use at once, slower ones put back, Ctrl-C obeyed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dlc
from dlc import nn, optim, records
from dlc.compiler import Plan, record_key
from dlc.jit import Jit
from dlc.realize import tuning, untuned
from dlc.records import Record
from dlc.tape.mode import mode
from dlc.train import train_step
from dlc.tune import steps, tuner
from dlc.tune.measure import Measurement, Ratio
from dlc.tune.outcome import TuneReport
from dlc.tune.session import Trial
from dsl.errors import ArgumentError, InternalError, UserError

X, Y = torch.randn(24, 40), torch.randint(0, 4, (24,))


@pytest.fixture(autouse=True)
def steady(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No records at first, and every kernel worth a search, however busy the machine is."""
    monkeypatch.setattr(tuning, "noise_of", lambda samples: 0.0)
    monkeypatch.setattr(steps, "_NOISE", 0.0)


def network(width: int = 48) -> tuple[Jit, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, width), nn.ReLU(), nn.Linear(width, 4))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    @dlc.jit
    def step(x: Any, y: Any) -> Any:
        return train_step(model, nn.cross_entropy, optimizer, x, y)

    return step, model


def state(model: nn.Module) -> list[list[float]]:
    return [p.tolist() for p in model.parameters()]


def another(request: Any) -> tuple[dict[str, Any], Plan]:
    """A schedule that is not the default one, as decisions."""
    plan = Plan(request)
    assert plan.nest is not None
    for c in plan.decisions.made.values():
        for value in c.options:
            if value != c.value:
                return {c.name: value}, plan
    return {}, plan


def pretend(calls: list[str], gain: float | None = None) -> Callable[..., TuneReport]:
    """A search that takes no time: it finds another schedule where there is one and a gain, else keeps the default."""
    def tune(task: Any, progress: Any) -> TuneReport:
        calls.append(task.request.program.name)
        assert all(torch.is_tensor(a) for a in task.arguments) and task.exact(task.arguments)
        decisions = another(task.request)[0] if gain else {}
        record = Record(record_key(task.request), task.request.program.name, decisions, {}, gain or 1.0)
        records.save(record)
        default, best = Trial(0, {}), Trial(1, decisions)
        times = {"default": Measurement((1e-3,))}
        return TuneReport(record.name, record, [default, best], best if decisions else default, times, "as told", 0.1)

    return tune


def test_a_search_of_a_step_keeps_its_bits_and_counts_as_its_calls() -> None:
    step, model = network()
    report = step.tune(X, Y, budget=8.0, candidates=2, progress=False)
    plain, other = network()
    losses = [plain(X, Y).item() for _ in range(3)]
    assert state(model) == state(other) and report.result.item() == losses[-1]
    assert [step(X, Y).item() for _ in range(3)] == [plain(X, Y).item() for _ in range(3)]
    searched = [p for p in report.parts if p.report is not None]
    assert searched and report.seconds < 30 and searched == list(report.parts[:len(searched)])
    for p in searched:
        assert records.find(record_key(p.request)) is not None and len([t for t in p.report.history[1:] if t.code]) <= 2
    assert sum(p.share for p in report.parts) <= 1.0 and all(p.reason for p in report.parts)
    assert report.name == "step" and len(report.times["before"].samples) >= 7


def test_what_is_found_is_used_at_once_and_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(tuner, "tune", pretend(calls, 1.5))
    monkeypatch.setattr(tuning, "ratio", lambda a, b: Ratio(1.5, 1.4, 1.6, 9))
    step, model = network(56)
    other, beside = network(56)
    launchers = {id(s.kernel): s.launcher for s in _steps(step)}
    report = step.tune(X, Y, budget=60, progress=False)
    assert report.improved and calls == [p.name for p in report.parts if p.report is not None]
    kept = [p for p in report.parts if p.kept]
    assert kept and all(p.times["before"].samples and p.times["after"].samples for p in kept)
    now = {id(s.kernel): s for s in _steps(step)}
    for n, launcher in launchers.items():
        assert (now[n].launcher is not launcher) == (now[n].program.name in [p.name for p in kept])
    assert [other(X, Y).item() for _ in range(3)][-1] == pytest.approx(report.result.item())
    for ours, theirs in zip(model.parameters(), beside.parameters()):
        torch.testing.assert_close(ours.torch(), theirs.torch())
    again = step.tune(X, Y, budget=60, progress=False)
    assert len(calls) == len(kept) and not again.improved and "tuned already (1.50x" in again.parts[0].reason
    step.tune(X, Y, budget=60, progress=False, again=True)
    assert len(calls) == 2 * len(kept)


def _steps(step: Jit) -> list[Any]:
    """The launches of its recording; it is called until there is one."""
    while not step.recordings:
        step(X, Y)
    (replay,) = next(iter(step._known.values()))
    return [s for s in replay._plan.steps if hasattr(s, "kernel")]


def test_what_makes_the_step_slower_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "tune", pretend([], 1.5))
    monkeypatch.setattr(tuning, "ratio", lambda a, b: Ratio(0.8, 0.7, 0.9, 9))
    step, _ = network(60)
    before = [s.launcher for s in _steps(step)]
    report = step.tune(X, Y, budget=60, progress=False)
    assert not report.improved and report.ratio.median == 1.0
    assert [s.launcher for s in _steps(step)] == before
    tried = [p for p in report.parts if p.report is not None]
    assert tried and all("not used, since in the step it is slower, 0.80x" in p.reason for p in tried if p.times)
    assert all(records.find(record_key(p.request)).decisions == {} for p in tried)


def test_a_kernel_that_cannot_be_tuned_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fine = pretend(calls)

    def tune(task: Any, progress: Any) -> TuneReport:
        if not calls:
            calls.append(task.request.program.name)
            raise InternalError("the default schedule does not run")
        return fine(task, progress)

    monkeypatch.setattr(tuner, "tune", tune)
    report = network(64)[0].tune(X, Y, budget=60, progress=False)
    assert report.parts[0].reason == "could not be tuned: the default schedule does not run" and len(calls) > 1
    assert report.parts[1].reason == "as told"


def test_ctrl_c_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    found = pretend(calls, 1.5)

    def tune(task: Any, progress: Any) -> TuneReport:
        if calls:
            raise KeyboardInterrupt
        return found(task, progress)

    monkeypatch.setattr(tuner, "tune", tune)
    monkeypatch.setattr(tuning, "ratio", lambda a, b: Ratio(1.5, 1.4, 1.6, 9))
    step, _ = network(68)
    report = step.tune(X, Y, budget=60, progress=False)
    assert report.interrupted and report.improved and report.parts[0].kept and report.parts[1].reason == "stopped by the user"
    assert records.find(record_key(report.parts[0].request)).decisions
    assert step(X, Y).item() > 0


def test_time_that_is_over_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fine = pretend(calls)

    def tune(task: Any, progress: Any) -> TuneReport:
        time.sleep(0.5)
        return fine(task, progress)

    monkeypatch.setattr(tuner, "tune", tune)
    monkeypatch.setattr(steps, "LEAST", 0.3)
    report = network(72)[0].tune(X, Y, budget=1.2, progress=False)
    assert calls and any(p.reason == "no time was left for it in 1.2 s" for p in report.parts)


def test_bad_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step, model = network(76)
    before = state(model)
    with pytest.raises(ArgumentError, match="budget"):
        step.tune(X, Y, budget=0)
    with pytest.raises(ArgumentError, match="launches no kernels"):
        dlc.jit(lambda x: x).tune(X)
    with pytest.raises(ArgumentError, match="launches no kernels"):
        dlc.jit(lambda: 3).tune()
    with pytest.raises(UserError, match="meta"):
        step.tune(X.to("meta"), Y)
    with pytest.raises(UserError, match="tuning records are switched off"), untuned():
        step.tune(X, Y)
    monkeypatch.setenv("DLC_RECORDS", "off")
    with pytest.raises(UserError, match="tuning records are switched off"):
        step.tune(X, Y)
    monkeypatch.delenv("DLC_RECORDS")
    assert state(model) == before

    inner = dlc.jit(lambda x: x * 2)

    @dlc.jit
    def outer(x: Any) -> Any:
        return inner.tune(x, progress=False).result if mode.recording is not None else x * 2

    outer(X)
    with pytest.raises(UserError, match="inside of a function that is recorded"):
        outer(X)
