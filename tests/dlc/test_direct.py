"""Calls in machine code: they agree with the functions written in Python, and leave to those what is not plain."""

import gc
import os
import sys
import weakref

import pytest
import torch

import dlc
from dlc import f32, i32, i64, memory
from dlc.runtime.direct import facts
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
    if facts(kernel.plan(*args).launcher().recipe) is None:
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
    nothing = torch.randn(0, 6)
    assert facts(added.plan(nothing, nothing).launcher().recipe) is None
    deep = dlc.kernel(_deep)
    x = torch.randn(1, 1, 1, 1, 1, 2)
    assert facts(deep.plan(x).launcher().recipe) is None and torch.equal(deep(x), x + 1)


def _deep(x: f32[1, 1, 1, 1, 1, 2]):
    return x + 1.0


def any_size(fn, *shapes):
    """A kernel for which the first size of its arguments is an argument."""
    kernel = dlc.kernel(fn)
    for m in range(2, 8):
        kernel(*[torch.randn(m, *rest) for rest in shapes])
    if "built-in" not in repr(kernel.fast):
        pytest.skip("no calls in machine code on this torch")
    return kernel


def test_sizes_that_change():
    many = any_size(added.fn, (6,), (6,))
    call = many.fast
    for m in (9, 1, 300):
        x, y = torch.randn(m, 6), torch.randn(m, 6)
        assert torch.equal(call((x, y)), x + y)
    assert call((torch.randn(9, 6), torch.randn(8, 6))) is MISS
    assert call((torch.randn(9, 6), torch.randn(6, 9).T)) is MISS
    assert call((torch.randn(9, 6), torch.randn(9, 6).double())) is MISS
    assert call((torch.randn(0, 6), torch.randn(0, 6))) is MISS
    assert many(torch.randn(0, 6), torch.randn(0, 6)).shape == (0, 6)
    with pytest.raises(dlc.errors.ShapeError):
        many(torch.randn(9, 6), torch.randn(8, 6))


def test_sizes_that_change_have_large_results_and_private_memory():
    many = any_size(attention.fn, (64,), (64,), (64,))
    held = memory.stats().in_use
    for m, n in ((5, 3000), (65, 3000), (9000, 70)):
        q, k = torch.randn(m, 64), torch.randn(n, 64)
        for _ in range(2):
            torch.testing.assert_close(many(q, k, k), torch.softmax(q @ k.T, 1) @ k, atol=1e-4, rtol=1e-4)
    assert memory.stats().in_use == held
    assert "built-in" in repr(many.fast)


def test_sizes_with_a_kernel_of_their_own_go_on_using_it():
    many = dlc.kernel(added.fn)
    first = torch.randn(2, 6)
    many(first, first)
    own = many.fast
    for m in range(3, 8):
        many(torch.randn(m, 6), torch.randn(m, 6))
    assert torch.equal(many(first, first), first + first)
    assert torch.equal(own((first, first)), first + first)
    out = torch.empty(2, 6)
    for _ in range(3):
        assert many(first, first, out=out) is out and torch.equal(out, first + first)


@dlc.kernel
def halves(x: f32[M, 2 * N], y: f32[N]):
    return dlc.compute((M, N), lambda m, n: x[m, n] * x[m, n + N] + y[n]), dlc.sum(x, 1)


def test_sizes_that_are_formulas_of_others():
    kernel = dlc.kernel(halves.fn)
    for m in range(2, 8):
        for n in (m, m + 1):
            x, y = torch.randn(m, 2 * n), torch.randn(n)
            a, b = kernel(x, y)
            torch.testing.assert_close(a, x[:, :n] * x[:, n:] + y)
            torch.testing.assert_close(b, x.sum(1))
    call = kernel.fast
    assert call((torch.randn(4, 7), torch.randn(3))) is MISS and call((torch.randn(4, 8), torch.randn(3))) is MISS
    with pytest.raises(dlc.errors.ShapeError):
        kernel(torch.randn(4, 7), torch.randn(3))


