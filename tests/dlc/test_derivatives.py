"""What autograd and torch.func make of kernels: what is kept and computed, second derivatives, transforms."""

from __future__ import annotations

import pytest
import torch

import dlc
from dlc import errors, f32, f64, i64

M, N, D = dlc.dims("M N D")


def attention(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    return dlc.scaled_dot_product_attention(q, k, v)


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1) @ v


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def leaves() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [leaf(5, 4), leaf(7, 4), leaf(7, 4)]


def kept(t: torch.Tensor) -> list[tuple[int, ...]]:
    """The shapes of what the node behind a result holds."""
    return [tuple(s.shape) for s in t.grad_fn.saved_tensors]


SAVES = [None, (), ("top", "total"), ("scores_sum", "top", "total", "attention")]


@pytest.mark.parametrize("save", SAVES)
def test_every_choice_gives_the_same_gradients(save: tuple[str, ...] | None) -> None:
    k = dlc.kernel(attention, save=save)
    mine, theirs = leaves(), leaves()
    for _ in range(2):  # the second call goes another way
        out = k(*mine)
    held = kept(out)
    out.sin().sum().backward()
    plain(*theirs).sin().sum().backward()
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a.grad, b.grad)
    assert save is None or len(held) == 3 + len(save)
    assert torch.autograd.gradcheck(k, leaves()) and torch.autograd.gradgradcheck(k, leaves())


def test_what_is_kept_is_decided_by_bytes_and_told() -> None:
    k = dlc.kernel(attention)
    long = [torch.empty(4096, 64, dtype=torch.float64, device="meta")] * 3
    assert [c.name for c in k.saving(*long).saved] == ["top", "total", "attention"]
    assert "scores_sum" in [c.name for c in k.saving(*(t[:128] for t in long)).saved]
    assert "recompute scores_sum: " in k.explain(*long, saving=True)
    out = k(*[torch.randn(700, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)])
    assert kept(out) == [(700, 8)] * 3 + [(700, 8), (700,), (700,)]


def test_a_definition_to_save_that_is_not_there() -> None:
    with pytest.raises(errors.ArgumentError, match="attention has no definition `nothing` to save"):
        dlc.kernel(attention, save=["nothing"])(*leaves())


def test_results_are_kept_instead_of_inputs_where_that_suffices() -> None:
    @dlc.kernel
    def grow(x: f64[M]):
        return dlc.exp(x)

    x = leaf(6)
    y = grow(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    assert grow.saving(x).saved[0].name == "exp"


def test_only_what_is_needed_is_kept_and_computed() -> None:
    @dlc.kernel
    def product(x: f64[M, D], w: f64[N, D]):
        return dlc.linear(x, w)

    x, w = leaf(5, 4), torch.randn(3, 4, dtype=torch.float64)
    y = product(x, w)
    assert kept(y) == [(3, 4)]
    y.sum().backward()
    torch.testing.assert_close(x.grad, w.sum(0).expand(5, 4))
    assert list(product.derivatives._backs) == [((0,), None, ()), ((0,), (0,), ())]


@dlc.kernel
def several(x: f64[M, N], y: f64[N], at: i64[M]):
    return dlc.exp(x) * y, dlc.sum(x, 1), at + 1


def test_gradients_of_some_results() -> None:
    x, y, at = leaf(4, 3), leaf(3), torch.arange(4)
    a, b, c = several(x, y, at)
    assert not c.requires_grad and c.grad_fn is None
    b.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    assert y.grad is None or not y.grad.any()
    x.grad = None
    several(x, y, at)[0].sum().backward()
    torch.testing.assert_close(x.grad, (x.exp() * y).detach())


def test_gradients_that_are_not_contiguous() -> None:
    x, y, at = leaf(4, 3), leaf(3), torch.arange(4)
    for g in (torch.ones(3, 4, dtype=torch.float64).T, torch.ones((), dtype=torch.float64).expand(4, 3),
              torch.ones(4, 6, dtype=torch.float64)[:, ::2]):
        (d,) = torch.autograd.grad(several(x, y, at)[0], x, g)
        torch.testing.assert_close(d, (x.exp() * y).detach())


def test_gradients_of_integers_are_refused() -> None:
    with pytest.raises(errors.DerivativeError, match="only floats have derivatives"):
        several._backward(("at",))
    with pytest.raises(RuntimeError):
        torch.autograd.grad(several(leaf(4, 3), leaf(3), torch.arange(4))[2].sum(), leaf(3))


def test_a_result_changed_in_place_is_noticed() -> None:
    k = dlc.kernel(attention, save=["attention"])
    out = k(*leaves())
    out.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_empty_inputs() -> None:
    q, k, v = leaf(0, 4), leaf(7, 4), leaf(7, 4)
    dlc.kernel(attention)(q, k, v).sum().backward()
    assert q.grad.shape == (0, 4) and not v.grad.any()


# -- torch.func ----------------------------------------------------------------------------------------------------
@dlc.kernel
def dense(x: f64[M, D], w: f64[N, D]):
    return dlc.tanh(dlc.linear(x, w))


def dense_in_torch(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x @ w.mT)


def both(transform, *args):
    return transform(dense)(*args), transform(dense_in_torch)(*args)


def agree(pair) -> None:
    torch.testing.assert_close(*pair)


def operands() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)


