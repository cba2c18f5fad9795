"""The long list of GPU cases: programs of every kind the language can say, small, ragged and in every dtype."""

import math
from collections.abc import Callable
from typing import Any

import torch

import dlc
from dlc import bf16, f8e4m3, f8e5m2, f16, f32, f64, i8, i16, i32, i64, u8
from dlc.kernel import Kernel

B, H, M, N, K, D = dlc.dims("B H M N K D")
Case = tuple[Kernel, Callable[[], tuple[Any, ...]]]
SWEEP: dict[str, Case] = {}


def case(name: str, fn: Callable[..., Any], make: Callable[[], tuple[Any, ...]]) -> None:
    """List a definition with arguments for it."""
    SWEEP[name] = (fn if isinstance(fn, Kernel) else dlc.kernel(fn), make)


def r(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random normal numbers."""
    return torch.randn(*shape).to(dtype)


def n(high: int, *shape: int, low: int = 0, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Random integers."""
    return torch.randint(low, high, shape, dtype=dtype)


TORCH = {f64: torch.float64, f32: torch.float32, f16: torch.float16, bf16: torch.bfloat16, f8e4m3: torch.float8_e4m3fn,
         f8e5m2: torch.float8_e5m2}


# -- products ------------------------------------------------------------------------------------------------------
def products() -> None:
    """Matrix products: dtypes, transposes, batches, epilogues, extreme shapes."""
    for d in (f64, f32, f16, bf16, f8e4m3, f8e5m2):
        t = TORCH[d]

        def plain(x: d[M, K], w: d[K, N]):
            return x @ w

        def both_transposed(x: d[K, M], w: d[N, K]):
            k = dlc.reduce_axis(K)
            return dlc.compute((M, N), lambda i, j: dlc.sum(x[k, i] * w[j, k], k))

        case(f"product {d}", plain, lambda t=t: (r(50, 72, dtype=t), r(72, 40, dtype=t)))
        case(f"product of transposed {d}", both_transposed, lambda t=t: (r(48, 33, dtype=t), r(40, 48, dtype=t)))
    for d, t in ((i8, torch.int8), (u8, torch.uint8), (i16, torch.int16), (i32, torch.int32), (i64, torch.int64)):
        def whole(x: d[M, K], w: d[K, N]):
            return x @ w

        case(f"product {d}", whole, lambda t=t: (n(9, 33, 40, dtype=t), n(9, 40, 35, dtype=t)))

    def transposed_left(x: f16[K, M], w: f16[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[k, i] * w[k, j], k))

    def transposed_out(x: f32[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((N, M), lambda j, i: dlc.sum(x[i, k] * w[k, j], k))

    def square(x: f32[M, K]):
        return x @ x.T

    def silu_gate(x: bf16[M, K], g: bf16[K, N], u: bf16[K, N]):
        return dlc.silu(x @ g) * (x @ u)

    def residual(x: f16[M, K], w: f16[N, K], b: f16[N], y: f16[M, N]):
        return dlc.gelu(dlc.linear(x, w, b)) + y

    def scaled(x: f32[M, K], w: f32[K, N], s: f32[M], z: f32[N]):
        return (x @ w) * s[:, None] + z

    def chained(x: f32[M, K], w: f32[K, N], v: f32[N, D]):
        return dlc.relu(x @ w) @ v

    def vector(x: f32[M, K], v: f32[K]):
        return x @ v

    def dot(x: f32[K], y: f32[K]):
        return x @ y

    def outer(x: f32[M], y: f32[N]):
        return dlc.compute((M, N), lambda i, j: x[i] * y[j])

    def shared_right(x: f32[B, M, K], w: f32[K, N]):
        return x @ w

    def heads(x: f16[B, H, M, K], w: f16[B, H, K, N]):
        return x @ w

    def mixed(x: bf16[M, K], w: f32[K, N]):
        return x @ w

    def quantised(x: f16[M, K], w: i8[N, K], s: f32[N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(dlc.cast(x[i, k], f32) * dlc.cast(w[j, k], f32), k) * s[j])

    def softmax_of_product(x: f32[M, K], w: f32[K, N]):
        return dlc.softmax(x @ w, 1)

    def norm_of_product(x: f32[M, K], w: f32[K, N]):
        return dlc.rms_norm(x @ w)

    def product_of_norm(x: f32[M, K], g: f32[K], w: f32[K, N]):
        return dlc.rms_norm(x, g) @ w

    def prologue(x: f32[M, K], w: f32[K, N]):
        return dlc.tanh(x) @ dlc.exp(w)

    def bilinear(x: f32[M, K], y: f32[M, D], t: f32[N, K, D]):
        a, b = dlc.reduce_axis(K), dlc.reduce_axis(D)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, a] * t[j, a, b] * y[i, b], a, b))

    def two_sums(x: f32[M, K, D], w: f32[N, K, D]):
        a, b = dlc.reduce_axis(K), dlc.reduce_axis(D)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, a, b] * w[j, a, b], a, b))

    def banded(x: f32[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(dlc.where(k <= i, x[i, k] * w[k, j], 0.0), k))

    def distances(x: f32[M, K], y: f32[N, K]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sqrt(dlc.sum((x[i, k] - y[j, k]) * (x[i, k] - y[j, k]), k)))

    def tropical(x: f32[M, K], y: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.min(x[i, k] + y[k, j], k))

    h = torch.float16
    bf = torch.bfloat16
    case("transposed left factor", transposed_left, lambda: (r(64, 50, dtype=h), r(64, 24, dtype=h)))
    case("transposed result", transposed_out, lambda: (r(50, 37), r(37, 24)))
    case("x @ x.T", square, lambda: (r(45, 30),))
    case("product of views", SWEEP["product f32"][0], lambda: (r(37, 50).T, r(37, 80)[:, ::2]))
    case("silu gate", silu_gate, lambda: (r(40, 64, dtype=bf), r(64, 48, dtype=bf), r(64, 48, dtype=bf)))
    case("gelu, bias, residual f16", residual, lambda: (r(40, 64, dtype=h), r(48, 64, dtype=h), r(48, dtype=h), r(40, 48, dtype=h)))
    case("scaled rows and shifted columns", scaled, lambda: (r(20, 30), r(30, 40), r(20), r(40)))
    case("two products in a chain", chained, lambda: (r(20, 30), r(30, 40), r(40, 24)))
    case("matrix by vector", vector, lambda: (r(50, 300), r(300)))
    case("vector by vector", dot, lambda: (r(3000), r(3000)))
    case("outer product", outer, lambda: (r(30), r(70)))
    case("batch with one right factor", shared_right, lambda: (r(3, 20, 40), r(40, 24)))
    case("heads f16", heads, lambda: (r(2, 3, 20, 32, dtype=h), r(2, 3, 32, 24, dtype=h)))
    case("mixed factors", mixed, lambda: (r(20, 40, dtype=bf), r(40, 24)))
    case("quantised weights", quantised, lambda: (r(20, 64, dtype=h), n(9, 40, 64, low=-9, dtype=torch.int8), r(40)))
    case("softmax of a product", softmax_of_product, lambda: (r(20, 30), r(30, 40)))
    case("norm of a product", norm_of_product, lambda: (r(20, 30), r(30, 40)))
    case("product of a norm", product_of_norm, lambda: (r(20, 30), r(30), r(30, 40)))
    case("prologues", prologue, lambda: (r(20, 30), r(30, 40)))
    case("bilinear form", bilinear, lambda: (r(9, 10), r(9, 11), r(12, 10, 11)))
    case("two contracted axes", two_sums, lambda: (r(20, 5, 7), r(24, 5, 7)))
    case("guarded product", banded, lambda: (r(40, 40), r(40, 24)))
    case("distances", distances, lambda: (r(20, 30), r(24, 30)))
    case("min-plus product", tropical, lambda: (r(20, 30), r(30, 24)))
    case("one by one by one", SWEEP["product f32"][0], lambda: (r(1, 1), r(1, 1)))
    case("few by few, long sum", SWEEP["product f16"][0], lambda: (r(4, 4096, dtype=h), r(4096, 8, dtype=h)))
    case("nothing contracted", SWEEP["product f32"][0], lambda: (r(5, 0), r(0, 7)))
    case("no rows", SWEEP["product f32"][0], lambda: (r(0, 5), r(5, 7)))
    case("one column", SWEEP["product f16"][0], lambda: (r(40, 64, dtype=h), r(64, 1, dtype=h)))
    case("small contracted axis", SWEEP["product f16"][0], lambda: (r(40, 3, dtype=h), r(3, 40, dtype=h)))
    case("aligned product", SWEEP["product f16"][0], lambda: (r(64, 128, dtype=h), r(128, 64, dtype=h)))


# -- convolutions --------------------------------------------------------------------------------------------------
def convolutions() -> None:
    """Strided, padded, dilated, grouped, depthwise; one to three dimensions."""
    F, C = dlc.dims("F C")

    def conv1(x: f32[B, 6, M], w: f32[8, 6, 5]):
        return dlc.conv1d(x, w, None, stride=2, padding=2)

    def pointwise(x: f16[B, 32, M, N], w: f16[24, 32, 1, 1]):
        return dlc.conv2d(x, w)

    def dilated(x: f32[B, 16, M, N], w: f32[8, 16, 3, 3]):
        return dlc.conv2d(x, w, None, dilation=2, padding=2)

    def grouped(x: f32[B, 8, M, N], w: f32[12, 4, 3, 3]):
        return dlc.conv2d(x, w, None, padding=1, groups=2)

    def depthwise(x: f32[B, 6, M, N], w: f32[6, 1, 3, 3]):
        return dlc.conv2d(x, w, None, padding=1, groups=6)

    def uneven(x: f32[B, 3, M, N], w: f32[7, 3, 5, 2], b: f32[7]):
        return dlc.relu(dlc.conv2d(x, w, b, stride=(2, 1), padding=(2, 1)))

    def stem(x: f16[B, 3, M, N], w: f16[16, 3, 7, 7]):
        return dlc.conv2d(x, w, None, stride=2, padding=3)

    def conv3(x: f32[B, 4, D, M, N], w: f32[5, 4, 2, 3, 3]):
        return dlc.conv3d(x, w, None, padding=1)

    def half(x: bf16[B, 16, M, N], w: bf16[24, 16, 3, 3]):
        return dlc.conv2d(x, w, None, padding=1)

    h, bf = torch.float16, torch.bfloat16
    case("conv1d", conv1, lambda: (r(2, 6, 33), r(8, 6, 5)))
    case("1x1 convolution f16", pointwise, lambda: (r(2, 32, 7, 6, dtype=h), r(24, 32, 1, 1, dtype=h)))
    case("dilated convolution", dilated, lambda: (r(1, 16, 9, 10), r(8, 16, 3, 3)))
    case("grouped convolution", grouped, lambda: (r(2, 8, 7, 6), r(12, 4, 3, 3)))
    case("depthwise convolution", depthwise, lambda: (r(1, 6, 5, 6), r(6, 1, 3, 3)))
    case("uneven convolution", uneven, lambda: (r(2, 3, 9, 8), r(7, 3, 5, 2), r(7)))
    case("7x7 convolution f16", stem, lambda: (r(1, 3, 15, 14, dtype=h), r(16, 3, 7, 7, dtype=h)))
    case("conv3d", conv3, lambda: (r(1, 4, 4, 5, 6), r(5, 4, 2, 3, 3)))
    case("3x3 convolution bf16", half, lambda: (r(1, 16, 7, 6, dtype=bf), r(24, 16, 3, 3, dtype=bf)))


# -- rows ----------------------------------------------------------------------------------------------------------
def rows() -> None:
    """Reductions, norms, scans."""
    def log_softmax(x: f16[M, N]):
        return dlc.log_softmax(x, 1)

    def rms_norm(x: bf16[M, N], w: bf16[N]):
        return dlc.rms_norm(x, w)

    def batch_norm(x: f32[B, K, M]):
        m = dlc.mean(dlc.mean(x, 0), 1)
        v = dlc.mean(dlc.mean((x - m[None, :, None]) * (x - m[None, :, None]), 0), 1)
        return (x - m[None, :, None]) * dlc.rsqrt(v[None, :, None] + 1e-5)

    def spread(x: f32[M, N]):
        return dlc.var(x, 1), dlc.std(x, 0)

    def where_least(x: i32[M, N]):
        return dlc.argmin(x, 0)

    def truth(x: f32[M, N]):
        return dlc.any(x > 2.0, 1), dlc.all(x > -2.0, 0)

    def product(x: f64[M, N]):
        return dlc.prod(x, 1)

    def sums(x: i8[M, N]):
        return dlc.sum(dlc.cast(x, i32), 1)

    def norm(x: f32[M, N]):
        return dlc.sqrt(dlc.sum(x * x))

    def running(x: f32[M, N]):
        return dlc.cumsum(x, 1)

    def running_down(x: f32[M, N]):
        return dlc.cumsum(x, 0)

    def cross_entropy(x: f32[M, N], y: i64[M]):
        lse = dlc.logsumexp(x, 1)
        return dlc.mean(dlc.compute((M,), lambda i: lse[i] - x[i, y[i]]))

    def mean_all(x: f16[B, M, N]):
        return dlc.mean(dlc.mean(x, 2), 1)

    def attention(q: f32[B, M, D], k: f32[B, N, D], v: f32[B, N, D]):
        s = dlc.softmax((q @ dlc.transpose(k, 0, 2, 1)) * (1 / math.sqrt(32)), 2)
        return s @ v

    def causal(q: f16[H, M, D], k: f16[H, M, D], v: f16[H, M, D]):
        s = q @ dlc.transpose(k, 0, 2, 1)
        s = dlc.compute((H, M, M), lambda h, i, j: dlc.where(j <= i, dlc.cast(s[h, i, j], f32), -1e30))
        return dlc.softmax(s, 2) @ dlc.cast(v, f32)

    def biggest(x: bf16[M, N]):
        return dlc.max(x, 1), dlc.argmax(x, 1)

    h, bf = torch.float16, torch.bfloat16
    case("log softmax f16", log_softmax, lambda: (r(20, 100, dtype=h),))
    case("rms norm bf16", rms_norm, lambda: (r(20, 100, dtype=bf), r(100, dtype=bf)))
    case("rms norm of long rows", rms_norm, lambda: (r(2, 9000, dtype=bf), r(9000, dtype=bf)))
    case("batch norm", batch_norm, lambda: (r(4, 5, 33),))
    case("variances", spread, lambda: (r(20, 33),))
    case("argmin i32", where_least, lambda: (n(99, 30, 20, dtype=torch.int32),))
    case("any and all", truth, lambda: (r(20, 33),))
    case("product f64", product, lambda: (r(20, 33, dtype=torch.float64),))
    case("integer sums", sums, lambda: (n(99, 20, 70, low=-99, dtype=torch.int8),))
    case("norm of everything", norm, lambda: (r(200, 330),))
    case("cumsum", running, lambda: (r(7, 300),))
    case("cumsum of long rows", running, lambda: (r(2, 9000),))
    case("cumsum down", running_down, lambda: (r(60, 20),))
    case("cross entropy", cross_entropy, lambda: (r(20, 50), n(50, 20)))
    case("means f16", mean_all, lambda: (r(3, 20, 30, dtype=h),))
    case("attention", attention, lambda: (r(2, 40, 32), r(2, 50, 32), r(2, 50, 32)))
    case("causal attention f16", causal, lambda: (r(2, 40, 32, dtype=h), r(2, 40, 32, dtype=h), r(2, 40, 32, dtype=h)))
    case("max and argmax bf16", biggest, lambda: (r(20, 33, dtype=bf),))


# -- movement ------------------------------------------------------------------------------------------------------
def movement() -> None:
    """Gathers, concatenation, strides, flips, casts, and sizes of zero and one."""
    def embedding(table: f16[K, N], at: i64[B, M]):
        return dlc.compute((B, M, N), lambda b, i, j: table[at[b, i], j])

    def concat(x: f32[M, N], y: f32[K, N]):
        return dlc.compute((M + K, N), lambda i, j: dlc.where(i < M, x[dlc.minimum(i, M - 1), j], y[dlc.maximum(i - M, 0), j]))

    def steps(x: f32[M, N]):
        return x[1::2, ::-1] * 2.0

    def permuted(x: bf16[B, M, N]):
        return dlc.transpose(x, 2, 0, 1)

    def casts(x: f32[M]):
        return dlc.cast(x, bf16), dlc.cast(x, f16), dlc.cast(x, i32), dlc.cast(x, f64)

    def to_float8(x: f32[M]):
        return dlc.cast(x, f8e4m3)

    def mathematics(x: f32[M]):
        return (dlc.exp(x), dlc.log(dlc.abs(x) + 1.0), dlc.sin(x), dlc.erf(x), dlc.sqrt(dlc.abs(x)), dlc.pow(dlc.abs(x), 1.5),
                dlc.atan2(x, x + 2.0))

    def whole(x: i32[M], y: i32[M]):
        return x // y, x % y, x & y, x >> 2

    def compared(x: f64[M], y: f64[M]):
        return dlc.where(x > y, x - y, dlc.exp(x)), x >= y

    def constant(x: f32[M, N]):
        return dlc.compute((M, N), lambda i, j: i * 2 + j)

    def stencil(x: f32[M, N]):
        return dlc.compute((M - 2, N - 2),
                           lambda i, j: x[i, j + 1] + x[i + 2, j + 1] + x[i + 1, j] + x[i + 1, j + 2] - 4.0 * x[i + 1, j + 1])

    def pooled(x: f32[B, K, M, N]):
        a, b = dlc.reduce_axis(2), dlc.reduce_axis(2)
        return dlc.compute((B, K, M // 2, N // 2), lambda n_, c, i, j: dlc.max(x[n_, c, 2 * i + a, 2 * j + b], a, b))

    def triangle(x: f32[M, M]):
        return dlc.compute((M, M), lambda i, j: dlc.where(j <= i, x[i, j], 0.0))

    def diagonal(x: f32[M, M]):
        return dlc.compute((M,), lambda i: x[i, i])

    def scalar(x: f32[M], a: f32):
        return x * a

    def masked(x: f32[M], m: dlc.bool_[M]):
        return dlc.where(m, x, -x)

    h = torch.float16
    case("embedding f16", embedding, lambda: (r(30, 40, dtype=h), n(30, 3, 11)))
    case("concatenation", concat, lambda: (r(5, 33), r(6, 33)))
    case("steps", steps, lambda: (r(21, 33),))
    case("permuted bf16", permuted, lambda: (r(5, 20, 33, dtype=torch.bfloat16),))
    case("casts", casts, lambda: (r(100) * 50,))
    case("to float8", to_float8, lambda: (r(100),))
    case("mathematics", mathematics, lambda: (r(300),))
    case("whole numbers", whole, lambda: (n(99, 100, low=-99, dtype=torch.int32), n(9, 100, low=1, dtype=torch.int32)))
    case("comparisons f64", compared, lambda: (r(100, dtype=torch.float64), r(100, dtype=torch.float64)))
    case("index values", constant, lambda: (r(9, 33),))
    case("stencil", stencil, lambda: (r(20, 33),))
    case("pooling", pooled, lambda: (r(2, 3, 8, 10),))
    case("triangle", triangle, lambda: (r(33, 33),))
    case("diagonal", diagonal, lambda: (r(33, 33),))
    case("scalar argument", scalar, lambda: (r(100), torch.tensor(2.5)))
    case("bool input", masked, lambda: (r(100), torch.rand(100) > 0.5))
    case("no elements", steps, lambda: (r(0, 33),))
    case("one element", stencil, lambda: (r(3, 3),))


# -- derived -------------------------------------------------------------------------------------------------------
def derived() -> None:
    """Backwards of the above."""
    def back(name: str, *cotangents: Callable[[], torch.Tensor]) -> None:
        kernel, make = SWEEP[name]
        try:
            program = kernel.vjp.program
        except dlc.errors.DlcError as e:
            raise AssertionError(f"{name}: {e}") from e
        names = [t.name for t in kernel.program.inputs]
        def arguments() -> tuple[Any, ...]:
            given = dict(zip(names, make()))
            seeds = iter([c() for c in cotangents])
            return tuple(given[t.name] if t.name in given else next(seeds) for t in program.inputs)
        case(f"backward of {name}", kernel.vjp, arguments)

    h, bf = torch.float16, torch.bfloat16
    back("product f16", lambda: r(50, 40, dtype=h))
    back("silu gate", lambda: r(40, 48, dtype=bf))
    back("heads f16", lambda: r(2, 3, 20, 24, dtype=h))
    back("conv1d", lambda: r(2, 8, 17))
    back("dilated convolution", lambda: r(1, 8, 9, 10))
    back("grouped convolution", lambda: r(2, 12, 7, 6))
    back("depthwise convolution", lambda: r(1, 6, 5, 6))
    back("rms norm bf16", lambda: r(20, 100, dtype=bf))
    back("log softmax f16", lambda: r(20, 100, dtype=h))
    back("attention", lambda: r(2, 40, 32))
    back("cross entropy", lambda: r(1)[0])
    back("embedding f16", lambda: r(3, 11, 40, dtype=h))
    back("cumsum", lambda: r(7, 300))
    back("stencil", lambda: r(18, 31))
    back("pooling", lambda: r(2, 3, 4, 5))
    back("concatenation", lambda: r(11, 33))
    back("steps", lambda: r(10, 33))
    back("two products in a chain", lambda: r(20, 24))


for _build in (products, convolutions, rows, movement, derived):
    _build()