def test_results_that_are_given():
    x, y, out = torch.randn(4, 6), torch.randn(4, 6), torch.empty(4, 6)
    direct(added, x, y)
    assert added(x, y, out=out) is out
    fill, version = added._calls.fill, out._version
    assert "built-in" in repr(fill)
    assert fill((x, y), out) is out and torch.equal(out, x + y) and out._version == version + 1
    want = x + y
    assert fill((x, y), x) is x and torch.equal(x, want)  # each element is read before it is written
    whole = torch.randn(9, 6)
    for wrong in (torch.empty(6, 4), torch.empty(6, 4).T, torch.empty(4, 6).double(), torch.empty(4, 6, requires_grad=True), None, 3.0,
                  torch.empty(4, 6, device="meta"), torch.empty(4, 6).to_sparse(), (out,), torch._neg_view(torch.empty(4, 6))):
        assert fill((x, y), wrong) is MISS
    assert fill((whole[:4], y), whole[1:5]) is MISS
    for wrong in (whole[1:5], torch.empty(6, 4)):
        with pytest.raises(dlc.errors.ArgumentError):
            added(whole[:4], y, out=wrong)
    with torch.inference_mode():
        frozen = torch.empty(4, 6)
    assert fill((x, y), frozen) is frozen and torch.equal(frozen, x + y)
    with torch.no_grad():
        asked = torch.empty(4, 6, requires_grad=True)
        assert fill((x, y), asked) is asked
    assert fill((x.clone().requires_grad_(), y), out) is MISS


def test_several_results_that_are_given():
    x, a, b = torch.randn(4, 6), torch.empty(4, 6), torch.empty(4, 6, dtype=torch.int64)
    direct(both, x)
    both(x, out=(a, b))
    fill = both._calls.fill
    for outs in ((a, b), [a, b]):
        a.zero_(), b.zero_()
        assert fill((x,), outs) is outs and torch.equal(a, x * 2) and torch.equal(b, x.long())
    for wrong in ((a,), (b, a), (a, a), (a, b, a), a, None, {0: a, 1: b}, (a, b.view(-1)), [None, b]):
        assert fill((x,), wrong) is MISS
    left = sys.getrefcount(a), sys.getrefcount(b)
    for _ in range(100):
        fill((x,), (a, b))
        fill((x,), (a, a))
    assert all(abs(now - then) < 50 for now, then in zip((sys.getrefcount(a), sys.getrefcount(b)), left))
    rows = torch.empty(2, 6, 8).view(torch.uint8).view(-1)
    over = rows[:96].view(torch.float32).view(4, 6), rows[64:256].view(torch.int64).view(4, 6)
    assert fill((x,), over) is MISS


def test_changing_sizes_fill_what_is_given():
    many = any_size(added.fn, (6,), (6,))
    x, out = torch.randn(9, 6), torch.empty(9, 6)
    many(x, x, out=out)
    assert "built-in" in repr(many._calls.fill)
    x, out = torch.randn(11, 6), torch.empty(12, 6)
    assert many._calls.fill((x, x), out) is MISS
    assert many._calls.fill((x, x), out[1:]) is not MISS and torch.equal(out[1:], x + x)
    assert many._calls.fill((out[:-1], x), out[1:]) is MISS


@dlc.kernel
def scaled(x: f32[M], s: f32, n: i32, b: dlc.bool_):
    return dlc.where(b, x * s + dlc.cast(n, f32), x)


def test_numbers():
    x = torch.randn(7)
    call = direct(scaled, x, 2.0, 3, True)
    assert torch.equal(call((x, 0.1, -5, True)), x * 0.1 + -5) and torch.equal(call((x, 0.1, 1, False)), x)
    assert torch.equal(call((x, True, 2**31 - 1, True)), x + torch.tensor(2**31 - 1).float())
    assert torch.equal(call((x, -1, -1, True)), x * -1 + -1)
    assert torch.isinf(call((x + 10, 1e300, 0, True))).all()
    for args in ((x, "2", 3, True), (x, 2.0, 3.0, True), (x, 2.0, 2**31, True), (x, 2.0, 10**40, True), (x, 10**400, 3, True),
                 (x, 2.0, 3, 1), (x, None, 3, True), (x, 2j, 3, True), (x, 2.0, True, None), (x, torch.tensor(2.0), 3, True)):
        assert call(args) is MISS
    with pytest.raises(dlc.errors.ArgumentError):
        scaled(x, 2.0, 2**31, True)
    with pytest.raises(dlc.errors.DtypeError):
        scaled(x, 2.0, 3.5, True)
    followed = x.clone().requires_grad_()
    scaled(followed, 2.0, 3, True).sum().backward()
    assert torch.equal(followed.grad, torch.full((7,), 2.0))


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
