"""Where one pass pays, and how its stages are scheduled."""

from __future__ import annotations

import torch

import dlc
from dlc import f32
from dsl.replay import replay
from tests.codegen.products import planned

M, N, D, H = dlc.dims("M N D H")


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x)


@dlc.kernel
def columns(x: f32[M, N]):
    return dlc.softmax(x, axis=0)


@dlc.kernel
def attention(q: f32[M, D], k: f32[N, D], v: f32[N, D]):
    return dlc.softmax(q @ k.T) @ v


@dlc.kernel
def normed_product(x: f32[M, D], w: f32[N, D]):
    return dlc.rms_norm(x) @ w.T


@dlc.kernel
def layer_normed_product(x: f32[M, D], g: f32[D], w: f32[N, D]):
    return dlc.layer_norm(x, (D,), g) @ w.T


@dlc.kernel
def weighted(x: f32[M, N], d: f32[M, N], v: f32[N, D]):
    return (dlc.softmax(x, -1) * d) @ v


@dlc.kernel
def step(x: f32[M, N], d: f32[M, N], v: f32[N, D]):
    return (dlc.softmax(x, -1) - d) @ v


@dlc.kernel
def batch_norm(x: f32[M, N, D, H]):
    return dlc.batch_norm(x)


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def kinds(k, *args):
    return [s.kind for s in k.plan(*args).nest.stages]


def test_rows_longer_than_the_cache_are_read_once():
    assert "roll" in kinds(softmax, empty(8, 1 << 20))
    assert "roll" not in kinds(softmax, empty(8, 1 << 10))


def test_rows_side_by_side_in_memory_go_together():
    """Columns: lanes run across the rows; a block is short, and long runs of memory are read in it."""
    assert "roll" in kinds(columns, empty(4096, 4096)) and "roll" not in kinds(columns, empty(100, 4096))
    assert "16 rows side by side, 262,144 bytes, do not stay in the nearest cache" in columns.explain(empty(4096, 4096))
    nest = columns.plan(empty(4096, 4096)).nest
    inside = [s for s in nest.stages if s.attach is not None and s.attach[0] == "max.roll"]
    assert inside and all(s.role(s.order[-1]) == "vectorize" and s.order[-1].startswith("j") for s in inside)


def test_few_rows_side_by_side_are_parted():
    nest = columns.plan(empty(1 << 20, 8)).nest
    assert any(v.name == "k0_p" for s in nest.stages for v in s.axes)
    assert not any(v.name == "k0_p" for s in columns.plan(empty(1 << 16, 64)).nest.stages for v in s.axes)


def test_scores_are_never_stored():
    assert "roll" in kinds(attention, empty(64, 32), empty(80, 32), empty(80, 32))


def test_a_product_of_normalised_rows_reads_them_once_where_the_columns_are_few():
    assert "roll" in kinds(normed_product, empty(64, 128), empty(32, 128))
    text = normed_product.explain(empty(64, 128), empty(32, 128))
    assert "deferred" in text and "one pass: the product with 32 columns reads the rows" in text
    assert "roll" not in kinds(normed_product, empty(64, 128), empty(1024, 128))
    assert "sums for 1,024 columns do not stay in the cache" in normed_product.explain(empty(64, 128), empty(1024, 128))
    assert "8 rows share too few blocks" in normed_product.explain(empty(8, 128), empty(32, 128))


def test_what_no_row_changes_is_reduced_once():
    args = empty(64, 1024), empty(1024), empty(32, 1024)
    stages = layer_normed_product.plan(*args).nest.stages
    sums = [s for s in stages if s.kind == "reduce" and {t.name for t in s.sources()} <= {"g", "w"}]
    assert sums and all(s.attach is None and 64 not in [int(v.extent) for v in s.axes] for s in sums)


def test_statistics_of_a_box_are_cut_along_its_largest_steps():
    x = empty(32, 64, 56, 56)
    (roll,) = [s for s in batch_norm.plan(x).nest.stages if s.kind == "roll"]
    assert roll.bound[0].name.startswith("k0")
    assert "roll" not in kinds(batch_norm, empty(4, 64, 14, 14))


def test_the_schedule_is_a_trace_that_replays():
    args = [torch.randn(40, 16), torch.randn(300, 16), torch.randn(300, 16)]
    plan = attention.plan(*args)
    again = dlc.kernel(attention.fn)
    again.scheduler = lambda nest: replay(nest, plan.nest.trace)
    torch.testing.assert_close(again(*args), attention(*args), rtol=0, atol=0)


def test_several_passes_can_be_asked_for():
    args = [torch.randn(40, 16), torch.randn(300, 16), torch.randn(300, 16)]
    several = dlc.kernel(attention.fn)
    several.decisions = {"max.pass": "several"}
    assert "roll" not in kinds(several, *args)
    torch.testing.assert_close(several(*args), attention(*args), rtol=1e-5, atol=1e-6)


def test_rows_with_factors_of_their_own_share_a_product() -> None:
    """Softmax weights times another matrix, times a third: the first two are multiplied once for a block."""
    x, d, v = torch.randn(300, 200), torch.randn(300, 200), torch.randn(200, 64)
    assert kinds(weighted, x, d, v).count("roll") == 1
    assert all(len(s.axes) <= 3 for s in weighted.plan(x, d, v).nest.stages)  # the block, a row, a term or a column
    torch.testing.assert_close(weighted(x, d, v), (x.softmax(-1) * d) @ v, rtol=1e-5, atol=1e-5)


