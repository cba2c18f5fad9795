"""What a user may ask of a search: operands, several peers, one candidate, no budget, hardly any, backwards, sizes that change."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

import dlc
from dlc import f32, i32, records
from dlc.tune import session
from dsl.errors import ArgumentError

M, N, K = dlc.dims("M N K")


@pytest.fixture(autouse=True)
def fresh(cache_dir: Path) -> Path:
    return cache_dir


@dlc.kernel
def scaled(x: f32[M, N]):
    return x * 2.0 + 1.0


@dlc.kernel
def normed(x: f32[M, N], g: f32[N]):
    return dlc.layer_norm(x, g, g)


@dlc.kernel
def counted(x: i32[N]):
    return dlc.sum(x, 0)


def test_operands_are_where_they_are_asked_to_be() -> None:
    x = torch.randn(64, 64)
    for operands in ("warm", "both"):
        report = scaled.tune(x, budget=60, candidates=2, against=lambda x: x * 2 + 1, operands=operands, progress=False)
        assert report.record.operands == operands == report.as_dict()["operands"] and f"operands {operands}" in str(report)
        assert records.find(report.record.key).operands == operands and report.peer_ratio is not None
    with pytest.raises(ArgumentError, match="one of cold, warm, both"):
        scaled.tune(x, budget=1, operands="hot")


def test_several_peers_are_told_apart() -> None:
    def slow(x: torch.Tensor) -> torch.Tensor:
        return sum([x * 2 + 1 for _ in range(50)]) / 50

    x = torch.randn(64, 64)
    report = scaled.tune(x, budget=60, candidates=1, against={"torch": lambda x: x * 2 + 1, "slow": slow}, progress=False)
    assert set(report.peer_ratios) == {"torch", "slow"} and {"torch", "slow"} < set(report.record.seconds)
    assert report.peer_ratio == min(report.peer_ratios.values(), key=lambda r: r.median)
    assert set(report.rows[0].errors) >= {"default", "torch", "slow"} and "slow / dlc" in str(report)


def test_one_candidate_is_one() -> None:
    report = scaled.tune(torch.randn(64, 64), budget=60, candidates=1, progress=False)
    assert len([t for t in report.history[1:] if t.code]) == 1
    with pytest.raises(ArgumentError, match="a search of 0 candidates"):
        scaled.tune(torch.randn(64, 64), candidates=0)


def test_without_a_budget_the_search_ends_by_itself() -> None:
    report = scaled.tune(torch.randn(64, 64), budget=None, progress=False)
    assert "the whole space was tried" in report.notes and report.record.budget == 0 and report.record.confirmed


def test_a_budget_shorter_than_a_compilation_ends_and_says_so() -> None:
    report = scaled.tune(torch.randn(64, 64), budget=1e-3, progress=False)
    assert len(report.history) == 1 and "no time for it" in report.reason and not report.improved
    assert len(report.times["default"].samples) >= 5 and report.spent["starting"] > 0
    assert any("float64" in n for n in report.notes) and report.rows == []
    assert sum(report.spent.values()) == pytest.approx(report.seconds, rel=0.3)


def test_results_are_held_against_float64_once_for_all_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, own = list[tuple[int, str]](), session.Session._ask

    def ask(self, t, action, *what):
        asked.append((t.number, action))
        return own(self, t, action, *what)

    monkeypatch.setattr(session.Session, "_ask", ask)
    report = normed.tune(torch.randn(64, 96), torch.randn(96), budget=60, candidates=6, data="ordinary", progress=False)
    assert len({number for number, action in asked if action == "check"}) > 1
    assert [n for n, action in asked if action == "error"] == [0]
    ran = [t for t in report.history if "ordinary" in t.checked]
    assert len(ran) > 1 and all(t.error == ran[0].error is not None for t in ran)


def test_a_backward_is_tuned_beside_its_forward() -> None:
    x, g = torch.randn(64, 96), torch.randn(96)
    report = normed.tune(x, g, budget=120, candidates=2, backward=True, progress=False,
                         against=lambda x, g: torch.nn.functional.layer_norm(x, (96,), g, g))
    assert report.backward is not None and report.backward.peer_ratio is not None and report.backward.record.confirmed
    assert report.record.key.program != report.backward.record.key.program and len(records.all_records()) == 2
    errors = report.backward.rows[0].errors
    assert errors["default"].relative < 1e-5 > errors["peer"].relative and "backward" in str(report)
    assert report.as_dict()["backward"]["name"] == report.backward.name
    x.requires_grad_()
    y = normed(x, g)
    y.backward(torch.ones_like(y))
    expected = torch.autograd.grad(torch.nn.functional.layer_norm(x, (96,), g, g).sum(), x)[0]
    assert torch.allclose(x.grad, expected, atol=1e-4)


def test_what_has_no_backward_says_so() -> None:
    with pytest.raises(ArgumentError, match="counted has no backward"):
        counted.tune(torch.arange(8, dtype=torch.int32), budget=1, backward=True)


def test_a_record_is_of_its_sizes_and_where_another_search_begins() -> None:
    kernel = dlc.Kernel(scaled.fn)
    first = kernel.tune(torch.randn(64, 64), budget=60, candidates=3, progress=False).record
    won = records.Record(**{**first.__dict__, "decisions": {"add.vectors": 2}})
    records.save(won)
    assert kernel.plan(torch.randn(64, 64)).record == won and kernel.plan(torch.randn(64, 72)).record is None
    second = kernel.tune(torch.randn(64, 72), budget=60, candidates=1, progress=False)
    tried = next(t for t in second.history[1:] if t.code)
    assert {c.name: c.value for c in tried.choices}["add.vectors"] == 2
    for n in range(3, 9):  # sizes that keep changing become arguments of one kernel; those that were tuned have their own
        assert torch.equal(kernel(torch.ones(n, 40)), torch.full((n, 40), 3.0))
    for n in (64, 65):
        assert torch.equal(kernel(torch.ones(n, 64)), torch.full((n, 64), 3.0))
    assert [key for key in kernel._calls._launchers if key[0][0] == (64, 64)] and len(kernel._calls._many) >= 1
    assert not [key for key in kernel._calls._launchers if key[0][0] == (65, 64)]
    assert math.isfinite(second.ratio.median)


@dlc.kernel
def windows(x: f32[N]):
    y = dlc.compute((N,), lambda i: dlc.exp(x[i]) * 2.0 + 1.0, name="y")
    return dlc.compute((N - 2,), lambda i: y[i] + y[i + 1] * y[i + 2], name="z")


@dlc.kernel
def siblings(x: f32[M, N]):
    return dlc.sqrt(dlc.abs(x)), x * 2.0 + 1.0


@dlc.kernel
def transposed(x: f32[M, N]):
    return dlc.compute((N, M), lambda i, j: x[j, i] + 1.0, name="t")


@pytest.mark.parametrize(("kernel", "shape", "choice"), [(windows, (1003,), "y.inline"), (siblings, (33, 65), "sqrt.merge"),
                                                         (transposed, (67, 45), "t.turned"), (transposed, (67, 45), "t.across")])
def test_inlining_merging_and_turned_blocks_are_choices(kernel: dlc.Kernel, shape: tuple[int, ...], choice: str) -> None:
    x = torch.randn(shape)
    plan = kernel.plan(x)
    expected, text = kernel(x), plan.module.text
    options = plan.decisions.made[choice].options
    assert len(options) > 1
    for option in options:
        other = copy.copy(kernel)
        other.decisions = {choice: option}
        made = other.plan(x)
        assert (made.module.text == text) == (option == plan.decisions.made[choice].value)
        for a, b in zip(results(other(x)), results(expected)):
            assert torch.equal(a, b)


def results(value: object) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
