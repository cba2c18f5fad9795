"""Contractions on every instruction set this machine has: orientations, ragged edges, strides, threads, and every form by choice."""

import pytest
import torch

import dlc
from codegen.heuristics import Decisions, default_schedule
from codegen.target import by_name
from dlc import f32
from dlc.runtime.device import host_features
from tests.codegen.products import PRODUCTS, B, K, M, N, agrees, choice, exact, operands, run

TARGETS = [t for t in ("x86-64", "x86-64-avx2", "x86-64-avx512", "aarch64-neon") if set(by_name(t).features) <= host_features()]
SHAPES = [(1, 1, 1), (1, 37, 5), (7, 1, 9), (3, 65, 200), (17, 33, 31), (64, 64, 64), (127, 129, 70), (40, 300, 257)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_orientations_and_ragged_edges(kind, target):
    for m, n, k in SHAPES:
        x, w = operands(kind, m, n, k)
        agrees(run(PRODUCTS[kind], x, w, target=target)[1], exact(kind, x, w), k)


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("packs", [(False, False), (True, False), (False, True), (True, True)])
def test_packed_or_not(kind, packs):
    x, w = operands(kind, 61, 203, 83)
    plan, got = run(PRODUCTS[kind], x, w, decisions={"pack_lanes": packs[0], "pack_rows": packs[1], "blocks": (4, 1)})
    agrees(got, exact(kind, x, w), 83)


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_that_do_not_divide(threads):
    x, w = operands("nn", 250, 530, 128)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for blocks in [(1, 1), (4, 4), (4, 16), (64, 64)]:
            agrees(run(PRODUCTS["nn"], x, w, decisions={"blocks": blocks, "pack_lanes": True, "pack_rows": True, "panels": 4})[1],
                   exact("nn", x, w), 128)
    finally:
        torch.set_num_threads(before)


def test_every_register_tile():
    x, w = operands("nt", 53, 90, 40)
    for tile in choice(PRODUCTS["nt"].plan(x, w), "register_tile").options:
        agrees(run(PRODUCTS["nt"], x, w, decisions={"register_tile": tile})[1], exact("nt", x, w), 40)


def test_strided_and_offset_views():
    base = torch.randn(90, 200)
    x, w = base[1:70:2, 3:120:3], torch.randn(45, 100)[:39, 5:93:2]
    agrees(PRODUCTS["nn"](x, w), exact("nn", x, w), 39)
    x, w = torch.randn(70, 64).T[2:50], torch.randn(33, 140)[:, 7:77]
    agrees(PRODUCTS["nt"](x, w), exact("nt", x, w), 70)


@dlc.kernel
def batched(x: f32[B, M, K], w: f32[B, N, K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((B, M, N), lambda b, i, j: dlc.sum(x[b, i, k] * w[b, j, k], k))


def test_batched_products():
    for b, m, n, k in [(5, 33, 40, 17), (3, 128, 130, 64), (1, 9, 9, 9)]:
        x, w = torch.randn(b, m, k), torch.randn(b, n, k)
        agrees(batched(x, w), x.double() @ w.double().mT, k)


@dlc.kernel
def finished(x: f32[M, K], w: f32[N, K], bias: f32[N], residual: f32[M, N]):
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k) + bias[j])
    return dlc.gelu(y) * 0.5 + residual


@pytest.mark.parametrize("m", [3, 8, 30, 140])
def test_epilogues_in_every_form(m):
    x, w, bias, r = torch.randn(m, 70), torch.randn(150, 70), torch.randn(150), torch.randn(m, 150)
    expected = torch.nn.functional.gelu(x.double() @ w.double().T + bias.double()) * 0.5 + r.double()
    forms = choice(finished.plan(x, w, bias, r), "form")
    stage = forms.name.removesuffix(".form")
    for form in forms.options:
        agrees(run(finished, x, w, bias, r, decisions={"form": form}, stage=stage)[1], expected, 70)


@pytest.mark.parametrize("m", [2, 5, 12])
@pytest.mark.parametrize("kind", ["nn", "nt", "tn"])
def test_every_form_of_few_rows(kind, m):
    for n, k in [(70, 33), (257, 130), (16, 500)]:
        x, w = operands(kind, m, n, k)
        for form in choice(PRODUCTS[kind].plan(x, w), "form").options:
            agrees(run(PRODUCTS[kind], x, w, decisions={"form": form})[1], exact(kind, x, w), k)


def test_the_form_follows_the_reuse():
    def form(kind, m, n, k):
        return choice(PRODUCTS[kind].plan(*operands(kind, m, n, k)), "form").value

    assert form("nt", 8, 512, 512) == "dots"
    assert form("nt", 256, 512, 512) == "panels"
    assert form("nn", 4, 2048, 2048) == "stream"
    assert form("nn", 4, 64, 64) == "panels"


def test_decisions_are_the_same_on_a_second_run():
    plan = PRODUCTS["nn"].plan(*operands("nn", 40, 50, 60))
    made = []
    for _ in range(2):
        d = Decisions()
        default_schedule(plan.unscheduled, plan.request.target, plan.strides, d)
        made.append({n: c.value for n, c in d.made.items()})
    assert made[0] == made[1] and made[0]


@dlc.kernel
def gram(x: f32[K, M]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, M), lambda i, j: dlc.sum(x[k, i] * x[k, j], k))


