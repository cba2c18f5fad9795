"""Few rows: the large factor is read once and not copied, whatever its orientation."""

import pytest
import torch

import dlc
from dlc import f32
from tests.codegen.products import PRODUCTS, K, N, agrees, choice, exact, operands, planned, run


@pytest.mark.parametrize("kind, form", [("nt", "dots"), ("nn", "stream")])
@pytest.mark.parametrize("m", [2, 3, 8])
def test_few_rows_make_no_copies(kind, form, m):
    x, w = operands(kind, m, 700, 900)
    plan, got = run(PRODUCTS[kind], x, w)
    assert choice(plan, "form").value == form
    assert not any("packed" in b.name for phase in plan.tile.phases for b in phase.scratch)
    agrees(got, exact(kind, x, w), 900)


def test_few_is_half_the_registers():
    form = {t: choice(planned(PRODUCTS["nt"], *operands("nt", 14, 700, 900), target=t), "form").value
            for t in ("x86-64-avx2", "x86-64-avx512")}
    assert form == {"x86-64-avx2": "panels", "x86-64-avx512": "dots"}


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 6, 8])
def test_dots_of_any_number_of_columns(columns):
    x, w = operands("nt", 3, 131, 75)
    agrees(run(PRODUCTS["nt"], x, w, decisions={"form": "dots", "columns": columns})[1], exact("nt", x, w), 75)


@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_streams_of_any_step(step):
    x, w = operands("nn", 3, 331, 75)
    agrees(run(PRODUCTS["nn"], x, w, decisions={"form": "stream", "step": step})[1], exact("nn", x, w), 75)


@pytest.mark.parametrize(("m", "tile"), [(2, (24, 2)), (4, (16, 4)), (8, (16, 4)), (8, (8, 8)), (7, (24, 3)), (5, (8, 1))])
def test_streams_of_any_tile(m, tile):
    x, w = operands("nn", m, 331, 75)
    plan, got = run(PRODUCTS["nn"], x, w, target="x86-64-avx2", decisions={"form": "stream", "stream_tile": tile})
    assert choice(plan, "stream_tile").value == tile
    agrees(got, exact("nn", x, w), 75)


def test_threads_share_no_lines_of_unfinished_results():
    """Blocks are equal shares, kept in private memory while rows pass."""
    plan = planned(PRODUCTS["nn"], *operands("nn", 6, 1000, 4000), target="x86-64-avx2")
    kept = next(b for phase in plan.tile.phases for b in phase.scratch)
    blocks = plan.request.target.threads
    assert int(kept.shape[-1]) * blocks >= 1000 > (int(kept.shape[-1]) - 24) * blocks


def test_sums_kept_in_memory_start_from_zero():
    x, w = operands("nn", 2, 400, 64)
    _, first = run(PRODUCTS["nn"], x, w, decisions={"form": "stream"})
    _, second = run(PRODUCTS["nn"], x, w, decisions={"form": "stream"})
    assert torch.equal(first, second)


@dlc.kernel
def gemv(x: f32[K], w: f32[K, N], b: f32[N]):
    return dlc.relu(x @ w + b)


@dlc.kernel
def column_sums(w: f32[K, N]):
    return dlc.sum(w, axis=0)


@dlc.kernel
def column_maxima(w: f32[K, N]):
    return dlc.max(w, axis=0)


@pytest.mark.parametrize("k, n", [(700, 901), (1500, 333), (33, 20000)])
@pytest.mark.parametrize("form", ["stream", "rows"])
def test_whole_rows_pass(k, n, form):
    w, x, b = torch.randn(k, n), torch.randn(k), torch.randn(n)
    cases = [(gemv, (x, w, b), (x.double() @ w.double() + b.double()).relu()), (column_sums, (w,), w.double().sum(0)),
             (column_maxima, (w,), w.double().amax(0))]
    for kernel, arguments, expected in cases:
        if kernel is column_sums and k > 64:  # in chunks, which have a form of their own
            agrees(kernel(*arguments), expected, k)
            continue
        chosen = choice(kernel.plan(*arguments), "form")
        assert chosen.value == "stream"
        agrees(run(kernel, *arguments, decisions={"form": form}, stage=chosen.name.removesuffix(".form"))[1], expected, k)


def test_sums_of_rows_that_a_larger_map_uses_are_not_made_anew_for_each_of_its_rows():
    @dlc.kernel
    def centred(x: f32[64, 2000], y: f32[2000, 64]):
        total = dlc.sum(x + dlc.transpose(y, 0, 1), 1)
        return dlc.compute((64, 2000), lambda i, j: x[i, j] + y[j, i] - total[i] / 2000.0)

    x, y = torch.randn(64, 2000), torch.randn(2000, 64)
    nest = centred.plan(x, y).nest
    for s in nest.stages:
        if s.attach is not None:
            outer, loop = nest[s.attach[0]], s.attach[1]
            around = outer.order[:outer.order.index(loop) + 1]
            assert {name.split(".")[0] for name in around} <= {"i"}, nest
    torch.testing.assert_close(centred(x, y), x + y.T - (x + y.T).mean(1, keepdim=True), rtol=1e-4, atol=1e-4)
