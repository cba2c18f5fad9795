"""Hand-written Triton kernels in the form the emitter will hand over, used by the GPU tests."""

from __future__ import annotations

from codegen.artifact import Arg, TritonKernel
from dsl.dtype import Dtype, f32, i32

_HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"


def _kernel(body: str, args: tuple[Arg, ...], **facts: object) -> TritonKernel:
    name = body.split("(", 1)[0].removeprefix("def ").strip()
    return TritonKernel(name, _HEAD + body, args, **facts)  # type: ignore[arg-type]


VADD = """def vadd(x, y, o, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(o + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)
"""


def vadd(dtype: Dtype = f32, block: int = 256, masked: bool = True, compute: str = "", **facts: object) -> TritonKernel:
    """o = x + y over n elements; without its mask a planted bug."""
    body = VADD if masked else VADD.replace(", mask=m", "")
    if compute:
        body = body.replace("mask=m) +", f"mask=m).to({compute}) +")
    args = (Arg.pointer("x", dtype), Arg.pointer("y", dtype), Arg.pointer("o", dtype, "w"), Arg.scalar("n", i32))
    return _kernel(body, args, constexprs={"B": block}, grid=("cdiv(n, B)",), **facts)


SOFTMAX = """def softmax(x, o, sx, so, n, B: tl.constexpr):
    r = tl.program_id(0)
    c = tl.arange(0, B)
    v = tl.load(x + r * sx + c, mask=c < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, 0))
    tl.store(o + r * so + c, e / tl.sum(e, 0), mask=c < n)
"""


def softmax(dtype: Dtype = f32, block: int = 512, **facts: object) -> TritonKernel:
    """Row softmax, one program a row."""
    args = (Arg.pointer("x", dtype), Arg.pointer("o", dtype, "w"), *(Arg.scalar(s, i32) for s in ("sx", "so", "n")))
    return _kernel(SOFTMAX, args, constexprs={"B": block}, grid=("rows",), **facts)


LAYERNORM = """def layernorm(x, w, b, o, n, eps, B: tl.constexpr):
    r = tl.program_id(0)
    c = tl.arange(0, B)
    m = c < n
    v = tl.load(x + r * n + c, mask=m, other=0.0).to(tl.float32)
    mu = tl.sum(v, 0) / n
    d = tl.where(m, v - mu, 0.0)
    var = tl.sum(d * d, 0) / n
    y = d * tl.rsqrt(var + eps) * tl.load(w + c, mask=m) + tl.load(b + c, mask=m)
    tl.store(o + r * n + c, y, mask=m)
"""


def layernorm(block: int = 512, **facts: object) -> TritonKernel:
    """Row layer norm with weight and bias, f32."""
    args = (*(Arg.pointer(p, f32) for p in "xwb"), Arg.pointer("o", f32, "w"), Arg.scalar("n", i32), Arg.scalar("eps", f32))
    return _kernel(LAYERNORM, args, constexprs={"B": block}, grid=("rows",), **facts)


MATMUL = """def matmul(a, b, c, M, N, K, sam, sbk, scm, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        p = a + rm[:, None] * sam + (k + rk)[None, :]
        q = b + (k + rk)[:, None] * sbk + rn[None, :]
        x = tl.load(p, mask=(rm < M)[:, None] & ((k + rk) < K)[None, :], other=0.0)
        y = tl.load(q, mask=((k + rk) < K)[:, None] & (rn < N)[None, :], other=0.0)
        acc = tl.dot(x, y, acc, input_precision="PRECISION")
    tl.store(c + rm[:, None] * scm + rn[None, :], acc.to(c.dtype.element_ty),
             mask=(rm < M)[:, None] & (rn < N)[None, :])
"""

MATMUL_TMA = """def matmul_tma(a, b, c, M, N, K, sam, sbk, scm, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    pm = tl.program_id(0) * BM
    pn = tl.program_id(1) * BN
    ad = tl.make_tensor_descriptor(a, shape=[M, K], strides=[sam, 1], block_shape=[BM, BK])
    bd = tl.make_tensor_descriptor(b, shape=[K, N], strides=[sbk, 1], block_shape=[BK, BN])
    cd = tl.make_tensor_descriptor(c, shape=[M, N], strides=[scm, 1], block_shape=[BM, BN])
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(ad.load([pm, k]), bd.load([k, pn]), acc)
    cd.store([pm, pn], acc.to(c.dtype.element_ty))
"""


def matmul(
    dtype: Dtype,
    out: Dtype = f32,
    tile: tuple[int, int, int] = (64, 64, 32),
    precision: str = "ieee",
    aligned: bool = True,
    tma: bool = False,
    **facts: object,
) -> TritonKernel:
    """c = a @ b with ragged edges; ``aligned`` promises strides divisible by 16."""
    sizes = (Arg.scalar(s, i32, 16 if aligned else 1) for s in ("M", "N", "K", "sam", "sbk", "scm"))
    args = (Arg.pointer("a", dtype), Arg.pointer("b", dtype), Arg.pointer("c", out, "w"), *sizes)
    body = MATMUL_TMA if tma else MATMUL.replace("PRECISION", precision)
    return _kernel(body, args, constexprs=dict(zip(("BM", "BN", "BK"), tile, strict=True)), grid=("cdiv(M, BM)", "cdiv(N, BN)"), **facts)


ATTENTION = """def attention(q, k, v, o, S, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr):
    h = tl.program_id(1) * S * D
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rd = tl.arange(0, D)
    qb = tl.load(q + h + rm[:, None] * D + rd[None, :], mask=(rm < S)[:, None], other=0.0)
    mx = tl.full((BM,), -float("inf"), tl.float32)
    l = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    hi = tl.minimum((tl.program_id(0) + 1) * BM, S) if CAUSAL else S
    for n in range(0, hi, BN):
        rn = n + tl.arange(0, BN)
        kb = tl.load(k + h + rn[None, :] * D + rd[:, None], mask=(rn < S)[None, :], other=0.0)
        vb = tl.load(v + h + rn[:, None] * D + rd[None, :], mask=(rn < S)[:, None], other=0.0)
        s = tl.dot(qb, kb) * scale
        ok = (rn < S)[None, :]
        if CAUSAL:
            ok = ok & (rm[:, None] >= rn[None, :])
        s = tl.where(ok, s, -float("inf"))
        m2 = tl.maximum(mx, tl.max(s, 1))
        p = tl.exp(s - m2[:, None])
        f = tl.exp(mx - m2)
        l = l * f + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype.element_ty), vb, acc * f[:, None])
        mx = m2
    tl.store(o + h + rm[:, None] * D + rd[None, :], (acc / l[:, None]).to(o.dtype.element_ty), mask=(rm < S)[:, None])
"""


def attention(dtype: Dtype, depth: int = 64, causal: bool = False, **facts: object) -> TritonKernel:
    """Online-softmax attention over contiguous [heads, S, depth] tensors."""
    args = (*(Arg.pointer(p, dtype) for p in "qkv"), Arg.pointer("o", dtype, "w"), Arg.scalar("S", i32), Arg.scalar("scale", f32))
    sizes = {"D": depth, "BM": 64, "BN": 32, "CAUSAL": int(causal)}
    return _kernel(ATTENTION, args, constexprs=sizes, grid=("cdiv(S, BM)", "heads"), **facts)


def custom(body: str, args: tuple[Arg, ...], **facts: object) -> TritonKernel:
    """A kernel from its ``def`` text."""
    return _kernel(body, args, **facts)
