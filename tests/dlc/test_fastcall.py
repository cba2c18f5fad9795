"""The functions written for a kernel: they run it for exactly the arguments they were written for, and for no others."""

import ctypes
import threading

import ml_dtypes
import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, f16, f32, i32, i64
from dlc.runtime.fastcall import MISS, takes_number

M, N, K = dlc.dims("M N K")


@dlc.kernel
def added(x: f32[M, N], y: f32[M, N]):
    return x + y


@dlc.kernel
def scaled(x: f32[M], s: f32, n: i32):
    return x * s + dlc.cast(n, f32)


@pytest.fixture(params=["machine code", "Python"], autouse=True)
def way(request, monkeypatch):
    """Everything holds of the functions in machine code, and of those written in Python, which they leave calls to."""
    if request.param == "Python":
        monkeypatch.setattr("dlc.runtime.fastcall.facts", lambda recipe, numbers: None)


def function(kernel, *args):
    """What was written for these arguments, after the first call."""
    kernel._calls.forget()
    kernel(*args)
    return kernel.fast


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


def test_what_requires_grad_is_followed():
    x, y = pair()
    call = function(added, x, y)
    z = call((x.requires_grad_(), y))
    assert torch.equal(z, x + y) and z.requires_grad
    z.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))

    scale = function(scaled, torch.randn(5), 2.5, 3)
    s = torch.randn(5, requires_grad=True)
    scale((s, 2.0, 1)).sum().backward()
    assert torch.equal(s.grad, torch.full((5,), 2.0))


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


# -- numpy arrays ----------------------------------------------------------------------------------------------------
def test_arrays_go_straight_in():
    x, y = (t.numpy() for t in pair())
    call = function(added, x, y)
    result = call((x, y))
    assert type(result) is np.ndarray and np.array_equal(result, x + y)
    assert np.array_equal(call((np.broadcast_to(x[0], (4, 6)).copy(), y)), x[0] + y)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.array_equal(call((frozen, y)), x + y), "what is only read need not be writeable"


OTHER_ARRAYS = {
    "shape": lambda x: x[:3],
    "rank": lambda x: x[None],
    "dtype": lambda x: x.astype(np.float64),
    "byte order": lambda x: x.astype(">f4"),
    "strides": lambda x: np.asfortranarray(x),
    "backwards": lambda x: x[::-1],
    "every other": lambda x: np.zeros((4, 12), np.float32)[:, ::2],
    "broadcast": lambda x: np.broadcast_to(x[:1], (4, 6)),
    "misaligned": lambda x: np.frombuffer(b"." * 97, np.uint8)[1:97].view(np.float32).reshape(4, 6),
    "subclass": lambda x: np.ma.MaskedArray(x),
    "tensor": lambda x: torch.from_numpy(x),
}


@pytest.mark.parametrize("what", OTHER_ARRAYS)
def test_it_misses_on_any_other_array(what):
    x, y = (t.numpy() for t in pair())
    call = function(added, x, y)
    assert call((OTHER_ARRAYS[what](x), y)) is MISS


def test_arrays_with_strides():
    x, y = np.random.randn(8, 18).astype(np.float32), np.random.randn(6, 4).astype(np.float32)
    call = function(added, x[::2, ::3], y.T)
    assert np.array_equal(call((x[::2, ::3], y.T)), x[::2, ::3] + y.T) and call((x[::2, :6], y.T)) is MISS
    row = np.random.randn(3, 24).astype(np.float32)
    call = function(added, row[1:2, ::4], row[2:, 6:12])
    assert np.array_equal(call((row[:1, ::4], row[1:2, :6])), row[:1, ::4] + row[1:2, :6])


def test_arrays_of_dtypes_that_numpy_does_not_have():
    @dlc.kernel
    def doubled(x: bf16[M]):
        return x + x

    x = np.arange(5).astype(ml_dtypes.bfloat16)
    result = function(doubled, x)((x,))
    assert result.dtype == x.dtype and np.array_equal(result.astype(np.float32), np.arange(5) * 2.0)


