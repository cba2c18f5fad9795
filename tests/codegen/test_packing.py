"""Packed blocks hold what the product reads, side by side; which factors may be packed at all."""

import torch

from codegen.analysis.access import product_reads
from codegen.heuristics.packing import crosses_panels, separable
from dsl.dim import as_term
from dsl.placing import place
from tests.codegen.products import PRODUCTS, choice, operands, planned


def plan_of(kind, target="", **decisions):
    return planned(PRODUCTS[kind], *operands(kind, 100, 200, 300), target=target, decisions=decisions)


def test_an_axis_alone_in_an_index_is_separable():
    import dlc
    from dlc import f32
    

    @dlc.kernel
    def window(x: f32[64], w: f32[5, 60]):
        k = dlc.reduce_axis(5)
        return dlc.compute((60,), lambda i: dlc.sum(x[i + k] * w[k, i], k))

    s = window.plan(torch.randn(64), torch.randn(5, 60)).unscheduled.stages[0]
    x, w = product_reads(s.body.args[0])
    assert not separable(x, s.axes[0]) and separable(w, s.axes[0])
    assert separable(x, s.axes[0], s.bound)


def test_terms_are_packed_in_the_order_in_which_they_are_walked():
    import dlc
    from dlc import f32

    @dlc.kernel
    def conv(x: f32[1, 6, 6, 64], w: f32[32, 64, 3, 3]):
        return dlc.conv2d(dlc.permute(x, (0, 3, 1, 2)), w)

    plan = planned(conv, torch.randn(1, 6, 6, 64), torch.randn(32, 64, 3, 3), target="x86-64-avx2")
    conv2d, packed = plan.nest["conv2d"], plan.nest["w.packed"]
    assert [x for x in conv2d.order if x in conv2d.reducing()] == ["ry", "rx", "c"]
    names = packed.axis_names()
    assert [names[v] for t in packed.layout[1:4] for v in t.vars] == ["w2", "w3", "w1"]


def test_packed_factors_are_private_and_padded():
    plan = plan_of("nn", "x86-64-avx512", pack_lanes=True, pack_rows=True, register_tile=(32, 14), blocks=(4, 4))
    buffers = {b.name: b for phase in plan.tile.phases for b in phase.scratch}
    assert set(buffers) == {"x.packed", "w.packed"}
    assert [int(n) for n in buffers["x.packed"].shape] == [4, 19, 14, 16]
    assert [int(n) for n in buffers["w.packed"].shape][1:] == [300, 32]


def test_each_factor_is_packed_where_its_block_is_known():
    plan = plan_of("nt", pack_rows=True)
    tile = choice(plan, "register_tile").value
    placed = place(plan.nest)
    x, w = (next(s for s in plan.nest.stages if s.name == f"{n}.packed") for n in "xw")
    assert x.attach[1].endswith(".p") and w.attach[1].endswith(".s")
    assert placed[w.name].extent[w.axes[0]] == as_term(tile[0])


def test_rows_cross_panels_only_where_lanes_are_contiguous():
    for kind, crosses in (("nn", True), ("nt", False)):
        plan = PRODUCTS[kind].plan(*operands(kind, 40, 50, 60))
        s = plan.unscheduled.stages[0]
        assert crosses_panels(product_reads(s.body.args[0])[1], s.axes[1], plan.strides) is crosses


def test_the_terms_of_a_window_are_packed_as_one_run():
    import dlc
    from dlc import f32

    @dlc.kernel
    def conv(x: f32[1, 32, 20, 20], w: f32[40, 32, 3, 3]):
        return dlc.conv2d(x, w)

    plan = planned(conv, torch.randn(1, 32, 20, 20), torch.randn(40, 32, 3, 3), target="x86-64-avx2")
    loops = {x.name: (x.role, int(x.extent)) for x in place(plan.nest)["w.packed"].loops}
    assert loops["w1w2w3.i"] == ("unroll", 8) and loops["w1w2w3.o"][1] == 32 * 9 // 8
