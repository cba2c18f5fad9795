"""What a recording keeps of the calls it stands for: how many kernels it launches, in which memory, and the places of what it gives."""

from __future__ import annotations

import torch

import dlc
from dlc.replay import Replay


def recorded(fn, *args: torch.Tensor) -> Replay:
    step = dlc.jit(fn)
    for _ in range(2):
        step(*args)
    (replay,) = next(iter(step._known.values()))
    return replay


def test_launches_and_memory_are_counted() -> None:
    w = dlc.from_torch(torch.randn(32, 32))
    replay = recorded(lambda x: (x @ w) @ w, torch.randn(4, 32))
    assert replay.launches == 2 and replay.bytes == 0  # memory of its own comes with the first call that runs it
    (x,) = arguments = [dlc.from_torch(torch.randn(4, 32))]
    memory = replay.memory(arguments)
    assert memory is not None
    torch.testing.assert_close(replay.run(memory, arguments).torch(), x.torch() @ w.torch() @ w.torch())
    assert replay.bytes == 4 * 32 * 4


def test_what_lies_otherwise_is_not_served() -> None:
    held = dlc.from_torch(torch.randn(8, 8))
    replay = recorded(lambda x: x + held, torch.randn(8, 8))
    arguments = [dlc.from_torch(torch.randn(8, 8))]
    assert replay.memory(arguments) is not None
    held.replace(dlc.from_torch(torch.randn(8, 8).t()))
    assert replay.memory(arguments) is None


def test_results_are_new_in_every_call() -> None:
    replay = recorded(lambda x: {"twice": x * 2, "same": x}, torch.randn(3))
    arguments = [dlc.from_torch(torch.ones(3))]
    first, second = (replay.run(replay.memory(arguments), arguments) for _ in range(2))
    assert first["twice"].tolist() == [2.0] * 3 and first["same"].tolist() == [1.0] * 3
    assert first["twice"].torch().data_ptr() != second["twice"].torch().data_ptr()
