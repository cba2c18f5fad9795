"""dlc.Tensor: the same operations as in kernels, lazily fused; interop; autograd held against torch."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dlc
from dlc import f32
from dlc.realize import counts
from dlc.tensor import Tensor
from dsl.errors import ArgumentError, DerivativeError, DtypeError, ShapeError

M, N = dlc.dims("M N")


def close(ours: Tensor, theirs: torch.Tensor, tolerance: float = 2e-5) -> None:
    assert ours.shape == tuple(theirs.shape)
    torch.testing.assert_close(ours.torch(), theirs.detach(), atol=tolerance, rtol=tolerance)


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, torch.Tensor]:
    t = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    return dlc.tensor(t, requires_grad=True), t


# -- arrays --------------------------------------------------------------------------------------------------------
def test_made_from_lists_numbers_and_arrays() -> None:
    assert dlc.tensor([[1, 2], [3, 4]]).dtype == dlc.i64
    assert dlc.tensor([1.0, 2.0]).dtype == dlc.f32
    assert dlc.tensor(True).dtype == dlc.bool_
    assert dlc.tensor(np.ones(3, np.float64)).dtype == dlc.f64
    assert dlc.tensor(torch.ones(2, dtype=torch.bfloat16)).dtype == dlc.bf16
    assert dlc.tensor([1, 2], dtype=dlc.f16).tolist() == [1.0, 2.0]
    assert dlc.tensor(dlc.tensor([1, 2])).tolist() == [1, 2]


def test_a_tensor_copies_and_from_shares() -> None:
    a, t = np.zeros(3, np.float32), torch.zeros(3)
    copied, shared, theirs = dlc.tensor(a), dlc.from_numpy(a), dlc.from_torch(t)
    a[0], t[1] = 1, 1
    assert copied.tolist() == [0, 0, 0] and shared.tolist() == [1, 0, 0] and theirs.tolist() == [0, 1, 0]
    assert theirs.torch().data_ptr() == t.data_ptr() and np.shares_memory(shared.numpy(), a)


def test_dlpack_both_ways() -> None:
    t = dlc.from_dlpack(np.arange(6, dtype=np.float32).reshape(2, 3)) + 1
    np.testing.assert_array_equal(np.from_dlpack(t), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(np.asarray(t), [[1, 2, 3], [4, 5, 6]])
    assert torch.from_dlpack(t).shape == (2, 3)


def test_strides_and_odd_memory() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    close(dlc.from_torch(base.t()) * 2, base.t() * 2)
    close(dlc.from_numpy(base.numpy()[:, ::-1]) + 0, torch.from_numpy(base.numpy()[:, ::-1].copy()))


def test_facts() -> None:
    t = dlc.zeros(2, 3)
    assert (t.shape, t.ndim, t.size, t.numel(), t.nbytes, len(t), t.device) == ((2, 3), 2, 6, 6, 24, 2, "cpu")
    assert not t.is_realized and t.realize().is_realized
    assert [float(row.sum()) for row in dlc.ones(2, 3)] == [3.0, 3.0]


def test_created() -> None:
    assert dlc.arange(2, 8, 3).tolist() == [2, 5] and dlc.arange(3).dtype == dlc.i64
    assert dlc.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert dlc.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert dlc.full((2,), 7).dtype == dlc.i64 and dlc.full_like(dlc.ones(2), 7).tolist() == [7.0, 7.0]
    assert dlc.ones_like(dlc.zeros(2)).tolist() == [1, 1] and dlc.empty(2, 2).shape == (2, 2)


def test_repr_tells_what_it_is() -> None:
    x = dlc.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "dlc.tensor([1., 2.], f32[2], requires_grad=True)"
    assert repr((x * 2).sum()) == "dlc.tensor(6., f32[], grad_fn=<sum>)"
    assert f"{x.sum():.2f}" == "3.00"


@pytest.mark.parametrize("make, error, words", [
    (lambda: dlc.tensor([[1, 2], [3]]), ArgumentError, "a list that is no array"),
    (lambda: dlc.tensor(object()), ArgumentError, "a object is not an array"),
    (lambda: dlc.tensor(np.array(["a"])), DtypeError, "not numbers"),
    (lambda: dlc.ones(2).item(), ArgumentError, "2 elements"),
    (lambda: dlc.ones(2, 3) @ dlc.ones(2, 3), ShapeError, "do not agree"),
    (lambda: dlc.ones(2, 3) + dlc.ones(2), ShapeError, "cannot broadcast"),
    (lambda: dlc.tensor([1, 2], requires_grad=True), DtypeError, "only floats"),
    (lambda: dlc.relu(dlc.ones(2), {}), ArgumentError, "a dict in a call of relu"),
])
def test_errors(make: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()  # type: ignore[operator]


# -- operations ----------------------------------------------------------------------------------------------------
def test_operators_are_those_of_torch() -> None:
    (a, x), (b, y) = pair(3, 4), pair(4, seed=1)
    cases = [(a + b, x + y), (2 - a, 2 - x), (a * 3, x * 3), (a / b, x / y), (abs(a) ** 1.5, abs(x) ** 1.5), (-a, -x), (a @ b, x @ y),
             (a > b, x > y), (a // 0.5, x // 0.5), (a % 0.7, x % 0.7), (1 / a, 1 / x), ((a < 0) & (a > -1), (x < 0) & (x > -1))]
    for ours, theirs in cases:
        close(ours, theirs)


def test_functions_and_methods_and_foreign_arrays() -> None:
    a, x = pair(3, 4)
    close(dlc.where(a > 0, a.exp(), dlc.tanh(a)), torch.where(x > 0, x.exp(), x.tanh()))
    close(a.softmax(1), x.softmax(1))
    close(a.sum(), x.sum())
    close(a.mean(dim=1, keepdim=True), x.mean(1, keepdim=True))
    close(a.max((0, 1)), x.amax())
    close(np.ones((3, 4), np.float32) * a, x)
    close(a + torch.ones(4), x + 1)
    close(dlc.layer_norm(a), F.layer_norm(x, (4,)))
    values, places = dlc.cummax(a, 1)
    close(values, x.cummax(1).values)
    assert places.dtype == dlc.i64


def test_indexing() -> None:
    a, x = pair(5, 6)
    at = dlc.tensor([4, 0, 2])
    for ours, theirs in [(a[1], x[1]), (a[-1, 2], x[-1, 2]), (a[1:4:2], x[1:4:2]), (a[:, None, ::-1], x.flip(1)[:, None]),
                         (a[..., 0], x[..., 0]), (a[at], x[[4, 0, 2]]), ((a * 2)[1:, at], (x * 2)[1:, [4, 0, 2]])]:
        close(ours, theirs)


def test_numbers_that_change_compile_once() -> None:
    a, x = pair(4)
    (a.detach() * 0.125).realize()
    before = counts.copy()
    for n in range(12):
        close(a.detach() * (n + 0.5), x * (n + 0.5))
    assert counts.since(before).compiled <= 5


# -- laziness ------------------------------------------------------------------------------------------------------
def test_chains_fuse_and_compile_once() -> None:
    def run(seed: int) -> Tensor:
        a, b = pair(8, 5, seed=seed)[0].detach(), pair(5, 7, seed=seed + 1)[0].detach()
        return dlc.relu(a @ b + 1).sum(1)

    run(0).realize()
    before = counts.copy()
    y = run(2)
    text = y.explain()
    y.realize()
    done = counts.since(before)
    assert done.launches["forward"] == 1 and done.compiled == done.plans == 0
    assert "matmul[i, j] = sum[k]" in text and y.explain() == ""


def test_what_the_user_holds_is_computed_once() -> None:
    a = pair(64)[0].detach()
    held = (a * 2).exp()
    total = held.sum()
    total.realize()
    assert held.is_realized


def test_products_in_a_row_are_kernels_in_a_row() -> None:
    (a, x), (b, y) = pair(6, 6), pair(6, 6, seed=1)
    with dlc.no_grad():
        out = dlc.relu(a @ b) @ b
        assert out.explain().count("# forward") == 2
        close(out, F.relu(x @ y) @ y)


def test_dropped_graphs_free_their_memory() -> None:
    a, _ = pair(16)
    y = (a * 2).exp()
    y.sum().backward()
    node = weakref.ref(y._edge[0])  # type: ignore[index]
    memory = weakref.ref(y.torch())
    del y
    gc.collect()
    assert node() is None and memory() is None


def test_long_loops_are_computed_on_the_way() -> None:
    t = dlc.ones(3)
    for _ in range(1200):
        t = t * 1.0 + 0.5
    assert t.tolist() == [601.0] * 3


# -- gradients -----------------------------------------------------------------------------------------------------
def test_gradients_accumulate_in_leaves_as_in_torch() -> None:
    (a, x), (b, y) = pair(3, 4), pair(4, 2, seed=1)
    for _ in range(2):
        (dlc.gelu(a @ b) * b.sum()).mean().backward()
        (F.gelu(x @ y) * y.sum()).mean().backward()
    assert x.grad is not None and y.grad is not None
    close(a.grad, x.grad)
    close(b.grad, y.grad)
    a.zero_grad()
    assert a.grad is None and a.is_leaf and a.grad_fn is None


def test_backward_of_a_tensor_with_elements() -> None:
    a, x = pair(3, 4)
    (a * a).backward(torch.ones(3, 4))
    (x * x).backward(torch.ones(3, 4))
    close(a.grad, x.grad)  # type: ignore[arg-type]
    with pytest.raises(DerivativeError, match="needs a gradient"):
        (a * 2).backward()
    with pytest.raises(ShapeError, match="the gradient is"):
        (a * 2).backward(torch.ones(3))


def test_derivatives_of_derivatives() -> None:
    a, x = pair(5)
    (g,) = dlc.grad((a.tanh() * a).sum(), a, create_graph=True)
    (h,) = torch.autograd.grad((x.tanh() * x).sum(), x, create_graph=True)
    (g * g).sum().backward()
    (h * h).sum().backward()
    close(a.grad, x.grad)  # type: ignore[arg-type]


def test_second_derivative_through_a_softmax() -> None:
    a, x = pair(4, 6)
    (g,) = dlc.grad((a.softmax(1) ** 2).sum(), a, create_graph=True)
    (h,) = torch.autograd.grad((x.softmax(1) ** 2).sum(), x, create_graph=True)
    close(dlc.grad((g ** 3).sum(), a)[0], torch.autograd.grad((h ** 3).sum(), x)[0], 1e-4)


def test_grad_of_what_is_between() -> None:
    a, x = pair(4)
    middle, theirs = a * 2, x * 2
    close(dlc.grad((middle ** 3).sum(), [middle, a])[0], torch.autograd.grad((theirs ** 3).sum(), theirs)[0])
    with pytest.raises(DerivativeError, match="do not depend"):
        dlc.grad(a.sum(), pair(2)[0])
    assert dlc.grad(a.sum(), pair(2)[0], allow_unused=True) == (None,)


def test_a_graph_is_walked_once_unless_kept() -> None:
    a, _ = pair(3)
    y = (a * a).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(DerivativeError, match="already walked"):
        y.backward()


def test_clones_have_memory_and_gradients_of_their_own() -> None:
    x = dlc.tensor([1.0, 2.0], requires_grad=True)
    y = x.clone()
    (y * y).sum().backward()
    close(x.grad, torch.tensor([2.0, 4.0]))
    assert y.realize().torch().data_ptr() != x.torch().data_ptr()


def test_no_grad_detach_and_integers() -> None:
    a, _ = pair(3)
    with dlc.no_grad():
        assert not (a * 2).requires_grad and not dlc.is_grad_enabled()
        with dlc.enable_grad():
            assert (a * 2).requires_grad
    assert (a * 2).requires_grad and not (a * 2).detach().requires_grad and not a.argmax().requires_grad

    @dlc.no_grad()
    def quiet() -> bool:
        return bool((a * 2).requires_grad)

    assert not quiet() and dlc.is_grad_enabled()
    with pytest.raises(DerivativeError, match="does not require grad"):
        a.detach().sum().backward()


def test_retained_gradients_and_hooks() -> None:
    a, x = pair(3)
    middle, theirs = (a * 2).retain_grad(), x * 2
    theirs.retain_grad()
    remove = a.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g * 10)
    (middle ** 2).sum().backward()
    (theirs ** 2).sum().backward()
    close(middle.grad, theirs.grad)  # type: ignore[arg-type]
    close(a.grad, x.grad)  # type: ignore[arg-type]
    remove()
    a.zero_grad()
    (a * 2).sum().backward()
    close(a.grad, torch.full((3,), 2.0))


def test_looking_at_the_loss_first_keeps_what_the_backward_needs() -> None:
    (a, x), (b, y) = pair(8, 8), pair(8, 8, seed=1)
    loss, theirs = dlc.relu(a @ b).sum(), F.relu(x @ y).sum()
    assert abs(loss.item() - theirs.item()) < 1e-3
    before = counts.copy()
    loss.backward()
    theirs.backward()
    close(a.grad, x.grad)  # type: ignore[arg-type]
    done = counts.since(before)
    assert done.launches["forward"] == 0, "the product was computed again"


def test_gradients_of_one_backward_are_computed_together() -> None:
    (a, _), (b, _) = pair(4, 4), pair(4, 4, seed=1)
    loss = (a @ b).sum()
    loss.backward()
    a.grad.realize()
    assert b.grad.is_realized and loss.is_realized


def test_gradcheck_in_float64() -> None:
    def loss(t: Tensor) -> Tensor:
        return (dlc.log_softmax(t * 2, 1) * dlc.erf(t)).sum()  # type: ignore[no-any-return]

    x = np.random.default_rng(0).normal(size=(3, 4))
    t = dlc.tensor(x, requires_grad=True)
    loss(t).backward()
    for at in np.ndindex(3, 4):
        step = np.zeros_like(x)
        step[at] = 1e-5
        numeric = (loss(dlc.tensor(x + step)).item() - loss(dlc.tensor(x - step)).item()) / 2e-5
        assert abs(numeric - t.grad.numpy()[at]) < 1e-7


# -- kernels -------------------------------------------------------------------------------------------------------
@dlc.kernel
def scaled(x: f32[M, N], s: f32[M]) -> object:
    """A custom operator."""
    return dlc.compute((M, N), lambda i, j: dlc.silu(x[i, j]) * s[i])


def test_a_kernel_of_the_user_is_one_operation_of_the_graph() -> None:
    (a, x), (s, y) = pair(3, 4), pair(3, seed=1)
    out, theirs = scaled(a * 2, s), F.silu(x * 2) * y[:, None]
    assert out.grad_fn.name == "scaled"
    close(out, theirs)
    out.sum().backward()
    theirs.sum().backward()
    close(a.grad, x.grad)  # type: ignore[arg-type]
    close(s.grad, y.grad)  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="its declaration f32"):
        scaled(a.to(dlc.f64), s)
    with pytest.raises(ShapeError, match="disagree about M"):
        scaled(a, pair(5)[0])


# -- shapes --------------------------------------------------------------------------------------------------------
def test_reshaping_is_free_and_differentiable() -> None:
    a, x = pair(4, 6)
    out = ((a * 2).reshape(2, -1).exp().view(3, 8).sum(1) * a.reshape(3, 8)[:, 0]).squeeze()
    theirs = (x * 2).reshape(2, -1).exp().view(3, 8).sum(1) * x.reshape(3, 8)[:, 0]
    close(out, theirs)
    out.sum().backward()
    theirs.sum().backward()
    close(a.grad, x.grad, 1e-3)  # type: ignore[arg-type]
    base = dlc.zeros(4, 6).realize()
    assert base.reshape(24).torch().data_ptr() == base.torch().data_ptr()
    close(dlc.from_torch(x.detach().t()).reshape(24), x.t().reshape(24))
    with pytest.raises(ShapeError, match="cannot be reshaped"):
        a.reshape(5, 5)


def test_reshaped_in_every_place() -> None:
    a, x = pair(4, 6)
    with dlc.no_grad():
        close((a * 2).reshape(24), (x * 2).reshape(24))
        close((a * 2).reshape(24).reshape(6, 4).reshape(3, 8) + 1, (x * 2).reshape(3, 8) + 1)
        held = (a + 1).reshape(24)
        close(held.sum() + held.max(), (x + 1).sum() + (x + 1).max())
        close((a.flatten()[:4] + (a * 3).reshape(6, 4)[1]).unsqueeze(0), (x.flatten()[:4] + (x * 3).reshape(6, 4)[1])[None])


def test_axes_in_another_order() -> None:
    a, x = pair(2, 3, 4)
    with dlc.no_grad():
        close(a.permute(2, 0, 1), x.permute(2, 0, 1))
        close(a.transpose(0, 1) * 2, x.transpose(0, 1) * 2)
        close(a.T, x.permute(2, 1, 0))
