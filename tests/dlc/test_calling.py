"""Calls: what is kept between them, arguments by name, results written to memory given."""

import numpy as np
import pytest
import torch

import dlc
from dlc import errors, f32
from dlc.calling import canonical_strides
from dlc.runtime.fastcall import MISS

M, N = dlc.dims("M N")


def make():
    @dlc.kernel
    def weighted(x: f32[M, N], w: f32[N], *, power: int = 1):
        return x * w * float(power)

    return weighted


def test_the_function_of_the_last_call_is_kept_and_others_are_found_by_shape():
    kernel = make()
    for shape in ((2, 3), (4, 5), (2, 3), (1, 3)):
        x, w = torch.randn(shape), torch.randn(shape[1])
        assert torch.equal(kernel(x, w), x * w)
        assert kernel.fast((x, w)) is not MISS
    compiled = len(kernel._calls._launchers)
    kernel(torch.randn(2, 3), torch.randn(3))
    assert len(kernel._calls._launchers) == compiled == 3


def test_one_kernel_for_all_strides_of_dimensions_of_size_one():
    kernel = make()
    for x in (torch.randn(1, 4), torch.randn(9, 8)[3:4, 2:6], torch.randn(4).expand(1, 4), torch.randn(4, 1).T):
        w = torch.randn(4)
        assert torch.equal(kernel(x, w), x * w)
    assert len(kernel._calls._launchers) == 1


def test_strides_that_are_never_walked_along():
    assert canonical_strides(torch.empty(4, 6)) == (6, 1) and canonical_strides(torch.empty(0, 6)) == (6, 1)
    assert canonical_strides(torch.empty(9, 8)[3:4, ::2]) == (1, 2) and canonical_strides(torch.empty(())) == ()


def test_arguments_by_name():
    kernel, x, w = make(), torch.randn(2, 3), torch.randn(3)
    assert torch.equal(kernel(x, w=w), x * w) and torch.equal(kernel(w=w, x=x), x * w)
    assert torch.equal(kernel(x, w, power=3), x * w * 3) and torch.equal(kernel(x, w), x * w)


def test_results_go_where_they_are_wanted():
    kernel, x, w = make(), torch.randn(2, 3), torch.randn(3)
    y = torch.empty(2, 3)
    assert kernel(x, w, out=y) is y and torch.equal(y, x * w)
    a = np.empty((2, 3), np.float32)
    assert kernel(x.numpy(), w.numpy(), out=a) is a and np.array_equal(a, (x * w).numpy())
    inside = torch.zeros(10)
    kernel(x, w, out=inside[1:7].view(2, 3))
    assert torch.equal(inside[1:7].view(2, 3), x * w) and inside[0] == 0 and (inside[7:] == 0).all()

    @dlc.kernel
    def two(x: f32[M]):
        return x + 1.0, x + 2.0

    outs = (torch.empty(3), torch.empty(3))
    assert two(torch.zeros(3), out=outs) is outs and outs[0].tolist() == [1] * 3 and outs[1].tolist() == [2] * 3
    with pytest.raises(errors.ArgumentError, match="out 1 of two overlaps"):
        two(torch.zeros(3), out=(outs[0], outs[0]))


def test_a_tuned_kernel_is_compiled_anew():
    kernel, x, w = make(), torch.randn(2, 3), torch.randn(3)
    kernel(x, w)
    kernel._calls.forget()
    assert kernel.fast((x, w)) is MISS and torch.equal(kernel(x, w), x * w)


@dlc.kernel
def normalized(x: f32[M, N]):
    return dlc.softmax(x, 1)


def compiled(kernel):
    return len(kernel._calls._launchers), len(kernel._calls._many)


def test_a_size_that_keeps_changing_becomes_an_argument():
    kernel = dlc.kernel(normalized.fn)
    for m in (2, 3, 4, 5, 6, 700, 701, 9, 2000, 14):
        x = torch.randn(m, 8)
        for _ in range(2):
            torch.testing.assert_close(kernel(x), torch.softmax(x, 1))
            assert kernel.fast((x,)) is not MISS
    assert compiled(kernel) == (3, 2), "three values of M of their own, one kernel for few rows, one for many"
    assert kernel(torch.randn(0, 8)).shape == (0, 8) and compiled(kernel) == (4, 2), "an empty one is compiled for itself"
    for n in (9, 10, 11, 12, 13):
        x = torch.randn(50, n)
        torch.testing.assert_close(kernel(x), torch.softmax(x, 1))
    before = compiled(kernel)
    for n in (14, 30, 6):
        for m in (77, 20, 78):
            x = torch.randn(m, n)
            torch.testing.assert_close(kernel(x), torch.softmax(x, 1))
    assert compiled(kernel) == before, "by now both sizes are arguments"


def test_kernels_compiled_for_their_sizes_stay_in_use():
    kernel = dlc.kernel(normalized.fn)
    for m in (2, 3, 4, 5, 6):
        kernel(torch.randn(m, 8))
    own = kernel._calls._by_shape[torch.Size((3, 8)),][0]
    own.__dict__["call"] = lambda args: "its own"
    for _ in range(2):
        assert kernel(torch.randn(3, 8)) == "its own" and kernel(torch.randn(9, 8)).shape == (9, 8)
    x, out = torch.randn(3, 8), torch.empty(3, 8)
    own.__dict__["fill_tensors"] = lambda args, out: "filled"
    assert kernel(torch.randn(9, 8), out=torch.empty(9, 8)).shape == (9, 8) and kernel(x, out=out) == "filled"


