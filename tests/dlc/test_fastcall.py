"""The functions written for a kernel: they run it for exactly the arguments they were written for, and for no others."""

import ctypes
import threading

import pytest
import torch

import dlc
from dlc import f16, f32, i32, i64
from dlc.runtime.fastcall import MISS, takes_number

M, N, K = dlc.dims("M N K")


@dlc.kernel
def added(x: f32[M, N], y: f32[M, N]):
    return x + y


@dlc.kernel
def scaled(x: f32[M], s: f32, n: i32):
    return x * s + dlc.cast(n, f32)


def function(kernel, *args):
    """What was written for these arguments, after the first call."""
    kernel._calls.forget()
    kernel(*args)
    return kernel._calls.fast


def pair():
    return torch.randn(4, 6), torch.randn(4, 6)


def test_it_runs_what_it_was_written_for():
    x, y = pair()
    call = function(added, x, y)
    assert torch.equal(call((x, y)), x + y) and torch.equal(call((y, torch.nn.Parameter(x, requires_grad=False))), x + y)


class Named(torch.Tensor):
    pass


OTHERS = {
    "shape": lambda x, y: (x[:3], y[:3]),
    "rank": lambda x, y: (x[None], y),
    "dtype": lambda x, y: (x.double(), y),
    "strides": lambda x, y: (x.T.contiguous().T, y),
    "every other": lambda x, y: (torch.zeros(4, 12)[:, ::2], y),
    "expanded": lambda x, y: (x[:1].expand(4, 6), y),
    "misaligned": lambda x, y: (odd(x), y),
    "negative bit": lambda x, y: (torch._neg_view(x), y),
    "requires grad": lambda x, y: (x.requires_grad_(), y),
    "meta": lambda x, y: (x.to("meta"), y),
    "sparse": lambda x, y: (x.to_sparse(), y),
    "compressed": lambda x, y: (x.to_sparse_csr(), y),
    "mkldnn": lambda x, y: (x.to_mkldnn(), y),
    "numpy": lambda x, y: (x.numpy(), y),
    "subclass": lambda x, y: (x.as_subclass(Named), y),
    "number": lambda x, y: (1.0, y),
    "too few": lambda x, y: (x,),
    "too many": lambda x, y: (x, y, y),
    "zero tensor": lambda x, y: (torch._efficientzerotensor((4, 6)), y),
}


def odd(x):
    """The same values one byte off."""
    raw = torch.empty(x.numel() * 4 + 1, dtype=torch.uint8)[1:]
    raw.copy_(x.contiguous().view(-1).view(torch.uint8))
    return _over(raw, torch.float32).view(x.shape)


def _over(raw, dtype):
    """A tensor over bytes wherever they lie."""
    t = torch.frombuffer((ctypes.c_char * raw.numel()).from_address(raw.data_ptr()), dtype=dtype)
    t.owner = raw
    return t


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("what", OTHERS)
def test_it_misses_on_anything_else(what):
    x, y = pair()
    call = function(added, x, y)
    others = OTHERS[what](x, y)
    if what == "misaligned":
        assert others[0].data_ptr() % 4 == 1
    assert call(others) is MISS


def test_it_misses_under_function_transforms():
    x, y = pair()
    call, seen = function(added, x, y), []

    def body(a):
        seen.append(call((a, a)))
        return a

    torch.func.vmap(body)(torch.randn(3, 4, 6))
    torch.func.grad(lambda a: body(a).sum())(x)
    assert seen == [MISS, MISS]


def test_without_grad_mode_it_does_not_care():
    x, y = pair()
    call = function(added, x, y)
    with torch.no_grad():
        assert torch.equal(call((x.requires_grad_(), y)), x + y)


def test_strides_of_dimensions_of_size_one_do_not_matter():
    @dlc.kernel
    def rows(x: f32[M, N]):
        return x * 2.0

    call = function(rows, torch.randn(1, 6))
    x = torch.randn(4, 12)[1:2, 3:9]
    assert x.stride() == (12, 1) and torch.equal(call((x,)), x * 2)