def test_grad_and_its_grad() -> None:
    x, w = operands()
    agree(both(lambda f: torch.func.grad(lambda a, b: f(a, b).sin().sum(), argnums=(0, 1)), x, w))
    agree(both(lambda f: torch.func.grad(lambda a, b: torch.func.grad(lambda c: f(c, b).sin().sum())(a).pow(2).sum()), x, w))


def test_vjp_and_jacobians() -> None:
    x, w = operands()
    agree(both(lambda f: lambda a, b: torch.func.vjp(f, a, b)[1](torch.ones(5, 3, dtype=torch.float64)), x, w))
    agree(both(torch.func.jacrev, x, w))
    agree(both(torch.func.jacfwd, x, w))
    agree(both(lambda f: torch.func.hessian(lambda a, b: f(a, b).sum()), x[:2], w))


def test_jvp() -> None:
    x, w = operands()
    agree(both(lambda f: lambda a, b: torch.func.jvp(f, (a, b), (a.cos(), b.sin())), x, w))
    agree(both(lambda f: lambda a, b: torch.func.jvp(lambda c: f(c, b), (a,), (a.cos(),)), x, w))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x.cos())
        moved = torch.autograd.forward_ad.unpack_dual(dense(dual, w)).tangent
        unmoved = torch.autograd.forward_ad.unpack_dual(dense(x, w))
    torch.testing.assert_close(moved, torch.func.jvp(lambda c: dense_in_torch(c, w), (x,), (x.cos(),))[1])
    assert unmoved.tangent is None
    assert torch.autograd.gradcheck(dense, (x.clone().requires_grad_(), w), check_forward_ad=True)


def test_vmap() -> None:
    x, w = torch.randn(6, 5, 4, dtype=torch.float64), torch.randn(6, 3, 4, dtype=torch.float64)
    for dims, args in (((0, None), (x, w[0])), ((None, 0), (x[0], w)), ((0, 0), (x, w)), ((1, 0), (x.movedim(0, 1), w))):
        agree(both(lambda f, d=dims: torch.func.vmap(f, in_dims=d), *args))
    per_sample = both(lambda f: torch.func.vmap(torch.func.grad(lambda a, b: f(a, b).sum(), argnums=1), in_dims=(0, None)), x, w[0])
    agree(per_sample)
    agree(both(lambda f: torch.func.vmap(torch.func.vmap(f, in_dims=(0, None)), in_dims=(None, 0)), x, w))
    assert torch.func.vmap(dense, in_dims=(0, None))(x[:0], w[0]).shape == (0, 5, 3)


def test_transforms_of_a_kernel_of_integers() -> None:
    @dlc.kernel
    def best(x: f32[M, N]):
        return dlc.argmax(x, 1)

    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(torch.func.vmap(best)(x), x.argmax(2))
    with pytest.raises(errors.DerivativeError, match="best has no float output"):
        torch.func.jvp(best, (x[0],), (x[0],))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_a_pool_gives_the_gradient_to_the_first_of_equals(kernel: int, stride: int, padding: int) -> None:
    @dlc.kernel
    def pool(x: f32[2, 3, 14, 14]):
        return dlc.max_pool2d(x, kernel, stride, padding)

    x = torch.randint(0, 3, (2, 3, 14, 14)).float()  # many are equal
    x[0, 0, 3, 5] = torch.nan
    x[1, 2, 4, 4] = -torch.inf
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, want = pool(ours), torch.nn.functional.max_pool2d(theirs, kernel, stride, padding)
    g = torch.randint(1, 9, want.shape).float()
    found, again = (torch.autograd.grad(y, ours, g, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(found, torch.autograd.grad(want, theirs, g)[0]) and torch.equal(found, again)
    (position,) = [c for c in pool.vjp.program.computes if c.name.endswith("position")]
    assert position.dtype == dlc.i8  # there are few in a window
