"""dlc.nn: modules and losses held against torch's, with the same weights: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dlc
from dlc import nn
from dlc.realize import counts
from dsl.errors import ArgumentError, BoundsError, ShapeError, UserError


def compare(ours: nn.Module, theirs: torch.nn.Module, *inputs: torch.Tensor, tolerance: float = 3e-5, **kwargs: Any) -> None:
    """Outputs, gradients of the inputs and of the parameters; a random cotangent."""
    ours.load_state_dict(theirs.state_dict())
    xs = [dlc.tensor(t, requires_grad=t.dtype.is_floating_point) for t in inputs]
    ts = [t.clone().requires_grad_(t.dtype.is_floating_point) for t in inputs]
    y, z = ours(*xs, **kwargs), theirs(*ts)
    z = z[0] if isinstance(z, tuple) else z
    cotangent = torch.randn(z.shape, generator=torch.Generator().manual_seed(9))
    y.backward(cotangent)
    z.backward(cotangent)
    near(y, z, tolerance)
    for x, t in zip(xs, ts):
        if x.requires_grad:
            near(x.grad, t.grad, tolerance)
    expected = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        near(p.grad, expected[name].grad, tolerance, name)


def near(ours: Any, theirs: Any, tolerance: float = 3e-5, name: str = "") -> None:
    torch.testing.assert_close(ours.torch(), theirs.detach(), atol=tolerance, rtol=1e-4, msg=lambda m: f"{name}: {m}")


def data(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.nn.Module], tuple[torch.Tensor, ...]]] = {
    "linear": (lambda: nn.Linear(5, 7), lambda: torch.nn.Linear(5, 7), (data(3, 5),)),
    "linear of three dimensions, no bias": (lambda: nn.Linear(5, 7, bias=False), lambda: torch.nn.Linear(5, 7, bias=False),
                                            (data(2, 3, 5),)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1, stride=2), lambda: torch.nn.Conv1d(3, 4, 3, padding=1, stride=2), (data(2, 3, 9),)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2), lambda: torch.nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2), (data(2, 4, 7, 8),)),
    "conv2d same": (lambda: nn.Conv2d(2, 3, 3, padding="same"), lambda: torch.nn.Conv2d(2, 3, 3, padding="same"), (data(2, 2, 5, 5),)),
    "conv2d same, dilated, even": (lambda: nn.Conv2d(2, 3, (3, 2), padding="same", dilation=2),
                                   lambda: torch.nn.Conv2d(2, 3, (3, 2), padding="same", dilation=2), (data(2, 2, 5, 6),)),
    "layer norm": (lambda: nn.LayerNorm(6), lambda: torch.nn.LayerNorm(6), (data(4, 6),)),
    "layer norm of two": (lambda: nn.LayerNorm((3, 6)), lambda: torch.nn.LayerNorm((3, 6)), (data(4, 3, 6),)),
    "rms norm": (lambda: nn.RMSNorm(6), lambda: torch.nn.RMSNorm(6), (data(4, 6),)),
    "group norm": (lambda: nn.GroupNorm(2, 6), lambda: torch.nn.GroupNorm(2, 6), (data(3, 6, 4),)),
    "batch norm": (lambda: nn.BatchNorm2d(3), lambda: torch.nn.BatchNorm2d(3), (data(4, 3, 5, 5),)),
    "batch norm of vectors": (lambda: nn.BatchNorm1d(3), lambda: torch.nn.BatchNorm1d(3), (data(8, 3),)),
    "batch norm of vectors, bare": (lambda: nn.BatchNorm1d(3, affine=False, track_running_stats=False),
                                    lambda: torch.nn.BatchNorm1d(3, affine=False, track_running_stats=False), (data(8, 3, 2),)),
    "batch norm of volumes": (lambda: nn.BatchNorm3d(3), lambda: torch.nn.BatchNorm3d(3), (data(2, 3, 2, 4, 3),)),
    "group norm, bare": (lambda: nn.GroupNorm(3, 6, affine=False), lambda: torch.nn.GroupNorm(3, 6, affine=False), (data(3, 6, 2, 2),)),
    "embedding": (lambda: nn.Embedding(10, 4), lambda: torch.nn.Embedding(10, 4), (torch.tensor([[1, 2, 1], [9, 0, 1]]),)),
    "pools": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(1)),
              lambda: torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.AvgPool2d(2, 1), torch.nn.AdaptiveAvgPool2d(1)),
              (data(2, 3, 8, 8),)),
    "gelu": (lambda: nn.GELU("tanh"), lambda: torch.nn.GELU("tanh"), (data(4, 6),)),
    "silu, leaky, tanh, sigmoid, softmax": (
        lambda: nn.Sequential(nn.SiLU(), nn.LeakyReLU(0.1), nn.Tanh(), nn.Sigmoid(), nn.Softmax(1)),
        lambda: torch.nn.Sequential(torch.nn.SiLU(), torch.nn.LeakyReLU(0.1), torch.nn.Tanh(), torch.nn.Sigmoid(), torch.nn.Softmax(1)),
        (data(4, 6),)),
    "a small network": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 3)),
        lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 8),
                                    torch.nn.GELU(), torch.nn.Linear(8, 3)), (data(2, 1, 4, 4),)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_torch(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs, inputs = LAYERS[name]
    compare(ours(), theirs(), *inputs)


def test_attention_as_torch() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)

    class SelfAttention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x, x, x, need_weights=False)[0]

    ours = nn.MultiheadAttention(12, 3)
    ours.load_state_dict(theirs.state_dict())
    x, t = dlc.tensor(data(2, 5, 12), requires_grad=True), data(2, 5, 12).requires_grad_()
    y, z = ours(x), SelfAttention()(t)
    y.sum().backward()
    z.sum().backward()
    near(y, z)
    near(x.grad, t.grad)
    assert theirs.in_proj_weight.grad is not None and ours.in_proj_weight.grad is not None
    near(ours.in_proj_weight.grad, theirs.in_proj_weight.grad)


def test_causal_and_masked_attention() -> None:
    q, k, v = (data(2, 4, 3, seed=n) for n in range(3))
    ours = [dlc.tensor(t) for t in (q, k, v)]
    near(nn.scaled_dot_product_attention(*ours, is_causal=True), F.scaled_dot_product_attention(q, k, v, is_causal=True))
    mask = data(4, 4) > 0
    mask[:, 0] = True
    near(nn.scaled_dot_product_attention(*ours, attn_mask=dlc.tensor(mask)), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    bias = data(4, 4)
    near(nn.scaled_dot_product_attention(*ours, attn_mask=dlc.tensor(bias)), F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_block_as_torch(norm_first: bool) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first)
    compare(nn.TransformerBlock(8, 2, 16, "gelu", norm_first), theirs, data(2, 4, 8))


LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any], torch.Tensor, dict[str, Any]]] = {
    "mse": (nn.mse_loss, F.mse_loss, data(4, 3, seed=1), {}),
    "l1": (nn.l1_loss, F.l1_loss, data(4, 3, seed=1), {"reduction": "sum"}),
    "huber": (nn.huber_loss, F.huber_loss, data(4, 3, seed=1), {"delta": 0.7}),
    "bce": (nn.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, data(4, 3, seed=1).sigmoid(), {}),
    "bce of probabilities": (nn.binary_cross_entropy, F.binary_cross_entropy, data(4, 3, seed=1).sigmoid(), {}),
    "kl": (nn.kl_div, F.kl_div, data(4, 3, seed=1).softmax(1), {"reduction": "batchmean"}),
    "cross entropy": (nn.cross_entropy, F.cross_entropy, torch.tensor([2, 0, 1, 1]), {}),
    "cross entropy, ignored": (nn.cross_entropy, F.cross_entropy, torch.tensor([2, -100, 1, 1]), {}),
    "cross entropy, smoothed": (nn.cross_entropy, F.cross_entropy, torch.tensor([2, 0, -100, 1]), {"label_smoothing": 0.1}),
    "cross entropy, each": (nn.cross_entropy, F.cross_entropy, torch.tensor([2, 0, 1, 1]), {"reduction": "none"}),
    "cross entropy, weighted": (nn.cross_entropy, F.cross_entropy, torch.tensor([2, 0, 1, 1]), {"weight": torch.tensor([0.2, 1.0, 3.0])}),
    "cross entropy, all": (nn.cross_entropy, F.cross_entropy, torch.tensor([2, 0, 1, 1]),
                           {"weight": torch.tensor([0.2, 1.0, 3.0]), "label_smoothing": 0.2}),
    "cross entropy of probabilities": (nn.cross_entropy, F.cross_entropy, data(4, 3, seed=1).softmax(1), {"label_smoothing": 0.1}),
    "nll": (nn.nll_loss, F.nll_loss, torch.tensor([2, 0, 1, 1]), {"weight": torch.tensor([0.2, 1.0, 3.0])}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_as_torch(name: str) -> None:
    ours, theirs, target, settings = LOSSES[name]
    given = data(4, 3).sigmoid() if ours is nn.binary_cross_entropy else data(4, 3)
    x, t = dlc.tensor(given, requires_grad=True), given.clone().requires_grad_()
    a = ours(x, dlc.tensor(target), **{k: dlc.tensor(v) if isinstance(v, torch.Tensor) else v for k, v in settings.items()})
    b = theirs(t, target, **settings)
    near(a, b)
    a.sum().backward()
    b.sum().backward()
    near(x.grad, t.grad)


def test_cross_entropy_of_pictures_and_inside_a_kernel() -> None:
    x, target = data(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    near(nn.cross_entropy(dlc.tensor(x), dlc.tensor(target)), F.cross_entropy(x, target))
    n, c = dlc.dims("N C")

    @dlc.kernel
    def loss(x: dlc.f32[n, c], t: dlc.i64[n]) -> Any:  # type: ignore[valid-type]
        return nn.cross_entropy(x, t)

    x, target = data(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(loss(x, target), F.cross_entropy(x, target))


def test_losses_refuse_what_does_not_fit() -> None:
    x = dlc.zeros(4, 3)
    with pytest.raises(BoundsError, match="out of range"):
        nn.cross_entropy(x, dlc.tensor([0, 1, 2, 3])).realize()
    with pytest.raises(ShapeError, match="does not fit"):
        nn.cross_entropy(x, dlc.tensor([0, 1]))
    with pytest.raises(ShapeError, match="differ"):
        nn.mse_loss(x, dlc.zeros(4))
    with pytest.raises(UserError, match="reduction"):
        nn.l1_loss(x, x, reduction="median")


def test_losses_as_modules() -> None:
    x, y = dlc.tensor(data(4, 3)), dlc.tensor(data(4, 3, seed=1))
    for module, fn in [(nn.MSELoss, nn.mse_loss), (nn.L1Loss, nn.l1_loss), (nn.HuberLoss, nn.huber_loss),
                       (nn.BCEWithLogitsLoss, nn.binary_cross_entropy_with_logits)]:
        assert module(reduction="sum")(x, y).item() == fn(x, y, reduction="sum").item()
    target = dlc.tensor([0, 1, 2, 0])
    assert nn.CrossEntropyLoss()(x, target).item() == nn.cross_entropy(x, target).item()
    assert nn.NLLLoss()(x, target).item() == nn.nll_loss(x, target).item()


# -- modules -------------------------------------------------------------------------------------------------------
class Net(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(4, 3)
        self.rest = nn.ModuleList([nn.Linear(3, 3), nn.BatchNorm1d(3)])
        self.again = self.first.weight

    def forward(self, x: Any) -> Any:
        return self.rest[1](self.rest[0](self.first(x)))


def test_names_of_parameters_and_buffers() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["again", "first.bias", "rest.0.weight", "rest.0.bias", "rest.1.weight", "rest.1.bias"]
    assert [n for n, _ in net.named_buffers()] == ["rest.1.running_mean", "rest.1.running_var", "rest.1.num_batches_tracked"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert len(net.rest) == 2 and list(net.rest)[0] is net.rest[0] and len(list(net.children())) == 2


def test_states_are_checked_when_loaded() -> None:
    net, other = Net(), Net()
    other.load_state_dict(net.state_dict())
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(net.parameters(), other.parameters()))
    with pytest.raises(ArgumentError, match="it lacks first.weight\n.*it has weight"):
        net.load_state_dict({"weight": np.zeros(3)} | {n: t for n, t in net.state_dict().items() if n != "first.weight"})
    net.load_state_dict({"first.bias": np.ones(3)}, strict=False)
    assert net.first.bias.tolist() == [1, 1, 1]
    with pytest.raises(ArgumentError, match="has shape"):
        net.load_state_dict({"first.bias": np.ones(4)}, strict=False)


def test_modes_freezing_dtypes_and_text() -> None:
    net = Net()
    assert not net.eval().rest[1].training and net.train().rest[1].training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    seen: list[str] = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net" and len(seen) == 5
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.ReLU())) == \
        "Sequential(\n  (0): Linear(in_features=2, out_features=3, bias=True)\n  (1): ReLU()\n)"
    half = nn.Linear(2, 3).to(dlc.bf16)
    assert half.weight.dtype == dlc.bf16 and half(dlc.ones(1, 2, dtype=dlc.bf16)).dtype == dlc.bf16
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_statistics_are_followed_and_used(momentum: float | None) -> None:
    ours, theirs = nn.BatchNorm2d(3, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
    held = ours.running_mean
    for n in range(3):
        x = data(4, 3, 5, 5, seed=n) * 2 + 1
        ours(dlc.tensor(x)).realize()
        theirs(x)
    near(ours.running_mean, theirs.running_mean)
    near(ours.running_var, theirs.running_var)
    assert ours.running_mean is held and held.is_realized and ours.num_batches_tracked.item() == 3
    near(ours.eval()(dlc.tensor(x)), theirs.eval()(x))


def test_batches_that_have_no_statistics_are_refused() -> None:
    with pytest.raises(ArgumentError, match="one value per channel"):
        nn.BatchNorm1d(3)(dlc.zeros(1, 3))
    with pytest.raises(ArgumentError, match=r"of 3 channels called with shape \[2, 4\]"):
        nn.BatchNorm1d(3)(dlc.zeros(2, 4))
    assert nn.BatchNorm1d(3).eval()(dlc.zeros(1, 3)).shape == (1, 3)


def test_initialisers_are_torchs() -> None:
    torch.manual_seed(3)
    theirs = torch.nn.Linear(5, 4)
    torch.manual_seed(3)
    ours = nn.Linear(5, 4)
    near(ours.weight, theirs.weight)
    near(ours.bias, theirs.bias)
    for name in ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_",
                 "trunc_normal_"):
        torch.manual_seed(5)
        wanted = getattr(torch.nn.init, name)(torch.empty(6, 3))
        torch.manual_seed(5)
        near(getattr(nn.init, name)(nn.Parameter(np.zeros((6, 3), np.float32))), wanted)
    assert nn.init.constant_(nn.Parameter([0.0]), 3.0).tolist() == [3.0]


def test_settings_that_make_no_sense() -> None:
    for make in (lambda: nn.Conv2d(3, 4, 3, groups=2), lambda: nn.GroupNorm(2, 3), lambda: nn.MultiheadAttention(5, 2),
                 lambda: nn.Dropout(2.0), lambda: nn.TransformerBlock(4, 2, activation="x")):
        with pytest.raises(ArgumentError):
            make()


def test_dropout_draws_again_in_the_backward_and_anew_in_each_call() -> None:
    layer = nn.Dropout(0.25, seed=7)
    x = dlc.tensor(np.ones((40, 50), np.float32), requires_grad=True)
    before = counts.copy()
    first, second = layer(x), layer(x)
    (first + second * 0).sum().backward()
    assert np.array_equal(x.grad.numpy(), first.numpy()) and not np.array_equal(first.numpy(), second.numpy())
    assert set(np.unique(first.numpy())) == {0.0, np.float32(1 / 0.75)} and abs((first.numpy() == 0).mean() - 0.25) < 0.05
    assert np.array_equal(nn.Dropout(0.25, seed=7)(x).numpy(), first.numpy())
    assert layer.eval()(x) is x and counts.since(before).plans <= 4