def test_sizes_in_turns_are_decided_about_once(monkeypatch):
    kernel = dlc.kernel(normalized.fn)
    batches = [torch.randn(m, 8) for m in (2, 3, 4, 5, 400, 7, 300)]
    for x in batches * 3:
        kernel(x)
    assert len(kernel._calls._many) == 2, "kernels for two neighbourhoods of sizes"
    monkeypatch.setattr(kernel._calls, "_launcher", lambda tensors: pytest.fail("asked again"))
    for x in batches * 2:
        torch.testing.assert_close(kernel(x), torch.softmax(x, 1))


def test_arguments_of_the_same_shapes_and_other_strides_or_kinds_are_remembered_too():
    kernel = make()
    x, w = torch.randn(6, 5), torch.randn(5)
    others = [(x, w), (x.T.contiguous().T, w), (x.numpy(), w.numpy()), (x, w.numpy())]
    for _ in range(2):
        for args in others:
            result = kernel(*args)
            assert type(result) is (np.ndarray if isinstance(args[0], np.ndarray) else torch.Tensor)
            assert torch.equal(torch.as_tensor(result), x * w)
    assert len(kernel._calls._written) == 4
    kernel._calls._checked = None  # whoever checks again, fails
    assert all(torch.equal(torch.as_tensor(kernel(*args)), x * w) for args in others)


def test_results_of_arguments_by_name_take_the_fast_way(monkeypatch):
    kernel, x, w = make(), torch.randn(2, 3), torch.randn(3)
    out = torch.empty(2, 3)
    kernel(x, w), kernel(x, w, out=out)
    kernel._calls._checked = None
    assert torch.equal(kernel(w=w, x=x), x * w) and kernel(w=w, x=x, out=out) is out


def test_writing_to_a_tensor_that_autograd_kept_is_noticed():
    kernel, x, w = make(), torch.randn(2, 3), torch.randn(3)
    kept = torch.randn(2, 3, requires_grad=True) * 1.0
    for given, by in ((kept.detach(), w), (kept.detach()[:], w), (kept.detach(), w.numpy()[::-1])):
        square = (kept * kept).sum()
        kernel(x, by, out=given)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            square.backward(retain_graph=True)
    with torch.inference_mode():
        inside = torch.empty(2, 3)
        assert kernel(x, torch.from_numpy(np.ones(3, np.float32)), out=inside) is inside and torch.equal(inside, x)


def test_other_strides_are_served_too():
    kernel = dlc.kernel(normalized.fn)
    for m in range(2, 9):
        x = torch.randn(m, 12)[:, 2:10]
        torch.testing.assert_close(kernel(x), torch.softmax(x, 1))
    assert compiled(kernel) == (3, 1)
    y = torch.randn(8, 30).T
    torch.testing.assert_close(kernel(y), torch.softmax(y, 1))


def test_sizes_may_stay_fixed(monkeypatch):
    monkeypatch.setenv("DLC_DYNAMIC", "off")
    kernel = dlc.kernel(normalized.fn)
    for m in (2, 3, 4, 5, 6):
        kernel(torch.randn(m, 8))
    assert compiled(kernel) == (5, 0)


def test_what_cannot_be_compiled_for_all_sizes_is_compiled_for_each(monkeypatch):
    from dlc import compiler

    kernel, real = dlc.kernel(normalized.fn), compiler.specialize

    def refusing(program, shapes, dynamic=(), least=1):
        if dynamic:
            raise errors.BoundsError("not for all sizes")
        return real(program, shapes, dynamic)

    monkeypatch.setattr(compiler, "specialize", refusing)
    monkeypatch.setattr(compiler.cache, "get", lambda name: None)
    for m in (2, 3, 4):
        kernel(torch.randn(m, 11))
    with pytest.warns(UserWarning, match="normalized is compiled for each value of M"):
        kernel(torch.randn(5, 11))
    kernel(torch.randn(6, 11))
    assert compiled(kernel) == (5, 0)


def test_results_and_gradients_of_changing_sizes():
    kernel = dlc.kernel(normalized.fn)
    for m in (2, 3, 4, 5, 6):
        x, out = torch.randn(m, 8, requires_grad=True), torch.empty(m, 8)
        with torch.no_grad():
            torch.testing.assert_close(kernel(x, out=out), torch.softmax(x, 1))
        (kernel(x) ** 2).sum().backward()
        other = x.detach().clone().requires_grad_()
        (torch.softmax(other, 1) ** 2).sum().backward()
        torch.testing.assert_close(x.grad, other.grad)
    with pytest.raises(errors.ArgumentError, match=r"has shape \(5, 9\), the result \(5, 8\)"):
        kernel(torch.randn(5, 8), out=torch.empty(5, 9))


def test_numbers_and_arrays_of_changing_sizes():
    @dlc.kernel
    def scaled(x: f32[M], s: f32):
        return x * s

    for m in (2, 3, 4, 5, 6):
        x = np.arange(m, dtype=np.float32)
        assert np.array_equal(scaled(x, 2.0), x * 2) and torch.equal(scaled(torch.from_numpy(x), 3.0), torch.from_numpy(x * 3))
    assert compiled(scaled) == (3, 1)
