"""dlc.train: the loop learns, keeps the best state, stops when told, and runs in generated kernels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlc
from dlc import nn, optim
from dlc.data import Loader
from dlc.train import History, evaluate, fit, train_step
from dsl.errors import ArgumentError

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(96, 2)).astype(np.float32)
SIDES = (POINTS[:, 0] * POINTS[:, 1] > 0).astype(np.int64)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))


def test_the_loop_learns_and_keeps_the_best_state() -> None:
    model = network()
    opt = optim.AdamW(model.parameters(), lr=0.05)
    data, held = Loader(POINTS[:64], SIDES[:64], batch_size=32, shuffle=True), Loader(POINTS[64:], SIDES[64:], batch_size=32)
    seen: list[int] = []
    history = fit(model, opt, data, held, epochs=30, schedule=optim.CosineLR(opt, 60), clip=5.0, progress=False,
                  report=lambda n, h: seen.append(n))
    assert history.loss[-1] < 0.5 * history.loss[0] and seen == list(range(30)) and history.steps == 60 and history.rate[-1] == 0
    assert history.accuracy[history.best] == max(history.accuracy) == evaluate(model, held)[1] >= 0.8
    assert set(history.as_dict()) == {"loss", "validation_loss", "accuracy", "rate", "best", "seconds", "steps", "tuning"}


def test_a_jitted_loop_is_the_same_loop() -> None:
    def run(jitted: bool) -> tuple[list[float], list[float]]:
        torch.manual_seed(3)
        model = network()
        opt = optim.AdamW(model.parameters(), lr=0.05)
        data = Loader(POINTS, SIDES, batch_size=40, shuffle=True, seed=1)  # the last batch is smaller
        history = fit(model, opt, data, data, epochs=4, schedule=optim.CosineLR(opt, 12), clip=1.0, progress=False, jitted=jitted)
        return history.loss, history.accuracy

    assert run(True) == run(False)


def test_a_loop_that_is_tuned_on_the_way_is_the_same_loop(cache_dir: Path) -> None:
    def run(**how: Any) -> tuple[History, list[list[float]]]:
        torch.manual_seed(3)
        model = network()
        opt = optim.AdamW(model.parameters(), lr=0.05)
        data = Loader(POINTS, SIDES, batch_size=40, shuffle=True, seed=1)
        history = fit(model, opt, data, epochs=2, schedule=optim.CosineLR(opt, 12), progress=False, **how)
        return history, [p.tolist() for p in model.parameters()]

    (tuned, ours), (plain, theirs) = run(tune=0.5), run()
    assert ours == theirs and tuned.loss == plain.loss and tuned.rate == plain.rate
    assert plain.tuning is None and tuned.tuning is not None and tuned.tuning.parts
    assert tuned.as_dict()["tuning"]["kernels"] and plain.as_dict()["tuning"] is None


def test_patience() -> None:
    model = network()
    data = Loader(POINTS, SIDES, batch_size=96)
    history = fit(model, optim.SGD(model.parameters(), lr=0.0), data, data, epochs=9, patience=2, progress=False)
    assert len(history.loss) == 3 and history.best == 0
    with pytest.raises(ArgumentError, match="patience"):
        fit(model, optim.SGD(model.parameters()), data, patience=1)


def test_a_step_is_generated_kernels_alone() -> None:
    model, (x, y) = network(), (dlc.tensor(POINTS), dlc.tensor(SIDES))
    opt = optim.AdamW(model.parameters())
    for _ in range(2):
        train_step(model, nn.cross_entropy, opt, x, y)
    with dlc.Watch() as w:
        train_step(model, nn.cross_entropy, opt, x, y)
    assert not w.torch_ops and w.counts.compiled == 0 and w.counts.plans == 0
    assert set(w.counts.launches) == {"forward", "backward", "update"} and w.counts.launches["update"] == 1
