"""dlc.checkpoint: training goes on from a file as if it had not stopped; files that are not checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import dlc
from dlc import checkpoint, nn, optim
from dlc.train import train_step
from dsl.errors import ArgumentError, RecordError

X, Y = dlc.tensor(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)), dlc.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    first, path = model(), tmp_path / "deep" / "state.safetensors"
    a = optim.AdamW(first.parameters(), lr=0.01)
    for _ in range(3):
        train_step(first, nn.cross_entropy, a, X, Y)
    checkpoint.save(path, first, a, {"epoch": 3})
    second = model()
    b = optim.AdamW(second.parameters())
    assert checkpoint.load(path, second, b) == {"epoch": 3}
    for _ in range(2):
        assert train_step(first, nn.cross_entropy, a, X, Y).item() == train_step(second, nn.cross_entropy, b, X, Y).item()
    assert "model.1.running_mean" in load_file(path) and not list(path.parent.glob("*.tmp"))


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        checkpoint.load(tmp_path / "missing")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(RecordError, match="cannot be read"):
        checkpoint.load(damaged)
    path = checkpoint.save(tmp_path / "model", model())
    with pytest.raises(ArgumentError, match="another module"):
        checkpoint.load(path, nn.Linear(4, 6))
    with pytest.raises(ArgumentError, match="no state of an optimiser"):
        checkpoint.load(path, optimizer=optim.SGD(model().parameters()))
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "state", model())
