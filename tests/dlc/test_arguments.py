"""What a kernel may be called with: views, numpy, DLPack, numbers; and that results come back in the same kind."""

import ctypes

import ml_dtypes
import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, bool_, errors, f8e4m3, f16, f32, f64, i8, i32, i64, u8

M, N, K = dlc.dims("M N K")


@dlc.kernel
def plus_one(x: f32[M, N]):
    return x + 1.0


@dlc.kernel
def added(x: f32[M, N], y: f32[M, N]):
    return x + y


def at_an_odd_byte(t):
    """The same values at an address one byte off."""
    raw = torch.empty(t.numel() * t.element_size() + 1, dtype=torch.uint8)
    raw[1:] = t.contiguous().view(-1).view(torch.uint8)
    held = (ctypes.c_char * (raw.numel() - 1)).from_address(raw.data_ptr() + 1)
    odd = torch.frombuffer(held, dtype=t.dtype).view(t.shape)
    odd.owner = raw
    assert odd.data_ptr() % 2 == 1
    return odd


BASE = torch.arange(240, dtype=torch.float32).view(12, 20)
VIEWS = {
    "transposed": BASE.T, "rows apart": BASE[::3], "columns apart": BASE[:, ::2], "a corner": BASE[3:7, 5:9], "one row": BASE[4:5],
    "one column": BASE[:, 4:5], "rows repeated": BASE[:1].expand(7, 20), "columns repeated": BASE[:, :1].expand(12, 9),
    "all one element": BASE[2, 3].expand(5, 6), "overlapping windows": BASE.view(-1).as_strided((10, 8), (3, 1)),
    "diagonal": BASE.as_strided((5, 4), (21, 0)), "odd address": at_an_odd_byte(BASE),
    "offset by four bytes": BASE.view(-1)[1:].as_strided((3, 5), (7, 1)), "negated": torch._neg_view(BASE), "empty": BASE[:0],
    "no columns": BASE[:, :0],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_honoured(name):
    x = VIEWS[name]
    for _ in range(2):  # the slow way and the one written for it
        assert torch.equal(plus_one(x), x + 1) and torch.equal(added(x, x), x + x)


def test_arguments_may_overlap():
    assert torch.equal(added(BASE[:6], BASE[3:9]), BASE[:6] + BASE[3:9])


RNG = np.random.default_rng(0)
ARRAY = RNG.standard_normal((6, 8), dtype=np.float32)


def readonly():
    a = ARRAY.copy()
    a.flags.writeable = False
    return a


def off_by_one():
    raw = np.zeros(ARRAY.nbytes + 1, np.uint8)
    a = np.ndarray(ARRAY.shape, np.float32, raw.data, 1)
    a[...] = ARRAY
    return a


ARRAYS = {
    "plain": lambda: ARRAY, "backwards": lambda: ARRAY[::-1, ::-1], "backwards in steps": lambda: ARRAY[:, ::-2],
    "transposed": lambda: ARRAY.T, "read only": readonly, "one byte off": off_by_one, "big endian": lambda: ARRAY.astype(">f4"),
    "broadcast": lambda: np.broadcast_to(ARRAY[0], (4, 8)), "field of records": lambda: _records()["x"],
    "Fortran order": lambda: np.asfortranarray(ARRAY),
}


def _records():
    records = np.zeros((3, 4), dtype=[("tag", "u1"), ("x", "f4")])
    records["x"] = ARRAY[:3, :4]
    return records


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_arrays_of_any_layout(name):
    a = ARRAYS[name]()
    for _ in range(2):
        got = plus_one(a)
        assert isinstance(got, np.ndarray) and np.array_equal(got, a + np.float32(1))


@pytest.mark.parametrize("declared, kind", [(f64, np.float64), (f16, np.float16), (i8, np.int8), (i32, np.int32), (i64, np.int64),
                                            (u8, np.uint8), (bool_, np.bool_), (bf16, ml_dtypes.bfloat16),
                                            (f8e4m3, ml_dtypes.float8_e4m3fn)])
def test_dtypes_of_numpy(declared, kind):
    @dlc.kernel
    def same(x: declared[M]):
        return dlc.compute((M,), lambda i: x[i])

    a = np.array([0, 1, 1, 0, 1], dtype=kind)
    got = same(a)
    assert got.dtype == np.dtype(kind) and np.array_equal(got.astype(np.float64), a.astype(np.float64))
    if kind is not np.bool_ and np.dtype(kind).itemsize > 1:
        assert np.array_equal(same(a[::-1]).astype(np.float64), a[::-1].astype(np.float64))


def test_torch_and_numpy_mixed_give_torch():
    assert torch.equal(added(torch.from_numpy(ARRAY), ARRAY), torch.from_numpy(ARRAY * 2))


class Capsule:
    """An array known through DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack():
    got = plus_one(Capsule(ARRAY.copy()))
    assert isinstance(got, torch.Tensor) and np.array_equal(got.numpy(), ARRAY + np.float32(1))


@dlc.kernel
def scaled(x: f32[M], s: f32):
    return x * s


@pytest.mark.parametrize("s", [2.0, 2, True, np.float32(2), np.float64(2), np.array(2, np.float32), torch.tensor(2.0)])
def test_scalars(s):
    x = torch.arange(5.0)
    for _ in range(2):
        assert torch.equal(scaled(x, s), x * float(s))


def test_numbers_that_do_not_fit_become_infinite_as_in_arithmetic():
    x = torch.ones(3)
    assert scaled(x, 1e300).isinf().all() and scaled(x, 1e300).isinf().all()


@dlc.kernel
def counted(x: i8[M], n: i8, flip: bool_):
    return dlc.where(flip, x - n, x + n)


def test_integer_scalars():
    x = torch.arange(5, dtype=torch.int8)
    for _ in range(2):
        assert torch.equal(counted(x, 3, False), x + 3) and torch.equal(counted(x, -3, True), x + 3)


@pytest.mark.parametrize("args, error, text", [
    ((2.5, True), errors.DtypeError, "`n` is the float 2.5"), ((3, 1), errors.DtypeError, "`flip` is the int 1"),
    ((300, True), errors.ArgumentError, "`n` is 300, outside of i8"), ((3, "x"), errors.ArgumentError, "`flip` is a str")])
def test_numbers_are_never_rounded_or_wrapped(args, error, text):
    with pytest.raises(error, match=text):
        counted(torch.arange(5, dtype=torch.int8), *args)


class Named(torch.Tensor):
    """A subclass without behaviour of its own."""


def test_parameters_and_subclasses():
    x = torch.randn(3, 4)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(plus_one(torch.nn.Parameter(x)), x + 1)
    assert torch.equal(plus_one(x.as_subclass(Named)), x + 1)


def test_inference_tensors():
    with torch.inference_mode():
        x = torch.randn(3, 4)
        assert plus_one(x).is_inference() and torch.equal(plus_one(x), x + 1)
    assert torch.equal(plus_one(x), x + 1)


def test_the_default_device_of_torch_does_not_matter():
    x = torch.randn(3, 4)
    with torch.device("meta"):
        for _ in range(2):
            assert plus_one(x).device.type == "cpu"
    assert torch.equal(plus_one(x), x + 1)


def test_more_elements_than_32_bits_count():
    one = torch.arange(3, dtype=torch.uint8)

    @dlc.kernel
    def total(x: u8[K, N]):
        return dlc.compute((N,), lambda n: dlc.cast(x[K - 1, n], i64) + dlc.cast(x[K // 2, n], i64))

    tall = one.expand((1 << 33) + 5, 3)
    assert torch.equal(total(tall), 2 * one.long())
    far = torch.zeros(1 << 16, dtype=torch.uint8)
    far[-3:] = one + 7
    wide = far.as_strided((1 << 32, 3), (0, 1), far.numel() - 3)
    assert torch.equal(total(wide), 2 * (one.long() + 7))


def test_a_tensor_whose_storage_was_freed_is_refused():
    freed, short = torch.randn(3, 4), torch.randn(3, 4)
    plus_one(torch.randn(3, 4))
    turned = freed.T
    freed.untyped_storage().resize_(0)
    for t in (freed, turned):
        with pytest.raises(errors.ArgumentError, match="`x` has no memory for its elements"):
            plus_one(t)
    short.untyped_storage().resize_(40)
    with pytest.raises(errors.ArgumentError, match="`x` has no memory for its elements"):
        dlc.kernel(plus_one.fn)(short)
