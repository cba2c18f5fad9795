"""Counter-based random numbers: bit-equal to a reference in numpy, the same compiled and in the backward, and distributed as stated."""

import numpy as np
import pytest
import torch

import dlc
from dlc import errors, f32, f64, i64, u32
from dsl.derivative import vjp
from dsl.interp import evaluate
from dsl.ops.random import philox
from dsl.program import trace

M, N = dlc.dims("M N")


def reference(counter, key):
    """Philox 4x32-10 on arrays of uint64 that hold words of 32 bits."""
    c = [np.asarray(v, np.uint64) & np.uint64(0xFFFFFFFF) for v in counter]
    k = [np.asarray(v, np.uint64) & np.uint64(0xFFFFFFFF) for v in key]
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k[0], p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return [v.astype(np.uint32) for v in c]


def uniform(seed, count, bits=24, word=0):
    n = np.arange(count, dtype=np.uint64)
    words = reference((n, n >> np.uint64(32), 0 * n, 0 * n), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return (words[word] >> np.uint32(32 - bits)).astype(np.float64) * 2.0**-bits


def test_reference_has_the_published_answers():
    """The known-answer vectors of the Random123 library."""
    zero = reference((0, 0, 0, 0), (0, 0))
    ones = reference((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2)
    pi = reference((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
    assert [int(v) for v in zero] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(v) for v in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert [int(v) for v in pi] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_words_are_bit_equal_to_the_reference():
    @dlc.kernel
    def words(c: u32[N], k: u32[N]):
        return dlc.compute((N,), lambda i: philox((c[i], i, 7, c[N - 1 - i]), (k[i], 3)))

    rng = np.random.default_rng(0)
    c, k = (rng.integers(0, 2**32, 1001, dtype=np.uint32) for _ in range(2))
    want = reference((c, np.arange(1001), np.full(1001, 7), c[::-1]), (k, np.full(1001, 3)))
    for got in (words(c, k), evaluate(words.program, c, k)):
        for g, w in zip(got, want):
            np.testing.assert_array_equal(np.asarray(g).view(np.uint32), w)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**40 + 17, -1])
def test_uniform_numbers(seed):
    @dlc.kernel
    def fixed(x: f32[M, N]):
        return dlc.rand(seed, (M, N)) + x * 0

    @dlc.kernel
    def given(x: f32[M, N], s: i64):
        return dlc.rand(s, (M, N)) + x * 0

    x = np.zeros((7, 33), np.float32)
    want = uniform(seed, 7 * 33).reshape(7, 33).astype(np.float32)
    for got in (fixed(x), given(x, seed), evaluate(fixed.program, x)[0]):
        np.testing.assert_array_equal(got, want)


def test_uniform_numbers_of_other_dtypes_stay_below_one():
    @dlc.kernel
    def numbers(x: f32[N]):
        return dlc.rand(3, (N,), dtype=dlc.bf16), dlc.rand(3, (N,), dtype=dlc.f16), dlc.rand(3, (N,), dtype=f64)

    low, half, double = numbers(torch.zeros(5000))
    np.testing.assert_array_equal(low.float().numpy(), uniform(3, 5000, 8))
    np.testing.assert_array_equal(half.float().numpy(), uniform(3, 5000, 11))
    high = np.floor(uniform(3, 5000, 26) * 2**26) * 2**27 + np.floor(uniform(3, 5000, 27, word=1) * 2**27)
    np.testing.assert_array_equal(double.numpy(), high * 2.0**-53)
    assert max(float(low.max()), float(half.max()), float(double.max())) < 1


def test_normal_numbers():
    @dlc.kernel
    def normal(x: f32[N]):
        return dlc.randn(11, (N,)), dlc.randn(11, (N,), dtype=f64)

    single, double = normal(torch.zeros(100_000))
    u, v = uniform(11, 100_000), uniform(11, 100_000, word=2)
    np.testing.assert_allclose(single.numpy(), np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v), rtol=2e-5, atol=2e-6)
    for z in (single, double):
        assert abs(float(z.mean())) < 0.01 and abs(float(z.std()) - 1) < 0.01
        assert abs(float((z < 1).double().mean()) - 0.841345) < 0.005


def test_whole_numbers():
    @dlc.kernel
    def whole(x: f32[N]):
        return dlc.randint(5, -3, 4, (N,)), dlc.randint(5, 0, 2**32, (N,))

    small, wide = whole(torch.zeros(70_000))
    counts = np.bincount(small.numpy() + 3, minlength=7)
    assert len(counts) == 7 and np.abs(counts - 10_000).max() < 500
    n = np.arange(70_000, dtype=np.uint64)
    np.testing.assert_array_equal(wide.numpy(), reference((n, 0 * n, 0 * n, 0 * n), (5, 0))[0])


def test_bernoulli():
    @dlc.kernel
    def coins(p: f32[N]):
        return dlc.bernoulli(p, 9), dlc.bernoulli(0.25, 9, (N,))

    p = np.linspace(0, 1, 20_000, dtype=np.float32)
    own, quarter = coins(p)
    np.testing.assert_array_equal(own, (uniform(9, 20_000) < p).astype(np.float32))
    assert abs(quarter.mean() - 0.25) < 0.01 and own.dtype == np.float32


def test_dropout_and_its_backward_drop_the_same():
    @dlc.kernel
    def drop(x: f64[M, N], s: i64):
        return dlc.dropout(x, 0.3, s)

    x = torch.randn(40, 50, dtype=torch.float64, requires_grad=True)
    y = drop(x, torch.tensor(123))
    kept = torch.from_numpy(uniform(123, 2000).reshape(40, 50) >= 0.3)
    torch.testing.assert_close(y, torch.where(kept, x / 0.7, 0))
    g = torch.randn_like(y)
    y.backward(g)
    torch.testing.assert_close(x.grad, torch.where(kept, g / 0.7, 0))
    backward = vjp(trace(drop.fn))
    assert [t.name for t in backward.inputs] == ["s", "d_dropout"], "the mask is computed again, not kept"


def test_dropout_by_a_scalar_and_at_its_ends():
    @dlc.kernel
    def drop(x: f32[N], p: f32):
        return dlc.dropout(x, p, 4), dlc.dropout(x, 0.0, 4), dlc.dropout(x, 1.0, 4), dlc.dropout(x, 0.5, 4, training=False)

    x = torch.randn(1000)
    some, every, none, still = drop(x, 0.5)
    torch.testing.assert_close(some, torch.where(torch.from_numpy(uniform(4, 1000) >= 0.5), x * 2, 0))
    assert torch.equal(every, x) and torch.equal(still, x) and not none.any()


def test_attention_with_dropout():
    @dlc.kernel
    def attend(q: f64[M, 4], k: f64[N, 4], v: f64[N, 4]):
        return dlc.scaled_dot_product_attention(q, k, v, dropout_p=0.2, seed=8)

    q, k, v = (torch.randn(n, 4, dtype=torch.float64) for n in (5, 7, 7))
    kept = torch.from_numpy(uniform(8, 35).reshape(5, 7) >= 0.2)
    weights = torch.where(kept, torch.softmax(q @ k.T / 2, -1) / 0.8, 0)
    torch.testing.assert_close(attend(q, k, v), weights @ v)


def test_a_seed_is_an_integer():
    def kernel(x: f32[N], s: f32):
        return dlc.rand(s, (N,)) + x

    with pytest.raises(errors.DtypeError) as e:
        trace(kernel)
    assert str(e.value).splitlines()[0] == "dtype error: a seed is an integer, not f32"
    assert "instead: declare it as a scalar: seed: i64" in str(e.value)
