"""What a recording keeps of the calls it stands for: how many kernels it launches, in which memory, and the places of what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
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


def counter(size: int) -> tuple[dlc.Tensor, Callable[[], Any]]:
    """Weights that every call of a step makes larger by one."""
    w = dlc.from_torch(torch.zeros(size))

    @dlc.jit
    def step() -> Any:
        w.replace(w + 1)
        return w[:1].sum()

    for _ in range(3):
        step()
    return w, step


@pytest.mark.parametrize("size", [64, 1 << 20])
def test_what_nobody_else_holds_is_written_over(size: int) -> None:
    w, step = counter(size)
    place = w._value.buffer.data_ptr()
    for n in range(4):
        assert step().item() == 4.0 + n
        assert w._value.buffer.data_ptr() == place
    assert w.tolist() == [7.0] * size


@pytest.mark.parametrize("look", [
    lambda w: w.torch(), lambda w: w.torch()[1:], lambda w: w.numpy(), lambda w: w.numpy()[1:], lambda w: w.reshape(8, 8),
    lambda w: w.detach(), lambda w: w * 1, lambda w: torch.from_dlpack(w), lambda w: w.torch().view(8, 8).numpy()],
    ids=["torch", "a view", "numpy", "a part", "reshape", "detach", "not computed yet", "dlpack", "a view's array"])
def test_what_somebody_looks_at_stays_as_it_was(look: Callable[[Any], Any]) -> None:
    w, step = counter(64)
    seen = look(w)
    step()
    step()
    assert set(torch.as_tensor(seen.numpy() if isinstance(seen, (torch.Tensor, dlc.Tensor)) else seen).flatten().tolist()) == {3.0}
    assert w.tolist() == [5.0] * 64
    del seen
    step()
    place = w._value.buffer.data_ptr()
    step()
    assert w._value.buffer.data_ptr() == place and w.tolist() == [7.0] * 64


def test_memory_of_the_users_is_never_written_over() -> None:
    given = torch.zeros(64)
    w = dlc.from_torch(given)
    step = dlc.jit(lambda: w.replace(w + 1))
    for _ in range(4):
        step()
        w.replace(dlc.from_torch(given))
    assert given.tolist() == [0.0] * 64 and w.tolist() == [0.0] * 64


def test_what_is_returned_or_needed_later_is_not_written_over() -> None:
    w, m = dlc.from_torch(torch.zeros(64)), dlc.from_torch(2 * torch.eye(64))

    @dlc.jit
    def step() -> Any:
        before = w.detach()
        w.replace(w + 1)
        m.replace(m @ m)  # every element of which needs many of those before
        return before

    kept = [step() for _ in range(6)]
    assert [k.tolist()[0] for k in kept] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] and w.tolist() == [6.0] * 64
    assert torch.equal(m.torch(), 2.0**64 * torch.eye(64))