@pytest.mark.parametrize("packs", [(False, False), (True, False), (False, True), (True, True)])
def test_both_factors_may_be_one_tensor(packs):
    x = torch.randn(40, 70)
    agrees(run(gram, x, decisions={"pack_lanes": packs[0], "pack_rows": packs[1]})[1], x.double().T @ x.double(), 40)


@dlc.kernel
def perceptron(x: f32[M, K], w: f32[N, K], b: f32[N], v: f32[B, N]):
    """Two products, with a map between them that is the epilogue of the first."""
    return dlc.linear(dlc.gelu(dlc.linear(x, w, b)), v)


@dlc.kernel
def doubled(x: f32[M, K], w: f32[K, N], v: f32[N, B]):
    """Two products, with a map between them of the softmax kind: it reads the first product through row sums."""
    h = x @ w
    return (h / (1.0 + dlc.sum(dlc.abs(h), 1, keepdim=True))) @ v


@pytest.mark.parametrize("kernel", [perceptron, doubled])
def test_products_of_products_are_all_tiled(kernel):
    shapes = [(37, 29), (70, 29), (70,), (45, 70)] if kernel is perceptron else [(37, 29), (29, 70), (70, 45)]
    arguments = [torch.randn(*s) for s in shapes]
    plan = kernel.plan(*arguments)
    assert all(any(s.role(x) == "vectorize" for x in s.order) for s in plan.nest.stages if s.kind == "reduce")
    x, w, *b, v = (a.double() for a in arguments)
    h = x @ (w if not b else w.T) + (b[0] if b else 0)
    expected = torch.nn.functional.gelu(h) @ v.T if b else (h / (1 + h.abs().sum(1, keepdim=True))) @ v
    agrees(kernel(*arguments), expected, 99)


def apart(x, c):
    """Every row of one beside every row of the other."""
    return dlc.unsqueeze(x, 1) - dlc.unsqueeze(c, 0)


PAIRS = {
    "squared distances": (lambda x, c: dlc.sum(apart(x, c) ** 2, -1), lambda x, c: torch.cdist(x, c) ** 2),
    "distances": (lambda x, c: dlc.sum(dlc.abs(apart(x, c)), -1), lambda x, c: torch.cdist(x, c, p=1)),
    "longest path": (lambda x, c: dlc.max(dlc.unsqueeze(x, 1) + dlc.unsqueeze(c, 0), -1), lambda x, c: (x[:, None] + c[None]).amax(-1)),
    "nearest": (lambda x, c: dlc.min(dlc.abs(apart(x, c)), -1), lambda x, c: (x[:, None] - c[None]).abs().amin(-1)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("m, n, k", [(37, 70, 29), (1, 9, 40), (64, 3, 130), (200, 300, 64)])
def test_reductions_of_pairs_reuse_their_operands_like_products(name, m, n, k):
    ours, theirs = PAIRS[name]

    @dlc.kernel
    def pairs(x: f32[M, K], c: f32[N, K]):
        return ours(x, c)

    x, c = torch.randn(m, k), torch.randn(n, k)
    torch.testing.assert_close(pairs(x, c), theirs(x.double(), c.double()).float(), rtol=1e-5, atol=1e-4)
    if m * n * k > 3_000_000:
        (stage,) = (s for s in pairs.plan(x, c).nest.stages if s.kind == "reduce")
        assert {"unroll", "vectorize"} <= {stage.role(loop) for loop in stage.order}


@pytest.mark.parametrize(("channels", "filters", "groups"), [(32, 32, 2), (24, 60, 3), (16, 48, 4)])
def test_groups_are_finished_where_they_are_stored(channels, filters, groups):
    @dlc.kernel
    def conv(x: f32[2, channels, 9, 11], w: f32[filters, channels // groups, 3, 3], b: f32[filters]):
        return dlc.relu(dlc.conv2d(x, w, b, padding=1, groups=groups))

    x, w, b = torch.randn(2, channels, 9, 11), torch.randn(filters, channels // groups, 3, 3), torch.randn(filters)
    plan, got = run(conv, x, w, b)
    want = torch.relu(torch.nn.functional.conv2d(x.double(), w.double(), b.double(), padding=1, groups=groups))
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
    roots = [s for s in plan.nest.stages if s.attach is None]
    assert [plan.nest.is_output(s) for s in roots] == [False, True]
    assert any(s.name == "w.packed" for s in plan.nest.stages) is (filters // groups >= 16)  # fewer do not fill the lanes