def test_one_product_is_not_made_two() -> None:
    """A target beside the weights has a product of its own in one pass, and none in several."""
    args = empty(300, 200), empty(300, 200), empty(200, 64)
    assert "roll" not in kinds(step, *args) and "one product is 2" in step.explain(*args)


@dlc.kernel
def two_convolutions(x: f32[1, 4, 9, 9], w: f32[8, 4, 3, 3], v: f32[8, 8, 3, 3]):
    return dlc.conv2d(dlc.relu(dlc.conv2d(x, w)), v)


def test_what_a_window_reads_again_and_again_is_kept():
    x, w, v = torch.randn(1, 4, 9, 9), torch.randn(8, 4, 3, 3), torch.randn(8, 8, 3, 3)
    want = torch.conv2d(torch.conv2d(x, w).relu(), v)
    torch.testing.assert_close(two_convolutions(x, w, v), want)
    plan = two_convolutions.plan(x, w, v)
    assert not any(s.kind == "roll" or s.name.endswith(".roll") for s in plan.nest.stages)
    leaves = [t.clone().requires_grad_() for t in (x, w, v)]  # the forward that keeps the first convolution's results
    torch.testing.assert_close(two_convolutions(*leaves), want)


def test_a_product_of_interleaved_rows_goes_alone_on_cpus():
    """The gradients of a bias and of weights: nothing that scales the rows, and sums of columns go side by side."""
    @dlc.kernel
    def gradients(x: f32[M, N], scale: f32[N], d: f32[M, H]):
        m = dlc.reduce_axis(M)
        return (dlc.sum(d, axis=0),
                dlc.compute((H, N), lambda h, n: dlc.sum(d[m, h] * (x[m, n] * scale[n] + 1.0), m)))

    args = torch.empty(512, 128), torch.empty(128), torch.empty(512, 128)
    assert "interleaved" in gradients.explain(*args)


def test_sums_of_columns_are_read_once_from_a_quarter_of_the_cache_on():
    @dlc.kernel
    def variances(x: f32[M, N]):
        return dlc.var(x, 0)

    assert "roll" in kinds(variances, empty(512, 768)) and "roll" not in kinds(variances, empty(64, 768))
    x = torch.randn(513, 300)
    torch.testing.assert_close(variances(x), x.var(0), rtol=1e-5, atol=1e-5)


def test_columns_go_in_whole_groups_of_vectors():
    def width(*shape: int) -> int:
        plan = planned(columns, empty(*shape), target="x86-64-avx2", stage="max.roll")
        return plan.decisions.made["max.roll.columns"].value if plan.nest else 0

    assert width(4096, 1000) % 32 == 0 and width(4096, 2048) == 512 and width(4096, 64) == 32


@dlc.kernel
def projections(x: f32[M, D], a: f32[N, D], b: f32[N, D], c: f32[N, D]):
    y = dlc.rms_norm(x)
    return dlc.linear(y, a), dlc.linear(y, b), dlc.linear(y, c)


def test_the_columns_of_all_products_count():
    x, w = torch.empty(256, 256), torch.empty(128, 256)
    assert "384 columns" in projections.explain(x, w, w, w)
    assert all(s.kind != "roll" for s in projections.plan(x, w, w, w).nest.stages)
    assert any(s.kind == "roll" for s in projections.plan(x, *(torch.empty(64, 256),) * 3).nest.stages)


@dlc.kernel
def projected_values(q: f32[M, D], k: f32[N, D], x: f32[N, H], w: f32[D, H]):
    return dlc.softmax(q @ k.T) @ dlc.linear(x, w)


def test_what_every_row_of_a_pass_reads_is_made_once():
    nest = projected_values.plan(*(torch.empty(s) for s in ((512, 64), (512, 64), (512, 128), (64, 128)))).nest
    (host,) = (s for s in nest.stages if s.kind == "roll")
    (values,) = (s for s in nest.stages if s.name.startswith("linear") and s.kind == "reduce")
    assert values.attach is None and host.attach is not None


def test_rows_lie_along_the_lanes_unless_memory_runs_along_the_points():
    q, bias = torch.empty(1, 1, 512, 64), torch.empty(512, 512)

    @dlc.kernel
    def biased(q: f32[1, 1, M, D], k: f32[1, 1, N, D], v: f32[1, 1, N, D], bias: f32[M, N]):
        return dlc.scaled_dot_product_attention(q, k, v, bias)

    def lanes(nest):
        (s,) = (s for s in nest.stages if s.name == "scores_sum")
        return next(x for x in s.order if s.role(x) == "vectorize").split(".")[0]

    assert lanes(biased.plan(q, q, q, bias).nest) == "s"

    @dlc.kernel
    def unbiased(q: f32[1, 1, M, D], k: f32[1, 1, N, D], v: f32[1, 1, N, D]):
        return dlc.scaled_dot_product_attention(q, k, v)

    nest = unbiased.plan(q, q, q).nest
    assert lanes(nest) == "l"
    (copy,) = (s for s in nest.stages if s.name == "q.packed")
    assert copy.attach is not None and copy.attach[1] == ""  # once for all blocks