def test_large_results_as_arrays_lie_in_the_pool():
    x = np.ones((1024, 1024), np.float32)
    call = function(added, x, x)
    before = dlc.memory.stats().in_use
    result = call((x, x))
    assert dlc.memory.stats().in_use - before >= x.nbytes and np.array_equal(result, x + x)
    del result
    assert dlc.memory.stats().in_use == before


def test_arrays_for_many_sizes_with_strides_of_their_own():
    from dataclasses import replace

    from dlc.compiler import Plan
    from dlc.runtime.fastcall import Functions
    from dlc.runtime.written import Given

    x = np.random.randn(20, 30).astype(np.float32)
    plan = added.plan(torch.from_numpy(x[:4, :6]), torch.from_numpy(x[:4, :6].copy()))
    launcher = Plan(replace(plan.request, dynamic=frozenset("MN"))).launcher()
    functions = Functions(launcher.recipe, launcher.entry, launcher.failed, Given(arrays=frozenset((0, 1))))
    for a in (x[:7, :3], x[3:, 2:], np.zeros((5, 40), np.float32)[:, ::1][:, :9]):
        assert np.array_equal(functions.call((a, np.ones(a.shape, np.float32))), a + 1)
    assert functions.call((x[::-1], x)) is MISS and functions.call((x[:0], x[:0])) is MISS and functions.call((x, x.T)) is MISS


# -- results in memory of the caller's -------------------------------------------------------------------------------
def filling(kernel, out, *args):
    """What was written for these arguments, after the first call with this memory."""
    kernel._calls.forget()
    kernel(*args, out=out)
    return kernel._calls.fill


def test_it_fills_what_it_is_given():
    x, y = pair()
    out, other = torch.empty(4, 6), torch.empty(50)[2:26].view(4, 6)
    fill = filling(added, out, x, y)
    assert torch.equal(out, x + y) and fill((y, y), other) is other and torch.equal(other, y + y)
    assert fill((x, x[:]), torch.nn.Parameter(out, requires_grad=False)) is not MISS


OTHER_RESULTS = {
    "shape": lambda x, y: torch.empty(4, 5),
    "rank": lambda x, y: torch.empty(1, 4, 6),
    "dtype": lambda x, y: torch.empty(4, 6, dtype=torch.float64),
    "strides": lambda x, y: torch.empty(6, 4).T,
    "expanded": lambda x, y: torch.empty(1, 6).expand(4, 6),
    "misaligned": lambda x, y: odd(x),
    "negative bit": lambda x, y: torch._neg_view(torch.empty(4, 6)),
    "requires grad": lambda x, y: torch.empty(4, 6, requires_grad=True),
    "meta": lambda x, y: torch.empty(4, 6, device="meta"),
    "sparse": lambda x, y: x.to_sparse(),
    "numpy": lambda x, y: np.empty((4, 6), np.float32),
    "tuple": lambda x, y: (torch.empty(4, 6),),
    "number": lambda x, y: 1.0,
}


@pytest.mark.parametrize("what", OTHER_RESULTS)
def test_it_misses_on_any_other_memory(what):
    x, y = pair()
    fill = filling(added, torch.empty(4, 6), x, y)
    assert fill((x, y), OTHER_RESULTS[what](x, y)) is MISS


@pytest.mark.parametrize("place", [lambda x, y: x, lambda x, y: y, lambda x, y: y.view(-1).view(4, 6)], ids=["x", "y", "view"])
def test_it_fills_an_input_that_has_been_read_by_then(place):
    x, y = pair()
    fill, expected, out = filling(added, torch.empty(4, 6), x, y), x + y, place(x, y)
    assert fill((x, y), out) is out and torch.equal(out, expected)


