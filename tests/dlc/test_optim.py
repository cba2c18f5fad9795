"""dlc.optim: updates held against torch.optim over twenty steps; schedules; clipping; states saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import dlc
from dlc import optim
from dlc.realize import counts
from dsl.errors import ArgumentError

OURS_AND_TORCHS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "sgd": (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    "nesterov": (optim.SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "adam": (optim.Adam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "amsgrad": (optim.Adam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "adamw": (optim.AdamW, torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.99)}),
}


def problem() -> tuple[list[dlc.Tensor], list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    theirs = [torch.randn(s, generator=g).requires_grad_() for s in ((4, 3), (3,), (3, 2))]
    return [dlc.tensor(t, requires_grad=True) for t in theirs], theirs


def loss(w: list[Any], x: Any) -> Any:
    return (((x @ w[0] + w[1]).tanh() @ w[2]) ** 2).sum()


@pytest.mark.parametrize("name", OURS_AND_TORCHS)
def test_twenty_steps_as_torch(name: str) -> None:
    ours, theirs = problem()
    make, peer, settings = OURS_AND_TORCHS[name]
    a, b = make(ours, **settings), peer(theirs, **settings)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(20):
        for opt, w in ((a, ours), (b, theirs)):
            opt.zero_grad()
            loss(w, x).backward()
            opt.step()
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(p.torch(), q.detach(), atol=2e-5, rtol=2e-5)


def test_the_update_of_all_parameters_is_one_launch_and_compiles_once() -> None:
    ours, _ = problem()
    opt = optim.AdamW(ours)
    x = torch.ones(8, 4)
    for n in range(4):
        before = counts.copy()
        opt.zero_grad()
        loss(ours, x).backward()
        opt.step()
        done = counts.since(before)
        assert done.launches["update"] == 1 and (n < 2 or done.compiled == 0)


def test_groups_and_parameters_without_gradients() -> None:
    ours, _ = problem()
    before = [p.tolist() for p in ours]
    opt = optim.SGD([{"params": ours[:1], "lr": 0.5}, {"params": ours[1:]}], lr=0.25)
    (ours[0].sum() + ours[1].sum()).backward()
    opt.step()
    assert ours[0].tolist()[0][0] == pytest.approx(before[0][0][0] - 0.5) and ours[1].tolist()[0] == pytest.approx(before[1][0] - 0.25)
    assert ours[2].tolist() == before[2]


def test_states_are_saved_and_loaded() -> None:
    (ours, _), (again, _) = problem(), problem()
    a, b = optim.AdamW(ours), optim.AdamW(again)
    for _ in range(2):
        loss(ours, torch.ones(8, 4)).backward()
        a.step()
    for p, q in zip(again, ours):
        p.replace(dlc.tensor(q))
        p.grad = q.grad
    b.load_state_dict(a.state_dict())
    a.step()
    b.step()
    assert all(p.tolist() == q.tolist() for p, q in zip(ours, again))
    with pytest.raises(ArgumentError, match="another optimiser"):
        optim.AdamW(ours[:1]).load_state_dict(a.state_dict())


def test_refused() -> None:
    ours, _ = problem()
    for make, words in [(lambda: optim.SGD([]), "without parameters"), (lambda: optim.SGD([ours[0] * 2]), "leaves"),
                        (lambda: optim.SGD([ours[0], ours[0]]), "twice"), (lambda: optim.SGD(ours, nesterov=True), "Nesterov")]:
        with pytest.raises(ArgumentError, match=words):
            make()


def test_schedules() -> None:
    def rates(make: Callable[[optim.Optimizer], optim.LRScheduler], steps: int) -> list[float]:
        opt = optim.SGD(problem()[0], lr=1.0)
        schedule = make(opt)
        out = []
        for _ in range(steps):
            out.append(schedule.get_last_lr()[0])
            schedule.step()
        return out

    assert rates(lambda o: optim.StepLR(o, 2, 0.5), 5) == [1, 1, 0.5, 0.5, 0.25]
    assert rates(lambda o: optim.CosineLR(o, 2), 4) == pytest.approx([1, 0.5, 0, 0])
    assert rates(lambda o: optim.WarmupLR(o, 2, 4), 6) == pytest.approx([0, 0.5, 1, 0.5, 0, 0])
    assert rates(lambda o: optim.SequentialLR(o, [optim.ConstantLR(o), optim.StepLR(o, 1, 0.5)], [2]), 4) == [1, 1, 1, 0.5]
    opt = optim.SGD(problem()[0], lr=1.0)
    schedule = optim.CosineLR(opt, 4)
    schedule.step()
    saved = schedule.state_dict()
    other = optim.CosineLR(optim.SGD(problem()[0], lr=1.0), 4)
    other.load_state_dict(saved)
    assert other.get_last_lr() == schedule.get_last_lr()


@pytest.mark.parametrize("norm", [2.0, 1.0, float("inf")])
def test_clipping_as_torch(norm: float) -> None:
    ours, theirs = problem()
    x = torch.ones(8, 4)
    loss(ours, x).backward()
    loss(theirs, x).backward()
    found, wanted = optim.clip_grad_norm_(ours, 0.5, norm), torch.nn.utils.clip_grad_norm_(theirs, 0.5, norm)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    for p, q in zip(ours, theirs):
        assert q.grad is not None
        torch.testing.assert_close(p.grad.torch(), q.grad, atol=1e-6, rtol=1e-5)
    optim.clip_grad_value_(ours, 1e-3)
    assert max(abs(p.grad).max().item() for p in ours) <= 1e-3 + 1e-9
