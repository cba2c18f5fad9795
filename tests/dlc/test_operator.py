"""Kernels inside torch's machinery: torch.compile without graph breaks, fake tensors, torch.func, opcheck."""

import gc

import pytest
import torch

import dlc
from dlc import f32, f64

M, N, K = dlc.dims("M N K")


@dlc.kernel
def dense(x: f32[M, K], w: f32[N, K]):
    return dlc.tanh(dlc.linear(x, w))


@dlc.kernel
def two(x: f64[M], s: f64):
    return dlc.exp(x) * s, dlc.sum(x)


def inputs(m=5):
    return torch.randn(m, 7, requires_grad=True), torch.randn(3, 7, requires_grad=True)


def plain(x, w):
    return torch.tanh(torch.nn.functional.linear(x * 2, w)).sum(1)


def fused(x, w):
    return dense(x * 2, w).sum(1)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_torch_compile_without_graph_breaks(dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(fused, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for m in (5, 6):
        x, w = inputs(m)
        got = compiled(x, w)
        torch.testing.assert_close(got, plain(x, w))
        expected = torch.autograd.grad(plain(x, w).square().sum(), (x, w))
        for a, b in zip(torch.autograd.grad(got.square().sum(), (x, w)), expected):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_fake_tensors_have_shapes():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        x, w = torch.empty(5, 7), torch.empty(3, 7)
        y = dense(x, w)
    assert type(y).__name__ == "FakeTensor" and y.shape == (5, 3) and y.dtype is torch.float32 and mode


def test_torchs_own_checks():
    torch.library.opcheck(torch.ops.dlc.call.default, (dense.key, list(inputs())),
                          test_utils=("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static"))


def test_several_results_and_scalars():
    x = torch.randn(4, dtype=torch.float64)
    compiled = torch.compile(lambda a, s: two(a, s), fullgraph=True, backend="eager")
    torch._dynamo.reset()
    named = torch.compile(lambda a: two(s=2.0, x=a), fullgraph=True, backend="eager")
    for a, b in zip(named(x), two(x, 2.0)):
        assert torch.equal(a, b)
    first, total = compiled(x, torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(first, x.exp() * 2)
    torch.testing.assert_close(total, x.sum())


def test_a_kernel_that_is_gone_is_named():
    key = dlc.kernel(dense.fn).key
    gc.collect()
    with pytest.raises(dlc.errors.ArgumentError, match="there is no kernel dense any more"):
        torch.ops.dlc.call(key, [torch.ones(2, 2), torch.ones(2, 2)])


@pytest.mark.filterwarnings("ignore")
def test_results_go_where_the_caller_wants_them():
    torch._dynamo.reset()
    x, w = torch.randn(5, 7), torch.randn(3, 7)

    def into(x, w, out):
        return dense(x * 2, w, out=out)

    out = torch.zeros(5, 3)
    torch.compile(into, fullgraph=True, backend="aot_eager")(x, w, out)
    torch.testing.assert_close(out, torch.tanh(torch.nn.functional.linear(x * 2, w)))
    rows = torch.zeros(5, 3)
    torch.func.vmap(lambda a, o: dense(a[None], w, out=o))(x * 2, rows[:, None])
    torch.testing.assert_close(rows, out)
    with pytest.raises(dlc.errors.ArgumentError, match="out= has 1 tensors, the call 2 results"):
        torch.func.vmap(lambda a: two(a, torch.tensor(2.0, dtype=torch.float64), out=(a,)))(torch.randn(2, 3, dtype=torch.float64))


def test_nested_tensors_are_refused_in_words():
    with pytest.raises(dlc.errors.ArgumentError, match="`x` is a nested tensor"):
        dense(torch.nested.nested_tensor([torch.randn(2, 7), torch.randn(3, 7)], layout=torch.jagged), torch.randn(3, 7))