def test_it_misses_where_memory_is_shared_in_part():
    buffer = torch.zeros(100)
    x, y = buffer[:24].view(4, 6), torch.ones(4, 6)
    fill = filling(added, torch.empty(4, 6), x, y)
    assert [fill((x, y), buffer[n:n + 24].view(4, 6)) is MISS for n in (1, 23, 24, 30)] == [True, True, False, False]
    x = buffer[24:48].view(4, 6)
    assert [fill((x, y), buffer[n:n + 24].view(4, 6)) is MISS for n in (0, 1, 47, 48)] == [False, True, True, False]


def test_it_misses_where_gaps_of_an_input_hold_the_result():
    buffer, y = torch.zeros(120), torch.ones(4, 6)
    x = buffer[:96].view(4, 24)[:, :6]  # its last element is number 77
    fill = filling(added, torch.empty(4, 6), x, y)
    assert [fill((x, y), buffer[n:n + 24].view(4, 6)) is MISS for n in (6, 77, 78)] == [True, True, False]


@dlc.kernel
def both(x: f32[M, N]):
    return x + 1.0, dlc.sum(x, 1)


def test_it_fills_several_results():
    x = torch.randn(4, 6)
    outs = (torch.empty(4, 6), torch.empty(4))
    fill = filling(both, outs, x)
    assert fill((x,), list(outs)) == list(outs) and fill((x,), outs) is outs
    torch.testing.assert_close(outs[1], x.sum(1))
    shared = torch.empty(28)
    apart = (shared[:24].view(4, 6), shared[24:])
    assert fill((x,), apart) is apart
    assert fill((x,), (shared[:24].view(4, 6), shared[20:24])) is MISS and fill((x,), (outs[0],)) is MISS
    assert fill((x,), torch.empty(2, 4, 6)) is MISS and fill((x,), (outs[0], None)) is MISS


def test_it_fills_arrays():
    x, y = (t.numpy() for t in pair())
    out = np.empty((4, 6), np.float32)
    fill = filling(added, out, x, y)
    assert fill((y, y), out) is out and np.array_equal(out, y + y)
    frozen = np.empty((4, 6), np.float32)
    frozen.flags.writeable = False
    others = [frozen, np.empty((6, 4), np.float32).T, np.empty((4, 6)), np.empty((4, 6), ">f4"), torch.empty(4, 6), np.ma.empty((4, 6))]
    assert all(fill((x, y), other) is MISS for other in others)
    mixed = filling(added, torch.empty(4, 6), x, torch.from_numpy(y))
    assert mixed((x, torch.from_numpy(y)), torch.from_numpy(out)) is not MISS and np.array_equal(out, x + y)
    expected = x + y
    assert mixed((x, torch.from_numpy(y)), torch.from_numpy(x)) is not MISS and np.array_equal(x, expected)


def test_it_fills_nothing_that_autograd_would_follow():
    x, y = pair()
    fill = filling(added, torch.empty(4, 6), x, y)
    x.requires_grad_()
    assert fill((x, y), torch.empty(4, 6)) is MISS
    with torch.no_grad():
        assert fill((x, y), torch.empty(4, 6, requires_grad=True)) is not MISS


def test_it_fills_for_many_sizes():
    from dataclasses import replace

    from dlc.compiler import Plan

    launcher = Plan(replace(both.plan(torch.randn(5, 7)).request, dynamic=frozenset("MN"))).launcher()
    fill = launcher.functions.fill_tensors
    for m, n in ((5, 7), (1, 1), (40, 90)):
        buffer = torch.randn(3 * m * n)
        x, outs = buffer[:m * n].view(m, n), (buffer[m * n:2 * m * n].view(m, n), torch.empty(m))
        wanted = x + 1, x.sum(1)
        assert fill((x,), outs) is outs
        torch.testing.assert_close(outs, wanted, rtol=1e-4, atol=1e-4)
        assert fill((x,), (torch.empty(m, n + 1), outs[1])) is MISS
        assert fill((x,), (buffer[m * n - 1:2 * m * n - 1].view(m, n), outs[1])) is MISS
    assert fill((torch.randn(0, 4),), (torch.empty(0, 4), torch.empty(0))) is MISS


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
