"""Every family of PTX instructions against numpy, one small hand-written kernel each."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from dlc.emulate import Blank, EmulationReport, emulate
from dlc.emulate.ptx import parse
from dsl.errors import ArgumentError, TargetError

RNG = np.random.default_rng(0)
F32, BF16 = np.dtype("f4"), np.dtype(ml_dtypes.bfloat16)
HEAD = """.version 8.8
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry k(
    .param .u64 .ptr .global .align 1 k_param_0,
    .param .u64 .ptr .global .align 1 k_param_1,
    .param .u64 .ptr .global .align 1 k_param_2
)
.reqntid THREADS
{
    .reg .pred %p<20>;
    .reg .b16 %rs<40>;
    .reg .b32 %r<200>;
    .reg .b64 %rd<60>;
    mov.u32 %r0, %tid.x;
    ld.param.b64 %rd0, [k_param_0];
    ld.param.b64 %rd1, [k_param_1];
"""


def run(body: str, a: np.ndarray, out: np.dtype | type, threads: int = 32, count: int | None = None, shared: int = 4096) -> EmulationReport:
    """Run the body with a's element of this thread at [%rd2] and its result's place at [%rd3]."""
    out = np.dtype(out)
    count = threads if count is None else count
    width, step = a.nbytes // threads, out.itemsize * count // threads
    place = (f"    mul.wide.u32 %rd4, %r0, {width};\n    add.s64 %rd2, %rd0, %rd4;\n"
             f"    mul.wide.u32 %rd4, %r0, {step};\n    add.s64 %rd3, %rd1, %rd4;\n")
    text = HEAD.replace("THREADS", str(threads)) + place + body + "\n    ret;\n}\n"
    return emulate(text, (1,), [a, Blank((count,), out)], shared=shared)


def check(body: str, a: np.ndarray, want: np.ndarray, **facts: int) -> None:
    report = run(body, a, want.dtype, count=want.size, **facts)
    assert report.ok, report.findings
    got = report.arrays[1]
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), want.view(f"u{want.itemsize}"), str(got))


def pairs(dtype: str) -> np.ndarray:
    """Two operands for each of 32 threads."""
    if np.dtype(dtype).kind == "f":
        return RNG.standard_normal((32, 2)).astype(dtype)
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, (32, 2), dtype=dtype, endpoint=True)


LOAD2 = "    ld.global.v2.b32 {%r1, %r2}, [%rd2];\n"
STORE = "    st.global.b32 [%rd3], %r3;\n"
SIGNED, UNSIGNED, FLOATS = pairs("i4"), pairs("u4"), pairs("f4")


def _opcode(value: object) -> str:
    """A test is named by its opcode alone: arrays and functions print differently in every process."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(
    ("opcode", "a", "function"),
    [
        ("add.s32", SIGNED, lambda x, y: x + y),
        ("sub.s32", SIGNED, lambda x, y: x - y),
        ("mul.lo.s32", SIGNED, lambda x, y: x * y),
        ("mul.hi.s32", SIGNED, lambda x, y: ((x.astype("i8") * y) >> 32).astype("i4")),
        ("mul.hi.u32", UNSIGNED, lambda x, y: ((x.astype("u8") * y) >> np.uint64(32)).astype("u4")),
        ("div.s32", SIGNED, lambda x, y: (x / y.astype("f8")).astype("i4")),
        ("rem.s32", SIGNED, np.fmod),
        ("div.u32", UNSIGNED, lambda x, y: x // y),
        ("rem.u32", UNSIGNED, lambda x, y: x % y),
        ("min.s32", SIGNED, np.minimum),
        ("max.u32", UNSIGNED, np.maximum),
        ("and.b32", UNSIGNED, lambda x, y: x & y),
        ("or.b32", UNSIGNED, lambda x, y: x | y),
        ("xor.b32", UNSIGNED, lambda x, y: x ^ y),
        ("add.f32", FLOATS, lambda x, y: x + y),
        ("sub.f32", FLOATS, lambda x, y: x - y),
        ("mul.f32", FLOATS, lambda x, y: x * y),
        ("div.full.f32", FLOATS, lambda x, y: x / y),
        ("min.f32", FLOATS, np.fmin),
        ("max.NaN.f32", FLOATS, np.maximum),
        ("copysign.f32", FLOATS, lambda x, y: np.copysign(y, x)),
    ],
    ids=_opcode,
)
def test_binary(opcode: str, a: np.ndarray, function: object) -> None:
    with np.errstate(over="ignore"):
        check(f"{LOAD2}    {opcode} %r3, %r1, %r2;\n{STORE}", a, function(a[:, 0], a[:, 1]))  # type: ignore[operator]


def test_set() -> None:
    a = np.stack([FLOATS[:, 0], np.where(np.arange(32) % 3 == 0, FLOATS[:, 0], FLOATS[:, 1])], 1)
    check(f"{LOAD2}    set.eq.u32.f32 %r3, %r1, %r2;\n{STORE}", a, np.where(a[:, 0] == a[:, 1], 0xFFFFFFFF, 0).astype("u4"))
    check(f"{LOAD2}    set.ltu.f32.f32 %r3, %r1, %r2;\n{STORE}", a, (a[:, 0] < a[:, 1]).astype("f4"))
    halves = RNG.standard_normal((32, 2, 2)).astype("f2")
    halves[::5, 0, 1] = np.nan
    for word, test in (("gt", np.greater), ("nan", lambda x, y: np.isnan(x) | np.isnan(y))):
        want = np.where(test(halves[:, 0], halves[:, 1]), np.float16(1), np.float16(0))
        check(f"{LOAD2}    set.{word}.f16x2.f16x2 %r3, %r1, %r2;\n{STORE}", halves.view("u4")[:, :, 0],
              np.ascontiguousarray(want).view("u4")[:, 0])


@pytest.mark.parametrize(
    ("opcode", "a", "function"),
    [
        ("neg.s32", SIGNED, lambda x: -x),
        ("abs.s32", SIGNED, np.abs),
        ("not.b32", UNSIGNED, lambda x: ~x),
        ("popc.b32", UNSIGNED, lambda x: np.array([int(v).bit_count() for v in x], "u4")),
        ("clz.b32", UNSIGNED, lambda x: np.array([32 - int(v).bit_length() for v in x], "u4")),
        ("brev.b32", UNSIGNED, lambda x: np.array([int(f"{v:032b}"[::-1], 2) for v in x], "u4")),
        ("bfind.u32", UNSIGNED, lambda x: np.array([int(v).bit_length() - 1 for v in x], "u4")),
        ("neg.f32", FLOATS, lambda x: -x),
        ("ex2.approx.f32", FLOATS, np.exp2),
        ("lg2.approx.f32", abs(FLOATS), np.log2),
        ("sqrt.rn.f32", abs(FLOATS), np.sqrt),
        ("rcp.rn.f32", FLOATS, lambda x: 1 / x),
        ("rsqrt.approx.f32", abs(FLOATS), lambda x: (1 / np.sqrt(x.astype("f8"))).astype("f4")),
        ("sin.approx.f32", FLOATS, np.sin),
        ("cos.approx.f32", FLOATS, np.cos),
        ("tanh.approx.f32", FLOATS, np.tanh),
    ],
    ids=_opcode,
)
def test_unary(opcode: str, a: np.ndarray, function: object) -> None:
    check(f"{LOAD2}    {opcode} %r3, %r1;\n{STORE}", a, function(a[:, 0]))  # type: ignore[operator]


def test_flush_to_zero() -> None:
    a = np.array([[1e-40, 1.0], [1e-38, 0.5]] * 16, F32)
    check(f"{LOAD2}    mul.ftz.f32 %r3, %r1, %r2;\n{STORE}", a, np.zeros(32, F32))
    check(f"{LOAD2}    mul.f32 %r3, %r1, %r2;\n{STORE}", a, a[:, 0] * a[:, 1])


def test_narrow_floats_round_each_operation() -> None:
    for kind, dtype in (("f16", np.dtype("f2")), ("bf16", BF16)):
        a = RNG.standard_normal((32, 2)).astype(dtype)
        loads = "    ld.global.v2.b16 {%rs1, %rs2}, [%rd2];\n"
        for opcode, function in (("add", np.add), ("sub", np.subtract), ("max", np.maximum)):
            check(f"{loads}    {opcode}.{kind} %rs3, %rs1, %rs2;\n    st.global.b16 [%rd3], %rs3;\n", a, function(a[:, 0], a[:, 1]))
        x, y = a.astype("f8").T
        check(f"{loads}    fma.rn.{kind} %rs3, %rs1, %rs2, %rs1;\n    st.global.b16 [%rd3], %rs3;\n", a, (x * y + x).astype(dtype))
        packed = f"    ld.global.b32 %r1, [%rd2];\n    fma.rn.{kind}x2 %r3, %r1, %r1, %r1;\n{STORE}"
        check(packed, a, (a.astype("f8") ** 2 + a.astype("f8")).astype(dtype).reshape(-1))
        check(f"    ld.global.b32 %r1, [%rd2];\n    neg.{kind}x2 %r3, %r1;\n{STORE}", a, (-a).reshape(-1))


def test_fma_rounds_once() -> None:
    a = np.array([[1 + 2**-12, 1 + 2**-12], [3.0, 1 / 3]] * 16, F32)
    exact = [np.float32(math.fsum([float(x) * float(y), -1.0])) for x, y in a]
    check(f"{LOAD2}    fma.rn.f32 %r3, %r1, %r2, 0fBF800000;\n{STORE}", a, np.array(exact, F32))
    tie = np.array([[1 + 2**-23, 1 + 2**-23]] * 32, F32)  # the float64 sum is a tie that the product's tail decides
    want = np.float32(1.0 + 2**-22)
    check(f"{LOAD2}    fma.rn.f32 %r3, %r1, %r2, 0f00000000;\n{STORE}", tie, np.full(32, want))
    b = RNG.standard_normal((32, 2))
    wide = "    ld.global.v2.b64 {%rd10, %rd11}, [%rd2];\n    fma.rn.f64 %rd12, %rd10, %rd11, %rd10;\n    st.global.b64 [%rd3], %rd12;\n"
    got = run(wide, b, np.float64).arrays[1]
    exact64 = b[:, 0].astype(np.longdouble) * b[:, 1] + b[:, 0]
    np.testing.assert_allclose(got, exact64.astype("f8"), rtol=3e-16)


def test_wide_products_and_shifts() -> None:
    x, y = SIGNED.astype("i8").T
    store = "    st.global.b64 [%rd3], %rd10;\n"
    check(f"{LOAD2}    mul.wide.s32 %rd10, %r1, %r2;\n{store}", SIGNED, x * y)
    check(f"{LOAD2}    mad.wide.s32 %rd10, %r1, %r2, 77;\n{store}", SIGNED, x * y + 77)
    check(f"{LOAD2}    mad.lo.s32 %r3, %r1, %r2, %r1;\n{STORE}", SIGNED, (x * y + x).astype("i4"))
    check(f"{LOAD2}    cvt.s64.s32 %rd10, %r1;\n    mul.hi.s64 %rd10, %rd10, -3;\n{store}", SIGNED, np.where(x < 0, 0, -1) - (x == 0) * -1)
    u = UNSIGNED[:, 0]
    check(f"{LOAD2}    shl.b32 %r3, %r1, 5;\n{STORE}", UNSIGNED, u << np.uint32(5))
    check(f"{LOAD2}    shr.u32 %r3, %r1, 40;\n{STORE}", UNSIGNED, u * np.uint32(0))
    check(f"{LOAD2}    shr.s32 %r3, %r1, 40;\n{STORE}", SIGNED, SIGNED[:, 0] >> 31)
    both = UNSIGNED[:, 0].astype("u8") | UNSIGNED[:, 1].astype("u8") << np.uint64(32)
    check(f"{LOAD2}    shf.l.wrap.b32 %r3, %r1, %r2, 7;\n{STORE}", UNSIGNED, ((both << np.uint64(7)) >> np.uint64(32)).astype("u4"))
    check(f"{LOAD2}    shf.r.clamp.b32 %r3, %r1, %r2, 7;\n{STORE}", UNSIGNED, (both >> np.uint64(7)).astype("u4"))


def test_bit_fields() -> None:
    u, s = UNSIGNED[:, 0], SIGNED[:, 0]
    check(f"{LOAD2}    bfe.u32 %r3, %r1, 3, 7;\n{STORE}", UNSIGNED, u >> np.uint32(3) & np.uint32(127))
    check(f"{LOAD2}    bfe.s32 %r3, %r1, 3, 7;\n{STORE}", SIGNED, (s << 22) >> 25)
    merged = (UNSIGNED[:, 1] & ~np.uint32(0x3F8)) | ((u & np.uint32(127)) << np.uint32(3))
    check(f"{LOAD2}    bfi.b32 %r3, %r1, %r2, 3, 7;\n{STORE}", UNSIGNED, merged)
    check(f"{LOAD2}    lop3.b32 %r3, %r1, %r2, 255, 0x96;\n{STORE}", UNSIGNED, u ^ UNSIGNED[:, 1] ^ np.uint32(255))
    raw = UNSIGNED.view(np.uint8).reshape(32, 8)
    check(f"{LOAD2}    prmt.b32 %r3, %r1, %r2, 0x5410;\n{STORE}", UNSIGNED, np.ascontiguousarray(raw[:, [0, 1, 4, 5]]).view("u4")[:, 0])
    sign = np.where(raw[:, 3] & 128, 0xFFFFFFFF, 0).astype("u4")
    check(f"{LOAD2}    prmt.b32 %r3, %r1, %r2, 0xBBBB;\n{STORE}", UNSIGNED, sign)


def test_comparison_and_selection() -> None:
    a = FLOATS.copy()
    a[::3, 1] = np.nan
    x, y = a.T
    cases = {"lt": x < y, "ltu": ~(x >= y), "ne": (x != y) & (y == y), "neu": x != y, "num": y == y, "nan": y != y, "geu": ~(x < y)}
    for word, want in cases.items():
        check(f"{LOAD2}    setp.{word}.f32 %p1, %r1, %r2;\n    selp.b32 %r3, 1, 0, %p1;\n{STORE}", a, want.astype("u4"))
    body = f"{LOAD2}    setp.gt.s32 %p2, %r1, 0;\n    setp.lt.and.s32 %p1|%p3, %r1, %r2, %p2;\n    selp.b32 %r3, %r1, %r2, %p1;\n{STORE}"
    x, y = SIGNED.T
    check(body, SIGNED, np.where((x < y) & (x > 0), x, y))
    check(
        f"{LOAD2}    setp.lo.u32 %p1, %r1, %r2;\n    not.pred %p2, %p1;\n    selp.b32 %r3, 1, 0, %p2;\n{STORE}",
        UNSIGNED,
        (UNSIGNED[:, 0] >= UNSIGNED[:, 1]).astype("u4"),
    )


CONVERSIONS = [
    ("cvt.rzi.s32.f32", FLOATS * 100, lambda x: x.astype("i4")),
    ("cvt.rni.s32.f32", FLOATS * 100, lambda x: np.rint(x).astype("i4")),
    ("cvt.rmi.f32.f32", FLOATS * 100, np.floor),
    ("cvt.rpi.f32.f32", FLOATS * 100, np.ceil),
    ("cvt.rn.f32.s32", SIGNED, lambda x: x.astype("f4")),
    ("cvt.rn.f32.u32", UNSIGNED, lambda x: x.astype("f4")),
    ("cvt.sat.f32.f32", FLOATS, lambda x: np.clip(x, 0, 1)),
    ("cvt.rzi.u32.f32", FLOATS * 1e10, lambda x: np.clip(x.astype("f8"), 0, 2**32 - 1).astype("u4")),
    ("cvt.s32.s8", SIGNED, lambda x: x.astype("i1").astype("i4")),
    ("cvt.u32.u16", SIGNED, lambda x: x.astype("u2").astype("u4")),
]


@pytest.mark.parametrize(("opcode", "a", "function"), CONVERSIONS, ids=_opcode)
def test_conversion(opcode: str, a: np.ndarray, function: object) -> None:
    a = a.astype(F32) if a.dtype.kind == "f" else a
    check(f"{LOAD2}    {opcode} %r3, %r1;\n{STORE}", a, function(a[:, 0]))  # type: ignore[operator]


def test_conversion_of_narrow_floats() -> None:
    a = np.concatenate([FLOATS[:28], [[1.00390625, 1e-40], [3e38, -3e38], [np.nan, np.inf], [65519.0, 470.0]]]).astype(F32)
    x, y = a.T
    with np.errstate(all="ignore"):
        for kind, dtype in (("f16", np.dtype("f2")), ("bf16", BF16)):
            check(f"{LOAD2}    cvt.rn.{kind}.f32 %rs1, %r1;\n    st.global.b16 [%rd3], %rs1;\n", a, x.astype(dtype))
            check(f"{LOAD2}    cvt.rn.{kind}x2.f32 %r3, %r1, %r2;\n{STORE}", a, np.stack([y, x], 1).astype(dtype).reshape(-1))
            check(f"{LOAD2}    cvt.rn.{kind}.f32 %rs1, %r1;\n    cvt.f32.{kind} %r3, %rs1;\n{STORE}", a, x.astype(dtype).astype(F32))
        small = FLOATS[:, ::-1].copy()
        for kind, eight in (("e4m3", ml_dtypes.float8_e4m3fn), ("e5m2", ml_dtypes.float8_e5m2)):
            clipped = np.clip(a[:30], -448 if kind == "e4m3" else -57344, 448 if kind == "e4m3" else 57344)
            a30 = np.concatenate([clipped, small[:2]])
            want = np.stack([a30[:, 1], a30[:, 0]], 1).astype(eight)
            body = f"{LOAD2}    cvt.rn.satfinite.{kind}x2.f32 %rs1, %r1, %r2;\n"
            check(f"{body}    st.global.b16 [%rd3], %rs1;\n", np.concatenate([a[:30], small[:2]]), want.reshape(-1))
            check(f"{body}    cvt.rn.f16x2.{kind}x2 %r3, %rs1;\n{STORE}", a30, want.astype("f2").reshape(-1))
    down = (FLOATS[:, 0].view("u4") & np.uint32(0xFFFF0000)).view(F32)
    check(f"{LOAD2}    cvt.rz.bf16.f32 %rs1, %r1;\n    cvt.f32.bf16 %r3, %rs1;\n{STORE}", FLOATS, down)
    away = ((FLOATS[:, 0].view("u4") + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(F32)
    check(f"{LOAD2}    cvt.rna.tf32.f32 %r3, %r1;\n{STORE}", FLOATS, away)


def test_packing_moves_and_inline_scopes() -> None:
    body = f"""{LOAD2}
    mov.b64 %rd10, {{%r2, %r1}};
    mov.b64 {{%r4, %r5}}, %rd10;
    {{
    .reg .b32 t<2>;
    .reg .pred again;
    mov.b32 t0, 3;
    loop:
    sub.s32 t0, t0, 1;
    add.s32 %r4, %r4, 1;
    setp.ne.s32 again, t0, 0;
    @again bra.uni loop;
    }}
    {{
    .reg .b32 t<2>;
    mov.b32 t0, 100;
    loop:
    add.s32 %r4, %r4, t0;
    }}
    mov.b32 %r3, %r4;
{STORE}"""
    with np.errstate(over="ignore"):
        check(body, SIGNED, SIGNED[:, 1] + np.int32(103))


def test_divergent_loops_meet_again() -> None:
    body = f"""    ld.global.b32 %r1, [%rd2];
    mov.b32 %r3, 0;
$L_1:
    add.s32 %r3, %r3, %r1;
    sub.s32 %r1, %r1, 1;
    setp.gt.s32 %p1, %r1, 0;
    @%p1 bra $L_1;
    activemask.b32 %r4;
    setp.eq.b32 %p2, %r4, -1;
    @!%p2 trap;
{STORE}"""
    n = np.arange(1, 33, dtype="i4")
    check(body, n, n * (n + 1) // 2)


def test_shuffles_and_votes() -> None:
    x = UNSIGNED[:, 0]
    load, lane = "    ld.global.b32 %r1, [%rd2];\n", np.arange(32)
    for mode, by, source in (("bfly", 5, lane ^ 5), ("idx", 7, np.full(32, 7)), ("down", 3, np.where(lane + 3 < 32, lane + 3, lane))):
        check(f"{load}    shfl.sync.{mode}.b32 %r3, %r1, {by}, 31, -1;\n{STORE}", x.copy(), x[source])
    up = np.where(lane >= 3, lane - 3, lane)
    check(f"{load}    shfl.sync.up.b32 %r3|%p1, %r1, 3, 0, -1;\n    @!%p1 mov.b32 %r3, 9;\n{STORE}", x.copy(),
          np.where(lane >= 3, x[up], 9).astype("u4"))
    odd = (x & 1).astype(bool)
    test = f"{load}    and.b32 %r2, %r1, 1;\n    setp.eq.b32 %p1, %r2, 1;\n"
    ballot = sum(1 << n for n in range(32) if odd[n])
    check(f"{test}    vote.sync.ballot.b32 %r3, %p1, -1;\n{STORE}", x.copy(), np.full(32, ballot, "u4"))
    check(f"{test}    vote.sync.any.pred %p2, %p1, -1;\n    selp.b32 %r3, 1, 0, %p2;\n{STORE}", x.copy(), np.full(32, int(odd.any()), "u4"))
    check(f"{load}    redux.sync.max.u32 %r3, %r1, -1;\n{STORE}", x.copy(), np.full(32, x.max()))
    check(f"{load}    redux.sync.add.s32 %r3, %r1, -1;\n{STORE}", x.copy(), np.full(32, x.sum(dtype="u4")))
    check(f"    elect.sync %r4|%p1, -1;\n    selp.b32 %r3, 1, 0, %p1;\n{STORE}", x.copy(), (lane == 0).astype("u4"))
    check(f"    and.b32 %r1, %r0, 3;\n    match.any.sync.b32 %r3, %r1, -1;\n{STORE}", x.copy(),
          np.uint32(0x11111111) << (lane & 3).astype("u4"))


@pytest.mark.parametrize(
    ("opcode", "kind", "function"),
    [
        ("add.u32", "u4", np.add),
        ("max.s32", "i4", np.maximum),
        ("min.u32", "u4", np.minimum),
        ("or.b32", "u4", np.bitwise_or),
        ("add.f32", "f4", np.add),
        ("add.noftz.f16", "f2", np.add),
    ],
    ids=_opcode,
)
def test_atomics(opcode: str, kind: str, function: np.ufunc) -> None:
    a = pairs(kind)[:, 0].copy()
    bits, register = 8 * a.itemsize, "%rs" if a.itemsize == 2 else "%r"
    body = (f"    ld.global.b{bits} {register}1, [%rd2];\n    red.global.gpu.relaxed.{opcode} [%rd0], {register}1;\n"
            f"    bar.sync 0;\n    mov.b32 %r3, 1;\n{STORE}")
    with np.errstate(over="ignore"):
        got = run(body, a, np.int32).arrays[0][0]
        want = function.reduce(np.concatenate([a[:1], a]), dtype=kind)
    assert abs(float(got) - float(want)) <= 2e-2 * abs(float(want))


def test_atomic_exchange_and_compare() -> None:
    zero = np.zeros(32, "i4")
    body = ("    atom.global.acq_rel.gpu.cas.b32 %r1, [%rd0], 0, 5;\n    atom.global.gpu.relaxed.add.u32 %r2, [%rd0+4], 1;\n"
            f"    add.s32 %r3, %r1, %r2;\n{STORE}")
    report = run(body, zero, np.int32)
    assert report.ok and sorted(report.arrays[1]) == [0, *range(6, 37)] and report.arrays[0][:2].tolist() == [5, 32]
    shared = f"    mov.b32 %r9, 0;\n    @!%p1 st.shared.b32 [global_smem], %r9;\n    atom.shared.add.u32 %r3, [global_smem], 2;\n{STORE}"
    assert sorted(run(shared, zero, np.int32).arrays[1]) == list(range(0, 64, 2))


def test_memory_spaces() -> None:
    x = UNSIGNED[:, 0].copy()
    body = f"""    .local .align 4 .b8 __local_depot0[8];
    ld.global.b32 %r1, [%rd2];
    mov.b64 %rd10, __local_depot0;
    cvta.local.u64 %rd11, %rd10;
    st.u32 [%rd11+4], %r1;
    ld.local.b32 %r2, [%rd10+4];
    shl.b32 %r5, %r0, 2;
    st.shared.b32 [%r5+128], %r2;
    bar.sync 0;
    cvt.u64.u32 %rd12, %r5;
    cvta.shared.u64 %rd12, %rd12;
    ld.b32 %r3, [%rd12+128];
{STORE}"""
    check(body, x, x)
    table = ".global .align 4 .b8 table[8] = {1, 0, 0, 0, 2, 1, 0, 0};\n"
    text = (
        HEAD.replace("THREADS", "32").replace(".visible", table + ".visible")
        + "    mov.b64 %rd9, table;\n    ld.global.b32 %r1, [%rd9+4];\n    st.global.b32 [%rd1], %r1;\n    ret;\n}\n"
    )
    assert emulate(text, (1,), [x, np.zeros(1, "u4")], shared=64).arrays[1][0] == 258


def test_ldmatrix_and_stmatrix() -> None:
    tile = np.arange(4 * 64, dtype="u2")
    fill = ("    ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd2];\n    shl.b32 %r5, %r0, 4;\n"
            "    st.shared.v4.b32 [%r5], {%r1, %r2, %r3, %r4};\n    bar.sync 0;\n")
    store = "    st.global.v4.b32 [%rd3], {%r10, %r11, %r12, %r13};\n"
    lane = np.arange(32)
    matrices = tile.reshape(4, 8, 8)
    for word, turned in (("", matrices), (".trans", matrices.transpose(0, 2, 1))):
        want = np.stack([turned[n, lane // 4][lane, (lane % 4) * 2 + j] for n in range(4) for j in range(2)], 1)
        body = f"{fill}    ldmatrix.sync.aligned.m8n8.x4{word}.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r5];\n{store}"
        check(body, tile, np.ascontiguousarray(want).reshape(-1))
        back = (f"    bar.sync 0;\n    stmatrix.sync.aligned.m8n8.x4{word}.shared.b16 [%r5], {{%r10, %r11, %r12, %r13}};\n"
                "    bar.sync 0;\n    ld.shared.v4.b32 {%r10, %r11, %r12, %r13}, [%r5];\n")
        check(body.replace(store, back + store), tile, tile)


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32", "s8", "e4m3", "f64"])
def test_mma(kind: str) -> None:
    dtype = {"f16": np.dtype("f2"), "bf16": BF16, "tf32": F32, "s8": np.dtype("i1"), "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
             "f64": np.dtype("f8")}[kind]
    rows, depth = (8, 4) if kind == "f64" else (16, {1: 32, 2: 16, 4: 8}[dtype.itemsize])
    a, b = (RNG.integers(-8, 8, s).astype(dtype) for s in ((rows, depth), (depth, 8)))
    lane, each = np.arange(32), max(1, 4 // dtype.itemsize)
    group, quad = lane // 4, lane % 4
    slots = [(n, j) for n in range(1 if kind == "f64" else 4) for j in range(each)]
    left = np.stack([a[group + 8 * (n % 2), quad * each + j + 4 * each * (n // 2)] for n, j in slots], 1)
    right = np.stack([b[quad * each + j + 4 * each * n, group] for n in range(1 if kind == "f64" else 2) for j in range(each)], 1)
    data = np.ascontiguousarray(np.concatenate([left, right], 1)).view(np.uint8)
    total = "s32" if kind == "s8" else "f64" if kind == "f64" else "f32"
    if kind == "f64":
        body = ("    ld.global.v2.b64 {%rd10, %rd11}, [%rd2];\n    mov.b64 %rd12, 0;\n"
                "    mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%rd13, %rd14}, {%rd10}, {%rd11}, {%rd12, %rd12};\n"
                "    st.global.v2.b64 [%rd3], {%rd13, %rd14};\n")
        want = np.stack([(a @ b)[group, quad * 2 + n] for n in range(2)], 1)
    else:
        loads = "".join(f"    ld.global.b32 %r{10 + n}, [%rd2+{4 * n}];\n" for n in range(6))
        body = (f"{loads}    mov.b32 %r9, 0;\n    mma.sync.aligned.m16n8k{depth}.row.col.{total}.{kind}.{kind}.{total} "
                "{%r20, %r21, %r22, %r23}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r9, %r9, %r9, %r9};\n"
                "    st.global.v4.b32 [%rd3], {%r20, %r21, %r22, %r23};\n")
        product = (a.astype("f8") @ b.astype("f8")).astype("i4" if kind == "s8" else "f4")
        want = np.stack([product[group + 8 * (n // 2), quad * 2 + n % 2] for n in range(4)], 1)
    check(body, data, np.ascontiguousarray(want).reshape(-1))


def test_asynchronous_copy_lands_at_the_wait() -> None:
    x = UNSIGNED.copy()
    copy = "    shl.b32 %r5, %r0, 3;\n    cp.async.ca.shared.global [%r5], [%rd2], 8, SIZE;\n    cp.async.commit_group;\n"
    wait = "    cp.async.wait_group 0;\n    bar.sync 0;\n    ld.shared.b32 %r3, [%r5+4];\n"
    check(copy.replace("SIZE", "8") + wait + STORE, x, x[:, 1])
    check(copy.replace("SIZE", "4") + wait + STORE, x, np.zeros(32, "u4"))
    report = run(copy.replace("SIZE", "8") + wait.replace("wait_group 0", "wait_group 1") + STORE, x, np.uint32)
    assert {f.kind for f in report.findings} == {"wait", "undefined"}


def test_errors_name_the_instruction() -> None:
    with pytest.raises(TargetError, match=r"does not know the instruction 'tcgen05\.alloc"):
        run("    tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [global_smem], 32;\n", FLOATS, np.float32)
    with pytest.raises(TargetError, match="no PTX kernel"):
        parse("nothing")
    with pytest.raises(ArgumentError, match="takes 3 parameters, 4 were given"):
        emulate(HEAD.replace("THREADS", "32") + "ret;\n}\n", (1,), [1, 2, 3, 4])
    with pytest.raises(ArgumentError, match="negative stride"):
        emulate(HEAD.replace("THREADS", "32") + "ret;\n}\n", (1,), [FLOATS[::-1], 2, 3])


def test_faults_are_findings() -> None:
    x = FLOATS.copy()
    kinds = {
        "    ld.global.b32 %r3, [%rd2+4096];\n": "bounds",
        "    ld.global.b64 %rd9, [%rd0+4];\n": "alignment",
        "    ld.shared.b32 %r3, [global_smem];\n": "undefined",
        "    st.shared.b32 [%r0+8192], %r0;\n": "bounds",
        "    st.shared.b32 [%r0+1], %r0;\n": "alignment",
        "    ld.global.b32 %r3, [%rd1];\n": "undefined",
        "    st.global.b32 [%rd1], %r0;\n": "race",
        "    setp.eq.b32 %p1, %r0, 0;\n    @%p1 bra $L_e;\n    bar.sync 0;\n$L_e:\n"
        "    mbarrier.try_wait.parity.shared::cta.b64 %p2, [global_smem], 0;\n": "barrier",
        "$L_s:\n    bra $L_s;\n": "hang",
    }
    for body, kind in kinds.items():
        text = HEAD.replace("THREADS", "32") + "    mul.wide.u32 %rd4, %r0, 8;\n    add.s64 %rd2, %rd0, %rd4;\n" + body + "    ret;\n}\n"
        report = emulate(text, (1,), [x, Blank((32,), F32)], shared=4096, limit=1000)
        assert kind in {f.kind for f in report.findings}, (body, report.findings)
