"""Calls in machine code: they agree with the functions written in Python, and leave to those what is not plain."""

import gc
import os
import sys
import weakref

import pytest
import torch

import dlc
from dlc import f32, i64, memory
from dlc.runtime.direct import can_call
from dlc.runtime.fastcall import MISS

M, N, K = dlc.dims("M N K")


@dlc.kernel
def added(x: f32[M, N], y: f32[M, N]):
    return x + y


@dlc.kernel
def both(x: f32[M, N]):
    return x * 2.0, dlc.cast(x, i64)


@dlc.kernel
def picked(x: f32[M], at: i64[N]):
    return dlc.compute((N,), lambda n: x[at[n]])


@dlc.kernel
def attention(q: f32[M, K], k: f32[N, K], v: f32[N, K]):
    return dlc.softmax(q @ k.T, 1) @ v


def direct(kernel, *args):
    """The call in machine code of a kernel that was called with some arguments."""
    kernel._calls.forget()
    kernel(*args)
    if not can_call(kernel.plan(*args).launcher().recipe):
        pytest.skip("no calls in machine code on this torch")
    assert "built-in" in repr(kernel.fast)
    return kernel.fast


def test_one_result_several_and_none_that_leak():
    x, y = torch.randn(4, 6), torch.randn(4, 6)
    one = direct(added, x, y)
    z = one((x, y))
    assert torch.equal(z, x + y)
    several = direct(both, x)
    a, b = several((x,))
    assert torch.equal(a, x * 2) and torch.equal(b, x.long())
    left = [weakref.ref(t) for t in (z, a, b)]
    del z, a, b
    assert [r() for r in left] == [None] * 3
    before = sys.getrefcount(x), sys.getrefcount(MISS), sys.getrefcount(None)
    for _ in range(100):
        one((x, y))
        one((x, y[:2]))
    after = sys.getrefcount(x), sys.getrefcount(MISS), sys.getrefcount(None)
    assert all(abs(a - b) < 50 for a, b in zip(before, after))


def test_large_results_come_from_the_pool_and_private_memory_goes_back():
    x = torch.randn(1024, 1024)
    call = direct(added, x, x)
    memory.trim()
    mapped = memory.stats().mapped
    first = call((x, x))  # mapped by Python
    where = first.data_ptr()
    assert memory.stats().mapped == mapped + 1
    del first
    again = call((x, x))
    assert again.data_ptr() == where and torch.equal(again, x + x) and memory.stats().mapped == mapped + 1
    q, k = torch.randn(65, 64), torch.randn(3000, 64)
    call = direct(attention, q, k, k)
    held, want = memory.stats().in_use, torch.softmax(q @ k.T, 1) @ k
    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        torch.testing.assert_close(call((q, k, k)), want, atol=1e-4, rtol=1e-4)
    assert memory.stats().in_use == held


def test_a_failed_check_is_the_error_it_always_was():
    x, at = torch.randn(5), torch.tensor([0, 3])
    call = direct(picked, x, at)
    assert torch.equal(call((x, at)), x[at])
    with pytest.raises(dlc.errors.BoundsError):
        call((x, torch.tensor([0, 7])))
    gc.collect()


def test_parameters_inference_and_forward_mode():
    x, w = torch.randn(4, 6), torch.nn.Parameter(torch.randn(4, 6))
    call = direct(added, x, x)
    assert call((x, w)).requires_grad
    with torch.no_grad():
        assert not call((x, w)).requires_grad and torch.equal(call((x, w)), x + w)
        with torch.autograd.forward_ad.dual_level():
            assert call((x, w)) is MISS and torch.equal(added(x, w), x + w)
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones(4, 6))
            assert call((x, dual)) is MISS
            assert torch.equal(torch.autograd.forward_ad.unpack_dual(added(x, dual)).tangent, torch.ones(4, 6))
    with torch.inference_mode():
        frozen = torch.randn(4, 6)
        assert call((frozen, x)).is_inference()
    assert torch.equal(call((frozen, x)), frozen + x)


def test_what_does_not_matter_may_differ():
    row = torch.randn(1, 6)
    call = direct(added, row, row)
    assert torch.equal(call((row.as_strided((1, 6), (17, 1)), row)), row + row)
    assert call((row.as_strided((1, 6), (6, 0)), row)) is MISS


def test_who_has_none():
    x = torch.randn(4, 6)
    recipe = added.plan(x, x).launcher().recipe
    assert not can_call(added.plan(torch.randn(0, 6), torch.randn(0, 6)).launcher().recipe)
    many = dlc.kernel(added.fn)
    for m in range(2, 8):
        many(torch.randn(m, 16), torch.randn(m, 16))
    assert recipe.sizes == () and "built-in" not in repr(many.fast)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_it_to_python():
    x = torch.randn(300, 300)
    call = direct(added, x, x)
    child = os.fork()
    if child == 0:
        y = call((x, x))
        torch.set_num_threads(1)
        os._exit(0 if bool((y == x + x).all()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