def test_numbers_go_straight_in():
    x = torch.randn(5)
    call = function(scaled, x, 2.5, 3)
    assert torch.equal(call((x, 0.5, -4)), x * 0.5 - 4) and torch.equal(call((x, True, 7)), x + 7)
    assert (call((x, "a", 3)) is MISS and call((x, 1.0, 2.5)) is MISS and call((x, 1.0, 1 << 40)) is MISS
            and call((x, torch.tensor(1.0), 1)) is MISS)


def test_which_numbers_a_dtype_takes():
    assert takes_number(1.5, "f32") and takes_number(True, "bool") and not takes_number(1.5, "i32") and not takes_number(1, "bool")
    assert not takes_number(1.0, "bf16")


def test_nothing_to_compute_runs_nothing():
    call = function(added, torch.randn(0, 6), torch.randn(0, 6))
    assert call((torch.randn(0, 6), torch.randn(0, 6))).shape == (0, 6)


def test_workspaces_and_scratch_come_and_go():
    @dlc.kernel
    def attention(q: f32[M, K], k: f32[N, K], v: f32[N, K]):
        return dlc.softmax(q @ k.T, 1) @ v

    q, k, v = torch.randn(65, 16), torch.randn(300, 16), torch.randn(300, 16)
    call = function(attention, q, k, v)
    before = dlc.memory.stats().in_use
    torch.testing.assert_close(call((q, k, v)), torch.softmax(q @ k.T, 1) @ v, rtol=1e-4, atol=1e-4)
    assert dlc.memory.stats().in_use == before


def test_checks_are_errors():
    @dlc.kernel
    def taken(i: i64[M], w: f32[N]):
        return dlc.compute((M,), lambda m: w[i[m]])

    call = function(taken, torch.tensor([0, 1]), torch.ones(3))
    with pytest.raises(dlc.errors.BoundsError, match=r"outside \[0, 3\)"):
        call((torch.tensor([0, 3]), torch.ones(3)))


def test_an_odd_address_of_two_bytes_is_noticed():
    @dlc.kernel
    def halves(x: f16[M]):
        return x + x

    raw = torch.zeros(9, dtype=torch.uint8)
    call = function(halves, torch.ones(4, dtype=torch.float16))
    assert call((_over(raw[1:], torch.float16),)) is MISS


def test_a_kernel_for_many_sizes_binds_them():
    from dataclasses import replace

    from dlc.compiler import Plan

    @dlc.kernel
    def joined(x: f32[M, N], y: f32[N], z: f32[2 * N]):
        return dlc.compute((M, N), lambda i, j: x[i, j] + y[j] * z[2 * j]), dlc.sum(x, 1)

    def arguments(m, n):
        return torch.randn(m, n), torch.randn(n), torch.randn(2 * n)

    launcher = Plan(replace(joined.plan(*arguments(5, 7)).request, dynamic=frozenset("MN"))).launcher()
    assert launcher.recipe.sizes and launcher.recipe.inputs[2][2] == ("2 * n1",)
    for m, n in ((5, 7), (1, 1), (33, 100), (800, 900)):
        x, y, z = arguments(m, n)
        first, total = launcher.functions.call((x, y, z))
        torch.testing.assert_close(first, x + y * z[::2])
        torch.testing.assert_close(total, x.sum(1), rtol=1e-4, atol=1e-4)
    x, y, z = arguments(4, 6)
    others = [(x, y[:5], z), (x, y, z[:11]), (x.T.contiguous().T, y, z), (x[:0], y, z), (x[None], y, z), (x.double(), y, z), (x, y)]
    assert not any(launcher.functions.serves(args) for args in others) and launcher.functions.serves((x, y, z))


def test_many_threads_call_the_same_function():
    x, y = torch.randn(64, 64), torch.randn(64, 64)
    call, wrong = function(added, x, y), []

    def work(n):
        a = torch.full((64, 64), float(n))
        for _ in range(300):
            if not torch.equal(call((a, a)), a + a):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
