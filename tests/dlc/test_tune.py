"""Tuning from end to end: results unchanged, records found, what crashes, hangs or errs left aside, the user's Ctrl-C obeyed."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dlc
from dlc import f32, records
from dlc.tune.progress import Progress
from dlc.tune.session import Helpers
from dlc.tune.tuner import Task, tune
from dsl.errors import ArgumentError, InternalError, ScheduleError
from dsl.interp import evaluate

ROOT = Path(__file__).resolve().parents[2]
M, N, K = dlc.dims("M N K")


@dlc.kernel
def scaled(x: f32[M, N]):
    return x * 2.0 + 1.0


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


@pytest.fixture(autouse=True)
def fresh(cache_dir: Path) -> Path:
    return cache_dir


def task(kernel, *tensors, **options) -> Task:
    request = kernel.request([t.shape for t in tensors], [t.stride() for t in tensors])
    return Task(request, tensors, lambda given: evaluate(kernel.program, *[t.numpy() for t in given], float64=True), **options)


def quiet(budget: float = 5.0) -> Progress:
    return Progress("", budget, shown=False)


def test_tuning_keeps_the_bits_and_leaves_a_record() -> None:
    x, w = torch.randn(96, 64), torch.randn(64, 80).t().contiguous().t()
    before = product(x, w)
    report = product.tune(x, w, budget=60, candidates=8, against=torch.matmul, progress=False)
    assert torch.equal(product(x, w), before)
    found = records.find(report.record.key)
    assert found == report.record and found.confirmed and found.candidates == len(report.history) > 3
    assert len(found.seconds["default"]) >= 5 and len(found.seconds["peer"]) >= 5
    assert report.peer_ratio is not None and report.peer_ratio.pairs >= 5
    assert found.decisions == ({c.name: c.value for c in report.best.choices} if report.improved else {})
    assert product.plan(x, w).record == found
    plain = report.as_dict()
    assert list(plain["data"]) == ["ordinary", "offset", "cancel", "denormal", "extreme"] and plain["data"] == report.record.data
    for row in plain["data"].values():
        assert set(row["errors"]) == {"default", "peer", *(["tuned"] if report.improved else [])} and row["bound"] > 0
        assert all(e["relative"] <= row["bound"] for name, e in row["errors"].items() if name != "peer")
    assert plain["improved"] == report.improved and len(plain["history"]) == len(report.history)
    assert product.__name__ in str(report)


def test_other_orders_of_summation_are_admitted_on_request_only() -> None:
    x = torch.randn(64, 512)
    strict = tune(task(softmax, x, budget=60.0, candidates=8), quiet())
    assert len({t.checked["ordinary"].bits for t in strict.history if t.samples}) == 1
    assert any("another order of summation (sum: " in (t.failure or "") for t in strict.history)
    assert {t.order for t in strict.history if t.samples} == {strict.record.order} == {softmax.order(x)}
    free = tune(task(softmax, x, budget=60.0, candidates=8, reproducible=False), quiet())
    assert len({t.checked["ordinary"].bits for t in free.history if t.samples}) > 1
    default = free.history[0].error
    assert default is not None
    assert all(t.error is not None and t.error.relative <= max(4 * default.relative, 8 * 2**-23) for t in free.history if t.samples)


@dlc.kernel
def total(x: f32[M, N]):
    return dlc.sum(x, 1)


ROWS, MOST = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)), 6


@functools.cache
def bounds_of_orders() -> list[tuple[float, str]]:
    """What each order allows that a search of so many candidates comes to, the least first; and its name."""
    found = tune(task(total, ROWS, budget=60.0, candidates=MOST, reproducible=False, tolerance=1.0), quiet())
    return sorted({(t.bound.relative, t.order) for t in found.history if t.bound is not None and t.bound.relative is not None})


def test_a_tolerance_between_two_orders_admits_one_and_refuses_the_other() -> None:
    x, known = ROWS, bounds_of_orders()
    default = next(n for n, (_, order) in enumerate(known) if order == total.order(x))
    assert 0 < default < len(known) - 1, "the default is neither the best nor the worst of its orders"
    between = (known[default][0] + known[default + 1][0]) / 2
    report = total.tune(x, budget=60, candidates=MOST, reproducible=False, tolerance=between, progress=False)
    (worse, name), *_ = known[default + 1:]
    refused = next(t for t in report.history if t.order == name)
    why = f"its order allows an error of {worse:.1e}, {between:.1e} tolerated"
    assert refused.failure == why and not refused.samples and why in str(report)
    assert why in [t["failure"] for t in report.as_dict()["history"]]
    assert report.best.order in [order for allowed, order in known if allowed <= between] and report.record.order == report.best.order
    assert all(t.bound.relative <= between for t in report.history if t.samples)
    (ordinary, *_) = report.rows
    assert max(e.relative for e in ordinary.errors.values()) <= ordinary.bound.relative <= between


def test_a_default_beyond_the_tolerance_gives_way_even_to_a_slower_schedule() -> None:
    x, known = ROWS, bounds_of_orders()
    between = (known[0][0] + known[1][0]) / 2
    report = total.tune(x, budget=60, candidates=MOST, reproducible=False, tolerance=between, progress=False)
    assert report.improved and report.best.order == known[0][1] and "which is refused: its order allows" in report.reason
    assert total.plan(x).order == known[0][1] and report.rows[0].bound.relative <= between and report.rows[0].bounded == "tuned"


def test_a_tolerance_that_nothing_keeps_is_an_error() -> None:
    x = torch.randn(64, 512)
    with pytest.raises(ScheduleError) as strict:
        total.tune(x, budget=60, tolerance=1e-9, progress=False)
    text = str(strict.value)
    assert "no schedule of total keeps within the tolerance of 1.0e-09" in text and "the default: its order allows an error of" in text
    assert "reproducible=False, which admits other orders" in text
    with pytest.raises(ScheduleError) as free:
        total.tune(x, budget=60, candidates=4, reproducible=False, tolerance=1e-9, progress=False)
    assert "others the least allows" in str(free.value) and "reproducible" not in str(free.value)
    assert records.all_records() == []
    with pytest.raises(ArgumentError, match="tolerance"):
        total.tune(x, budget=60, tolerance=float("nan"))


def test_what_crashes_hangs_or_errs_is_left_aside() -> None:
    x = torch.randn(64, 4096)[:, ::2]
    helpers = Helpers("tests.dlc.tune_misbehaviour:handle", build=6.0, run=5.0)
    report = tune(task(scaled, x, budget=90.0, candidates=8, helpers=helpers), quiet())
    failures = {t.decisions.get("add.vectors"): t.failure for t in report.history[1:]}
    assert "died" in failures[1] and "no answer" in failures[2] and "wrong results" in failures[8]
    assert not report.improved and records.find(report.record.key).decisions == {}


class Interrupted(Progress):
    """A user who presses Ctrl-C when the first batch has been timed."""

    def show(self, what: str, trials) -> None:
        super().show(what, trials)
        if what == "searching":
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_what_was_found() -> None:
    x, w = torch.randn(128, 128), torch.randn(128, 128)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
    try:
        report = tune(task(product, x, w, budget=120.0), Interrupted("", 120.0, shown=False))
    finally:
        signal.signal(signal.SIGINT, before)
    assert report.interrupted and report.seconds < 60
    assert len(report.history) > 1 and report.times["default"].samples
    assert not report.record.confirmed and records.find(report.record.key) == report.record


def test_a_peer_that_fails_is_told_and_no_more() -> None:
    def peer(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such thing")
    report = scaled.tune(torch.randn(8, 8), budget=60, candidates=2, against=peer, progress=False)
    assert any("no such thing" in n for n in report.notes) and report.peer_ratio is None


def test_a_default_that_does_not_run_is_our_fault() -> None:
    with pytest.raises(InternalError, match="default schedule"):
        tune(task(scaled, torch.randn(8, 8), budget=3.0, helpers=Helpers("tests.dlc.tune_misbehaviour:missing")), quiet())


def test_bad_requests_are_refused() -> None:
    x = torch.randn(8, 8)
    with pytest.raises(ArgumentError, match="budget"):
        scaled.tune(x, budget=0)
    with pytest.raises(dlc.errors.ShapeError):
        scaled.tune(torch.randn(8), budget=1)
    by_hand = dlc.Kernel(scaled.fn)
    by_hand.scheduler = lambda nest: nest
    with pytest.raises(ScheduleError, match="by hand"):
        by_hand.tune(x, budget=1)


TUNED = """
import sys, torch, dlc
M, N = dlc.dims("M N")


@dlc.kernel
def scaled(x: dlc.f32[M, N]):
    return x * 2.0 + 1.0


torch.set_num_threads(1)
x = torch.ones(32, 32)
if "tune" in sys.argv:
    print(scaled.tune(x, budget=60, candidates=4, progress=False).reason)
else:
    r = scaled.plan(x).record
    print(r.name, r.candidates > 1, bool((scaled(x) == 3).all()))
"""


def test_two_processes_tune_one_kernel_and_a_third_finds_the_record(tmp_path: Path, fresh: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(TUNED)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([sys.executable, str(script), "tune"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]
    for p in both:
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0 and "default schedule" in out and not err, err
    third = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=True)
    assert third.stdout.split() == ["scaled", "True", "True"]
    assert len(list((fresh / "records").iterdir())) == 1


def test_a_read_only_directory_costs_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_reported", set())
    monkeypatch.setattr(records, "_unsaved", {})
    monkeypatch.setenv("DLC_CACHE_DIR", "/proc/none")
    x = torch.randn(16, 16)
    with pytest.warns(UserWarning, match="cannot write tuning records"):
        report = scaled.tune(x, budget=60, candidates=2, progress=False)
    assert scaled.plan(x).record == report.record
