"""dlc.jit: what is recorded computes the bits that the function computes, as long as it holds; what cannot be recorded is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlc
from dlc import nn, optim
from dsl.errors import ArgumentError, DlcError, UserError

RNG = np.random.default_rng(0)


def batch(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 8), torch.randint(0, 4, (rows,))


class Net(nn.Module):
    def __init__(self) -> None:
        self.first, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
        self.drop, self.last = nn.Dropout(0.3, seed=5), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        return self.last(self.drop(dlc.relu(self.norm(self.first(x)))))


def trained(make: Callable[[Any], Any], jitted: bool, steps: int = 6) -> dict[str, Any]:
    """Everything that training leaves behind."""
    torch.manual_seed(1)
    model = Net()
    optimiser = make(model.parameters())
    schedule = optim.CosineLR(optimiser, 10)
    losses: list[float] = []

    def step(x: Any, y: Any) -> Any:
        optimiser.zero_grad()
        loss = nn.cross_entropy(model(x), y)
        loss.backward()
        norm = optim.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        schedule.step()
        return {"loss": loss, "norm": norm}

    run = dlc.jit(step) if jitted else step
    for n in range(steps):
        x, y = batch(6 if n % 3 != 2 else 5)
        found = run(dlc.from_torch(x), dlc.from_torch(y))
        losses += [found["loss"].item(), found["norm"].item()]
    if jitted:
        assert run.recordings == (2 if steps > 5 else 1)  # type: ignore[attr-defined]
    state = {n: t.tolist() for n, t in model.state_dict().items()}
    moments = {f"{n}.{k}": t.tolist() for n, own in optimiser.state_dict()["state"].items() for k, t in own.items()}
    grads = {n: p.grad.tolist() for n, p in model.named_parameters()}
    return {"losses": losses, **state, **moments, "grads": grads, "steps": optimiser.steps, "rate": schedule.get_last_lr()}


@pytest.mark.parametrize("make", [
    lambda p: optim.AdamW(p, lr=0.05), lambda p: optim.Adam(p, lr=0.05, amsgrad=True, weight_decay=0.1),
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2), lambda p: optim.SGD(p, lr=0.1)],
    ids=["adamw", "amsgrad", "momentum", "sgd"])
def test_training_leaves_the_same_bits(make: Callable[[Any], Any]) -> None:
    """Weights, running statistics, moments, gradients, losses, with dropout, clipping, a schedule, and two shapes of batches."""
    assert trained(make, True) == trained(make, False)


def test_later_calls_only_launch() -> None:
    model = Net()
    optimiser = optim.AdamW(model.parameters())

    @dlc.jit
    def step(x: Any, y: Any) -> Any:
        optimiser.zero_grad()
        loss = nn.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        return loss

    x, y = map(dlc.from_torch, batch())
    for _ in range(3):
        step(x, y)
    with dlc.Watch() as w:
        loss = step(x, y)
    assert loss.is_realized and not w.torch_ops and w.counts.plans == w.counts.compiled == 0 and w.counts.realized == 1
    assert set(w.counts.launches) == {"forward", "backward", "update"} and step.recordings == 1
    step.forget()
    assert step.recordings == 0 and "step" in repr(step)


def test_parts_of_weights_are_read_where_they_stand() -> None:
    """The projections of attention are slices of one weight, which every update moves."""
    def losses(jitted: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.TransformerBlock(8, 2, 16)
        optimiser = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimiser.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimiser.step()
            return loss

        run, x = dlc.jit(step) if jitted else step, dlc.from_torch(torch.randn(2, 5, 8))
        return [run(x).item() for _ in range(5)]

    torch.testing.assert_close(torch.tensor(losses(True)), torch.tensor(losses(False)), rtol=1e-5, atol=1e-6)


def test_use_and_training_are_recorded_apart() -> None:
    model = Net()
    seen: list[bool] = []

    @dlc.jit
    def predict(x: Any) -> Any:
        seen.append(model.training)
        with dlc.no_grad():
            return model(x)

    x = dlc.from_torch(batch()[0])
    for training in (False, False, True, False, True):
        model.train(training)
        found = predict(x)
        if not training:
            assert np.array_equal(found.numpy(), model(x).numpy())
    assert seen == [False, False, True] and predict.recordings == 2


def test_other_parameters_and_settings_are_noticed() -> None:
    model = nn.Linear(3, 2)
    predict = dlc.jit(model)
    x = dlc.ones(1, 3).realize()
    for _ in range(3):
        predict(x)
    model.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
    assert predict(x).tolist() == [[3, 3]] and predict.recordings == 1
    model.weight = nn.Parameter(torch.full((2, 3), 2.0))
    assert predict(x).tolist() == [[6, 6]] and predict.recordings == 2
    model.to(dlc.f64)
    assert predict(x.to(dlc.f64)).dtype == dlc.f64

    optimiser = optim.SGD(model.parameters(), lr=1.0)

    @dlc.jit
    def step() -> None:
        optimiser.zero_grad()
        model.weight.sum().backward()
        optimiser.step()

    before = model.weight.numpy()[0, 0]
    for _ in range(3):
        step()
    optimiser.param_groups[0]["lr"] = 0.5
    step()
    assert model.weight.numpy()[0, 0] == before - 3.5 and step.recordings == 1
    optimiser.param_groups[0]["maximize"] = True
    step()
    assert model.weight.numpy()[0, 0] == before - 3.0 and step.recordings == 2
    optimiser.load_state_dict(optimiser.state_dict())
    step()
    assert model.weight.numpy()[0, 0] == before - 2.5


def test_gradients_add_up_over_calls() -> None:
    w = dlc.tensor([1.0, 2.0], requires_grad=True)
    optimiser = optim.SGD([w], lr=1.0)

    @dlc.jit
    def part(x: Any) -> Any:
        loss = (w * x).sum()
        loss.backward()
        return loss

    @dlc.jit
    def update() -> None:
        optimiser.step()
        optimiser.zero_grad()

    for n in range(4):
        for k in (1.0, 2.0, 3.0, 4.0):
            part(torch.tensor([k, 2 * k]))
        assert w.grad is not None and w.grad.tolist() == [10, 20]
        update()
        assert w.grad is None and w.tolist() == [1 - 10 * (n + 1), 2 - 20 * (n + 1)]
    assert update.recordings == 1 and part.recordings <= 2  # with and without a gradient to add to


def test_arguments_and_results() -> None:
    @dlc.jit
    def f(x: Any, *, scale: float, pair: tuple[Any, dict[str, Any]]) -> Any:
        return [x, x * scale], {"sum": x + pair[0], "same": pair[1]["y"], "name": "f"}

    x, y = np.arange(3, dtype=np.float32), torch.ones(3)
    for n in range(4):
        x[:] = n
        (first, second), found = f(x, scale=2.0, pair=(y, {"y": y}))
        assert first.tolist() == [n] * 3 and second.tolist() == [2 * n] * 3
        assert found["sum"].tolist() == [n + 1] * 3 and found["same"].tolist() == [1] * 3 and found["name"] == "f"
    assert f.recordings == 1
    f(x, scale=3.0, pair=(y, {"y": y}))
    assert f(x, scale=3.0, pair=(y, {"y": y}))[0][1].tolist() == [9] * 3 and f.recordings == 2
    assert f(x[::-1].copy()[:2], scale=2.0, pair=(y[:2], {"y": y[:2]}))[0][1].shape == (2,)
    with pytest.raises(ArgumentError, match="a set among the arguments"):
        f(x, scale={1}, pair=(y, {}))


def test_an_argument_gets_its_gradient() -> None:
    @dlc.jit
    def f(x: Any) -> Any:
        y = (x ** 2).sum()
        y.backward()
        return y

    for n in range(4):
        x = dlc.tensor([1.0, n], requires_grad=True)
        y = f(x)
        assert x.grad is not None and x.grad.tolist() == [2, 2 * n] and not y.requires_grad
    with pytest.raises(ArgumentError, match="computed from tensors that require grad"):
        f(x * 2)


def test_looking_at_numbers_is_refused() -> None:
    for look in (bool, float, print, repr, dlc.Tensor, lambda t: t.numpy(), lambda t: t.item(), lambda t: [1, 2][t.argmax()]):
        f = dlc.jit(lambda x, look=look: look(x.sum()) and x)
        x = dlc.tensor([1.0])
        f(x)
        with pytest.raises(UserError) as caught:
            f(x)
        assert "is looked at inside of a recorded function" in str(caught.value) and "test_jit.py" in str(caught.value)
        assert "use dlc.where instead of if" in str(caught.value)
        assert (x * 2).item() == 2  # nothing is left behind


def test_what_is_kept_outside_is_refused() -> None:
    kept: list[Any] = []

    @dlc.jit
    def f(x: Any) -> Any:
        kept.append(x + 1)
        return x * 2

    x = dlc.tensor([1.0])
    f(x)
    with pytest.raises(UserError) as caught:
        f(x)
    text = str(caught.value)
    assert "a result of `add`, made inside of the recorded function, is kept outside" in text
    assert "return it; or let a tensor from outside stand for it: t.replace(new)" in text


def test_a_tensor_outside_can_follow() -> None:
    mean = dlc.zeros(1)

    @dlc.jit
    def follow(x: Any) -> None:
        mean.replace(mean * 0.5 + x)

    for _ in range(4):
        follow(dlc.tensor([1.0]))
    assert mean.tolist() == [1.875] and follow.recordings == 1


def test_numbers_of_every_call() -> None:
    count = iter(range(100))

    @dlc.jit
    def f(x: Any) -> Any:
        return x * dlc.each_call(lambda: float(next(count)))

    assert [f(dlc.tensor([1.0])).item() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert dlc.each_call(lambda: None) is None and dlc.each_call(lambda: 3).dtype == dlc.i64


def test_many_recordings_are_told() -> None:
    f = dlc.jit(lambda x, s: x * s)
    x = dlc.tensor([1.0])
    with pytest.warns(UserWarning, match="was recorded 16 times"):
        for n in range(20):
            assert f(x, float(n)).item() == f(x, float(n)).item() == n


def test_two_names_of_the_same_numbers_are_told_apart_when_they_part() -> None:
    a = dlc.tensor([1.0])
    b = a.detach()
    f = dlc.jit(lambda: b * 10 + a)
    for _ in range(3):
        assert f().item() == 11
    a.replace(dlc.tensor([2.0]))
    assert f().item() == 12 and f.recordings == 2
    c = dlc.jit(lambda: a.detach() + a)
    for n in range(4):
        a.replace(dlc.tensor([float(n)]))
        assert c().item() == 2 * n
    assert c.recordings == 1


def test_what_is_not_computed_yet_is_computed_first() -> None:
    lazy = dlc.ones(3) * 2
    f = dlc.jit(lambda x: x + lazy)
    for n in range(3):
        assert f(dlc.ones(3) * n).tolist() == [2 + n] * 3
    graph = dlc.tensor([1.0], requires_grad=True) * 2
    g = dlc.jit(lambda x: x + graph)
    g(dlc.tensor([1.0]))
    with pytest.raises(UserError, match="computed from others that require grad"):
        g(dlc.tensor([1.0]))


def test_an_error_inside_leaves_the_world_usable() -> None:
    w = dlc.tensor([1.0])

    @dlc.jit
    def f(fail: bool) -> None:
        w.replace(w + 1)
        if fail:
            raise RuntimeError("stop")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="stop"):
            f(True)
    assert w.tolist() == [3]
    f(False)
    assert w.tolist() == [4]


def test_what_passes_between_kernels_has_memory_of_its_own() -> None:
    """Four products in a row need two buffers; results of earlier calls are not touched, views of results neither."""
    w = dlc.from_torch(torch.randn(64, 64) / 8)

    @dlc.jit
    def f(x: Any) -> Any:
        a = dlc.linear(x, w)
        b = dlc.linear(dlc.linear(dlc.linear(a, w), w), w)
        return b.reshape(-1), b.sum()

    x = torch.randn(32, 64)
    theirs = x
    for _ in range(4):
        theirs = theirs @ w.torch().T
    for _ in range(2):
        f(x)
    assert f.memory == 0  # recorded, not run again yet
    first, total = f(x)
    size = 32 * 64 * 4
    assert f.memory in (size, 2 * size)
    kept = first.torch().clone()
    f(x * 2)
    assert torch.equal(first.torch(), kept) and total.numpy().shape == ()
    torch.testing.assert_close(kept.view(32, 64), theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(f(x * 2)[0].torch().view(32, 64), theirs * 2, rtol=1e-4, atol=1e-4)
    f.forget()
    assert f.memory == 0


def test_methods_are_recorded_for_each_object() -> None:
    class Scaled:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @dlc.jit
        def times(self, x: Any) -> Any:
            return x * self.factor

    two, three = Scaled(2.0), Scaled(3.0)
    for _ in range(3):
        assert two.times(dlc.tensor([1.0])).item() == 2 and three.times(dlc.tensor([1.0])).item() == 3
    assert isinstance(Scaled.times, dlc.jit(abs).__class__) and two.times is two.times
    outer = dlc.jit(lambda x: two.times(x) + 1)
    assert [outer(dlc.tensor([n])).item() for n in (1.0, 2.0, 3.0)] == [3, 5, 7] and outer.recordings == 1


def test_threads_share_a_recording() -> None:
    total = dlc.zeros(1)

    @dlc.jit
    def add() -> None:
        total.replace(total + 1)

    def work() -> None:
        for _ in range(25):
            add()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert total.item() == 100 and add.recordings == 1


def test_errors_of_kernels_come_through() -> None:
    table = dlc.tensor([1.0, 2.0])
    f = dlc.jit(lambda i: dlc.take(table, i))
    for _ in range(3):
        assert f(dlc.tensor([1])).tolist() == [2]
    with pytest.raises(DlcError, match="out of"):
        f(dlc.tensor([7]))
    assert f(dlc.tensor([0])).tolist() == [1]
