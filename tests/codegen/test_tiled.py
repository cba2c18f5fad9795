"""Products on tile registers: the same schedules, packing, edges and loops, with the instructions spelled out in software.

What runs here on any machine is everything but the instructions themselves; those run where the processor has them.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import dlc
from codegen.heuristics.dots import Dots
from codegen.heuristics.tiled import sum_block, tile_shape
from codegen.micro.instructions import DOTS
from codegen.micro.tile_block import fits
from codegen.target import by_name
from dlc import bf16, f32, i8
from dlc.compiler import Plan
from dlc.runtime.device import host_features, host_target
from dsl.dim import Var
from tests.codegen.products import B, K, M, N, exact, instructions, modelled, operands, run_on
from tests.codegen.test_llvm_dot import product

AMX = by_name("x86-64-amx")
HAS_AMX = pytest.mark.skipif("amx-bf16" not in host_features(),
                             reason="needs AMX: this processor has no tile registers, or the system does not grant them")
TARGETS = [pytest.param("model", id="model"), pytest.param("x86-64-amx", marks=HAS_AMX, id="amx")]
SHAPES = [(5, 16, 9), (30, 33, 31), (57, 130, 77), (16, 16, 100), (33, 17, 513), (64, 64, 64), (100, 200, 700)]


def target_of(name):
    return modelled("amx-bf16", "amx-int8") if name == "model" else host_target(name)


def low(*shape):
    return torch.randn(*shape).bfloat16()


def off(got, expected):
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(got.double().numpy() - expected).max()) / scale


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["nn", "nt", "tn", "tt"])
def test_orientations_and_ragged_edges(kind, target):
    for m, n, k in SHAPES:
        x, w = (v.bfloat16() for v in operands(kind, m, n, k))
        plan, (got,) = run_on(target_of(target), product(kind, bf16), x, w)
        assert instructions(plan) <= {"tdpbf16ps"} and (instructions(plan) or m < 8)
        assert off(got, exact(kind, x, w).numpy()) < 1e-6, (m, n, k)


@pytest.mark.parametrize("target", TARGETS)
def test_every_block_of_accumulators_and_of_the_sum(target):
    x, w = (v.bfloat16() for v in operands("nn", 70, 90, 300))
    for tile in [(32, 32), (64, 16), (16, 64), (48, 16), (16, 48), (32, 16), (16, 32), (16, 16)]:
        for block in (128, 256, 320):
            plan, (got,) = run_on(target_of(target), product("nn", bf16), x, w,
                                  decisions={"register_tile": tile, "sum_block": block, "blocks": (4, 1), "panels": 2})
            assert {c.value for n, c in plan.decisions.made.items() if n.endswith("register_tile")} == {tile}
            assert off(got, exact("nn", x, w).numpy()) < 1e-6


def test_random_shapes():
    rng = np.random.default_rng(1)
    for _ in range(12):
        m, n, k = (int(v) for v in rng.integers((8, 8, 8), (90, 90, 700)))
        x, w = (v.bfloat16() for v in operands("nn", m, n, k))
        plan, (got,) = run_on(target_of("model"), product("nn", bf16), x, w)
        assert instructions(plan) == {"tdpbf16ps"} and off(got, exact("nn", x, w).numpy()) < 1e-6, (m, n, k)


@dlc.kernel
def plain(x: bf16[M, K], w: bf16[K, N]):
    return x @ w


@dlc.kernel
def batched(x: bf16[B, M, K], w: bf16[B, K, N]):
    return x @ w


@dlc.kernel
def finished(x: bf16[M, K], w: bf16[N, K], b: f32[N], r: f32[M, N]):
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(dlc.cast(x[i, k], f32) * w[j, k], k) + b[j])
    return dlc.gelu(y) * 0.5 + r


@dlc.kernel
def gated(x: bf16[M, K], w: bf16[K, N], v: bf16[K, N]):
    return dlc.silu(x @ w) * (x @ v)


@dlc.kernel
def both(x: bf16[M, K], w: bf16[K, N]):
    y = x @ w
    return y, dlc.relu(y)


@dlc.kernel
def gram(x: bf16[K, M]):
    return dlc.cast(x.T, f32) @ x


@dlc.kernel
def shares(x: bf16[M, K], w: bf16[K, N]):
    return dlc.softmax(x @ w, 1)


@dlc.kernel
def activated(x: bf16[M, K], w: bf16[K, N]):
    return dlc.relu(x) @ w


@dlc.kernel
def weighted(x: bf16[M, K], s: bf16[K], w: bf16[K, N]):
    return (dlc.exp(x) * s) @ w


@dlc.kernel
def layers(x: bf16[M, K], w: bf16[K, N], v: bf16[N, K]):
    return dlc.relu(x @ w) @ v


@dlc.kernel
def permitted(x: f32[M, K], w: f32[K, N]):
    return dlc.matmul(x, w, precision="bf16")


@dlc.kernel
def mixed(x: bf16[M, K], w: i8[K, N]):
    return dlc.cast(x, f32) @ dlc.cast(w, f32)


VIEW = torch.randn(200, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
PROGRAMS = {
    "rounded": (plain, (57, 90), (90, 70)), "rounded, sum in blocks": (plain, (60, 1000), (1000, 70)),
    "batched": (batched, (3, 33, 40), (3, 40, 50)), "batched, sum in blocks": (batched, (2, 64, 640), (2, 640, 64)),
    "gated": (gated, (57, 90), (90, 70), (90, 70)), "two results": (both, (57, 90), (90, 70)), "softmax": (shares, (57, 90), (90, 70)),
    "one tensor": (gram, (90, 70)), "a factor computed while it is packed": (activated, (57, 90), (90, 70)),
    "a factor of several": (weighted, (57, 90), (90,), (90, 70)), "two layers": (layers, (57, 90), (90, 70), (70, 90)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name, target):
    kernel, *shapes = PROGRAMS[name]
    args = [low(*s) for s in shapes]
    plan, got = run_on(target_of(target), kernel, *args)
    expected = kernel.reference(*args)
    assert instructions(plan) == {"tdpbf16ps"}
    for g, e in zip(got, expected if isinstance(expected, (list, tuple)) else [expected]):
        assert off(g, np.asarray(e, np.float64)) < (2e-6 if g.dtype == torch.float32 else 2 ** -7)


@pytest.mark.parametrize("target", TARGETS)
def test_factors_that_may_be_rounded_and_those_that_need_not(target):
    x, w = torch.randn(57, 90), torch.randn(90, 70)
    plan, (got,) = run_on(target_of(target), permitted, x, w)
    assert instructions(plan) == {"tdpbf16ps"} and off(got, (x.bfloat16().double() @ w.bfloat16().double()).numpy()) < 1e-6
    few = torch.randint(-128, 128, (90, 70), dtype=torch.int8)
    plan, (got,) = run_on(target_of(target), mixed, x.bfloat16(), few)
    assert instructions(plan) == {"tdpbf16ps"} and off(got, (x.bfloat16().double() @ few.double()).numpy()) < 1e-6


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("m, n, k", [(57, 70, 90), (64, 64, 64), (64, 96, 1000)])
def test_what_finishes_a_product_reads_its_sums_row_by_row(m, n, k, target):
    x, w, b, r = low(m, k), low(n, k), torch.randn(n), torch.randn(m, n)
    plan, (got,) = run_on(target_of(target), finished, x, w, b, r)
    expected = torch.nn.functional.gelu(x.double() @ w.double().T + b.double()) * 0.5 + r.double()
    assert instructions(plan) == {"tdpbf16ps"} and off(got, expected.numpy()) < 1e-5


@pytest.mark.parametrize("target", TARGETS)
def test_views(target):
    views = [(VIEW[1:100:2, 3:190:3], VIEW.T[5:68, 0:180:2]), (VIEW[:40, :60].flip(0)[:, :50], VIEW.T[:50, :80]), (VIEW[:, :64], VIEW[:64])]
    for x, w in views:
        plan, (got,) = run_on(target_of(target), plain, x, w)
        assert instructions(plan) == {"tdpbf16ps"} and off(got, (x.double() @ w.double()).numpy()) < 2 ** -7


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("m, n, k", [(0, 8, 16), (9, 16, 0), (1, 1, 1), (1, 64, 64), (64, 1, 64), (40, 40, 1), (2, 3, 2), (4, 4, 8)])
def test_empty_and_single(m, n, k, target):
    x, w = low(m, k), low(k, n)
    _, (got,) = run_on(target_of(target), plain, x, w)
    assert got.shape == (m, n) and torch.allclose(got.double(), x.double() @ w.double(), rtol=2 ** -7, atol=1e-2)


def test_sizes_left_symbolic():
    x, w = low(60, 90), low(90, 70)
    request = replace(plain.plan(x, w).request.on(target_of("model")), decisions={}, dynamic=frozenset({"M", "K"}))
    plan = Plan(request)
    assert instructions(plan) == {"tdpbf16ps"}


# -- machine code for processors that need not be here -------------------------------------------------------------
def assembly_of(kernel, *args):
    return Plan(kernel.plan(*args).request.on(AMX)).assembly()


def blocks_of(text):
    """The first words of the instructions from each label to the next jump."""
    for part in re.split(r"^\.L\w+:", text, flags=re.M):
        words = [line.split()[0] for line in part.splitlines() if line.strip() and line.strip()[0] not in ".#"]
        yield words[:next((n for n, w in enumerate(words) if w.startswith("j")), len(words))]


@pytest.mark.parametrize("kind", ["nn", "nt", "tn"])
@pytest.mark.parametrize("k", [256, 1024])
def test_the_innermost_loop_is_four_loads_and_four_products(kind, k):
    shapes = (1024, k) if kind[0] == "n" else (k, 1024), (k, 1024) if kind[1] == "n" else (1024, k)
    x, w = (torch.empty(s, dtype=torch.bfloat16) for s in shapes)
    text = assembly_of(product(kind, bf16), x, w)
    inner = [x for x in blocks_of(text) if "tdpbf16ps" in x]
    assert len(inner) == 1
    counts = {op: inner[0].count(op) for op in ("tileloadd", "tileloaddt1", "tdpbf16ps", "tilestored", "tilezero")}
    assert counts == {"tileloadd": 2, "tileloaddt1": 2, "tdpbf16ps": 4, "tilestored": 0, "tilezero": 0} and len(inner[0]) <= 16
    assert text.count("ldtilecfg") == text.count("tilerelease") == 1


@pytest.mark.parametrize("kind", ["nn", "nt", "tn", "tt"])
def test_packing_is_vectors(kind):
    x, w = (torch.empty(1024, 1024, dtype=torch.bfloat16) for _ in range(2))
    text = assembly_of(product(kind, bf16), x, w)
    assert "gather" not in text and not re.search(r"\b(vpinsrw|pinsrw|movzwl|vpextrw)\b", text)
    assert text.count("zmm") > 8


def test_a_result_that_only_is_stored_leaves_the_tiles_for_its_place():
    x, w = torch.empty(1024, 256, dtype=torch.bfloat16), torch.empty(256, 1024, dtype=torch.bfloat16)
    text = assembly_of(product("nn", bf16), x, w)
    assert text.count("tilestored") == 4 and "zmm" not in text[text.index("tilezero"):text.index("tilerelease")]


# -- choices -------------------------------------------------------------------------------------------------------
def dots(name="tdpbf16ps"):
    (d,) = (d for d in DOTS if d.name == name)
    return Dots(d, Var("k"), d.steps)


@pytest.mark.parametrize("columns, lines", [(4, 4), (16, 16), (1000, 5), (5, 1000), (64, 64), (4096, 4096), (70, 100)])
def test_blocks_of_accumulators_fit_the_registers(columns, lines):
    d = dots()
    lanes, rows = tile_shape(d, columns, lines)
    width, height = min(16, max(4, columns)), min(16, lines)
    assert lanes % width == 0 and rows % height == 0 and fits(rows // height, lanes // width)


def test_large_products_take_two_by_two():
    assert tile_shape(dots(), 4096, 4096) == (32, 32)
    assert tile_shape(dots(), 4096, 16)[0] >= 64


def test_a_panel_stays_in_the_nearest_cache():
    assert sum_block(AMX, dots(), 32, 256) == 256
    for terms in (1000, 1024, 4096, 10_000):
        block = sum_block(AMX, dots(), 32, terms)
        rounds = -(-terms // block)
        assert block % 32 == 0 and block * 32 * 2 < AMX.caches[0] and rounds * block < 1.1 * terms + 64
