"""One test per refusal of a schedule step, with its whole message; the line it cites is the step's own."""

from __future__ import annotations

import re

import pytest

import dlc
from dlc import f32
from dsl.errors import ScheduleError
from dsl.machine import Machine
from dsl.nest_text import show_nest
from dsl.program import trace
from dsl.replay import read_trace, replay
from dsl.schedule import Schedule
from dsl.stages import build_nest


def linear(x: f32[50, 20], w: f32[30, 20], b: f32[30]):
    """y: a product; z: what finishes it."""
    k = dlc.reduce_axis(20)
    y = dlc.compute((50, 30), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.compute((50, 30), lambda i, j: dlc.relu(y[i, j] + b[j]), name="z")


def turned(x: f32[8, 8]):
    """z reads y at other points than its own, and u reads it too."""
    y = dlc.compute((8, 8), lambda i, j: dlc.exp(x[i, j]), name="y")
    return dlc.compute((8, 8), lambda i, j: y[j, i] + y[i, j], name="z"), dlc.compute((8, 8), lambda i, j: y[i, j] * 2.0, name="u")


def prefixes(x: f32[6, 10]):
    """A scan."""
    return dlc.cumsum(x, 1)


def wide(x: f32[6, 10]):
    """Two values of state, no product."""
    return dlc.argmax(x, 1)


def of(fn, machine=None):
    return Schedule(build_nest(trace(fn)), machine or Machine("cpu", widest=4096))


GPU = Machine("sm_90", True, 1 << 16)


def message(step, fn, machine=None) -> str:
    """What a step says when it is refused, its line left out; the schedule must be what the steps before it made."""
    s = of(fn, machine)
    with pytest.raises(ScheduleError) as e:
        step(s)
    assert show_nest(replay(of(fn).nest, s.steps)) == str(s)
    assert "test_schedule_errors.py" in str(e.value)
    return re.sub(r"\n  --> .*(\n *\d+ \| .*)?", "", str(e.value))


def test_no_such_loop():
    assert message(lambda s: s.split("q", 4), linear) == """\
schedule error: no stage has a loop `q`
  instead: the loops are
           y: i, j, k
           z: i, j"""


def test_an_ambiguous_loop():
    assert message(lambda s: s.split("i", 4), linear) == """\
schedule error: `i` is a loop of 2 stages
  because: it may be y:i, z:i
  instead: say which: "z:i", or s.stage("z")"""


def test_no_such_loop_of_a_stage():
    assert message(lambda s: s.split("y:q", 4), linear) == """\
schedule error: y has no loop `q`
  instead: its loops are i, j, k"""


def test_no_such_stage():
    assert message(lambda s: s.stage("zz"), linear) == """\
schedule error: no stage is called `zz`
  because: did you mean z?
  instead: one of y, z"""


def test_a_factor_of_zero():
    assert message(lambda s: s.split("k", 0), linear) == """\
schedule error: split('k', 0): the factor must be a whole number, at least 1"""


def test_an_unknown_tail():
    assert message(lambda s: s.split("k", 4, tail="round"), linear) == """\
schedule error: split('k'): unknown tail 'round'
  instead: one of mask, peel, pad, exact"""


def test_a_factor_that_does_not_divide():
    assert message(lambda s: s.split("k", 16, tail="exact"), linear) == """\
schedule error: split('k', 16, tail='exact'): 16 does not divide the iterations of k
  because: 20 = 1*16 + 4
  instead: tail='mask', 'peel' or 'pad', or pad the loop first"""


def test_padding_a_result():
    assert message(lambda s: s.split("z:i", 16, tail="pad"), linear) == """\
schedule error: split('i', 16, tail='pad'): the memory of z cannot be padded
  because: it is a result, whose memory the caller owns
  instead: tail='mask' or 'peel', or write through cache_write"""


def test_padding_a_part_of_an_axis():
    assert message(lambda s: s.split("y:i", 16).split("y:i.i", 5, tail="pad"), linear) == """\
schedule error: split('i.i', 5, tail='pad'): i.i is a part of an axis
  because: memory is padded along whole axes
  instead: split the axis itself with tail='pad'"""


def test_names_in_use():
    assert message(lambda s: s.split("k", 4, outer="i", inner="j"), linear) == """\
schedule error: split('k'): a loop called i or j exists in y
  instead: name the parts: split(..., outer=, inner=)"""


def test_fusing_loops_that_are_not_neighbours():
    assert message(lambda s: s.fuse("y:i", "k"), linear) == """\
schedule error: fuse('i', 'k'): k is not directly inside i
  because: the order is i, j, k
  instead: reorder first"""


def test_fusing_a_reduction_loop_with_another():
    assert message(lambda s: s.fuse("y:j", "k"), linear) == """\
schedule error: fuse('j', 'k'): one is a reduction loop and the other is not
  because: their iterations combine differently
  instead: fuse loops of the same kind"""


def test_reordering_a_loop_twice():
    assert message(lambda s: s.reorder("y:i", "y:i"), linear) == """\
schedule error: reorder(i, i): a loop is named twice"""


def test_an_unknown_role():
    assert message(lambda s: s.bind("k", "threads"), linear) == """\
schedule error: unknown role 'threads' for k
  instead: one of dot, grid, parallel, seek, serial, unroll, vectorize"""


def test_parallel_along_a_reduction():
    assert message(lambda s: s.parallel("k"), linear) == """\
schedule error: parallel('k'): the iterations of k depend on each other
  because: the iterations k = 0 and k = 1 both update y[0, 0]
  instead: rfactor('k') makes partial results that can be computed in parallel"""


def test_parallel_along_a_scan():
    assert message(lambda s: s.parallel("k"), prefixes) == """\
schedule error: parallel('k'): the iterations of k depend on each other
  because: the iteration k = 1 starts from the prefix that k = 0 ends with
  instead: make a loop over its rows parallel"""


def test_reordering_a_scan():
    assert message(lambda s: s.split("k", 5).reorder("k.i", "k.o"), prefixes) == """\
schedule error: reorder(k.i, k.o): cumsum combines its elements in the order of the axis
  because: the element at k.o = 1, k.i = 0 would come before the one at k.o = 0, k.i = 1, which precedes it along the axis
  instead: keep the parts of the axis in their order"""


def test_lanes_twice_along_a_scan():
    assert message(lambda s: s.split("k", 4).split("k.o", 2).vectorize("k.i").vectorize("k.o.i"), prefixes) == """\
schedule error: vectorize('k.o.i'): k.i is an axis of the tile already
  because: the prefixes of cumsum follow one order, along one axis of a tile
  instead: serial('k.i') first"""


def test_parallel_inside_a_serial_loop():
    assert message(lambda s: s.parallel("z:j"), linear) == """\
schedule error: parallel('j'): j is parallel inside i, which is not
  because: threads are started once, around the outermost loops
  instead: reorder the parallel loops outside i"""


def test_parallel_inside_another_stage():
    assert message(lambda s: s.compute_at("y", "z:i").parallel("y:i"), linear) == """\
schedule error: parallel('i'): y is computed inside z
  because: threads are started once, around the outermost loops
  instead: make a loop of z parallel, or compute_root('y') first"""


def test_a_tile_at_which_something_is_computed():
    assert message(lambda s: s.compute_at("y", "z:i").vectorize("z:i"), linear) == """\
schedule error: vectorize('i'): y is computed at i
  because: inside a tile nothing is computed apart
  instead: compute y at an outer loop first"""


def test_a_tile_that_is_too_large():
    assert message(lambda s: s.vectorize("y:i", "y:j", "k"), linear) == """\
schedule error: the tile of y has 30000 elements
  because: 50 along i x 30 along j x 20 along k; cpu takes 4096
  instead: split, and take the inner parts"""


def test_a_dot_along_no_reduction():
    assert message(lambda s: s.dot("y:i"), linear) == """\
schedule error: dot('i'): i is not a loop of a reduction
  instead: vectorize or unroll it"""


def test_a_dot_without_a_product():
    assert message(lambda s: s.dot("k1"), wide) == """\
schedule error: dot('k1'): argmax is not a sum of products
  because: it is argmax[k1](x[i, k1], k1)[1]
  instead: vectorize('k1')"""


def test_computed_where_a_reader_does_not_see_it():
    assert message(lambda s: s.compute_at("y", "z:i"), turned) == """\
schedule error: compute_at('y', 'z:i'): y is needed outside that loop
  because: u, which runs in a nest of its own, reads y[0, 0] too
  instead: an outer loop, or compute_root"""


def test_computed_at_an_axis_of_a_tile():
    assert message(lambda s: s.vectorize("z:j").compute_at("y", "z:j"), linear) == """\
schedule error: compute_at('y', 'z:j'): j is vectorize, an axis of the tile
  because: inside a tile nothing is computed apart
  instead: a loop outside the tile"""


def test_computed_inside_itself():
    assert message(lambda s: s.compute_at("y", "y:i"), linear) == """\
schedule error: compute_at('y', 'y:i'): y is computed inside y
  because: each would be inside the other"""


def test_nothing_reads_a_result():
    assert message(lambda s: s.compute_at("z", "y:i"), linear) == """\
schedule error: compute_at('z', 'y:i'): nothing reads z
  instead: a stage is computed at a loop of its reader; to bring a reader here, reverse_compute_at"""


def test_a_parallel_stage_inside_another():
    assert message(lambda s: s.parallel("y:i").compute_at("y", "z:i"), linear) == """\
schedule error: compute_at('y', 'z:i'): y has parallel loops
  because: threads are started once, around the outermost loops
  instead: serial('i') of y first"""


def test_inlining_a_reduction():
    assert message(lambda s: s.compute_inline("y"), linear) == """\
schedule error: compute_inline('y'): y is a reduce and has no expression of its own
  because: y[0, 0] is made by a loop over k, which sums up several elements
  instead: compute_at a loop of its reader"""


def test_inlining_a_result():
    assert message(lambda s: s.compute_inline("z"), linear) == """\
schedule error: compute_inline('z'): z is a result of the kernel
  instead: leave it: a result is stored whoever else reads it"""


def test_merging_what_depends():
    assert message(lambda s: s.merge("y", "z"), linear) == """\
schedule error: y and z cannot share loops
  because: they are not pointwise over the same shape"""


def test_an_epilogue_at_other_points():
    assert message(lambda s: s.reverse_compute_at("z", "y:i"), turned) == """\
schedule error: reverse_compute_at('z', 'y:i'): the iterations of z do not match those of y
  because: the iteration i = 0, j = 1 of z reads y[1, 0]
  instead: compute_at('y', a loop of z)"""


def test_an_epilogue_inside_a_reduction():
    assert message(lambda s: s.reorder("k", "y:i").reverse_compute_at("z", "y:i"), linear) == """\
schedule error: reverse_compute_at('z', 'y:i'): k is a loop of the reduce of y
  because: in the iteration k = 0 its elements are not complete; z needs them as they are after the last
  instead: a loop outside it"""


def test_an_epilogue_that_has_loops_of_its_own():
    assert message(lambda s: s.split("z:i", 4).reverse_compute_at("z", "y:i"), linear) == """\
schedule error: reverse_compute_at('z', 'y:i'): the loops of z have been arranged already
  because: they are replaced by those of y
  instead: untile('z') first"""


def test_rfactor_of_a_whole_axis():
    assert message(lambda s: s.rfactor("k"), linear) == """\
schedule error: rfactor('k'): not the outer part of a split reduction axis of y
  instead: split a reduction axis first"""


def test_rfactor_of_what_is_tiled():
    assert message(lambda s: s.split("k", 4).vectorize("y:j").rfactor("k.o"), linear) == """\
schedule error: rfactor('k.o'): other loops of y have been split or given roles
  because: they would be lost
  instead: rfactor first, then schedule its parts"""


def test_split_k_of_another_loop():
    assert message(lambda s: s.split_k("y:i", 2), linear) == """\
schedule error: split_k('i', 2): i is not an axis that y sums over
  instead: its axes: k"""


def test_a_tensor_that_is_not_read():
    assert message(lambda s: s.cache_read("q", at="k"), linear) == """\
schedule error: nothing reads `q`
  instead: the tensors read are b, w, x, y"""


def test_a_layout_with_two_elements_in_one_place():
    assert message(lambda s: s.pack("w", at="k", layout=["j // 4", "k"]), linear) == """\
schedule error: store_as('w.packed'): two elements would lie in one place
  because: w.packed[0, 0] and w.packed[1, 0] both at [0, 0]
  instead: every axis must be recoverable from the dimensions: j // 8 goes with j % 8"""


def test_a_layout_that_is_no_term():
    assert message(lambda s: s.pack("w", at="k", layout=["j ** 2", "k"]), linear) == """\
schedule error: store_as('w.packed'): `w0 ** 2` is not a term of its axes
  instead: numbers, + - * // % and w0, w1"""


def test_a_layout_of_a_result():
    assert message(lambda s: s.store_as("z", ["j", "i"]), linear) == """\
schedule error: store_as('z'): z is a result of the kernel, whose memory the caller owns
  instead: cache_write, then store_as of the computing stage"""


def test_unrolling_by_nothing():
    assert message(lambda s: s.unroll("k", by=0), linear) == """\
schedule error: unroll('k', by=0): 0 is not a whole number of at least 1"""


def test_repeating_a_parallel_loop():
    assert message(lambda s: s.parallel("y:i").unroll("y:i", by=2), linear) == """\
schedule error: unroll('i', by=2): i is parallel
  because: its iterations do not follow one another
  instead: a serial loop"""


def test_swizzling_one_loop():
    assert message(lambda s: s.parallel("y:i").swizzle(4, stage="y"), linear) == """\
schedule error: swizzle(4): y has 1 parallel loops
  because: rows and columns are walked in another order
  instead: make two loops parallel or grid first"""


def test_which_stage():
    assert message(lambda s: s.swizzle(4), linear) == """\
schedule error: swizzle of which stage?
  because: y, z each have a nest of their own
  instead: swizzle(..., stage="z")"""


def test_warps_on_a_cpu():
    assert message(lambda s: s.warps(4, stage="y"), linear) == """\
schedule error: warps is for GPUs, and this is a schedule for cpu
  because: a CPU has threads, one per core
  instead: parallel"""


def test_pipelines_on_a_cpu():
    assert message(lambda s: s.pipeline("k", 3), linear) == """\
schedule error: pipeline is for GPUs, and this is a schedule for cpu
  because: an out-of-order core overlaps iterations by itself
  instead: prefetch, or unroll(..., by=)"""


def test_tiling_nothing():
    assert message(lambda s: s.tile(), linear) == """\
schedule error: tile() without loops
  instead: tile(i=64, j=96)"""


def test_tiling_a_loop_that_is_not_there():
    assert message(lambda s: s.stage("z").tile(i=4, k=4), linear) == """\
schedule error: tile: z has no loop `k`
  because: nor has a stage that is computed in it
  instead: its loops are i, j"""


def test_a_side_that_is_no_power_of_two():
    assert message(lambda s: s.vectorize("y:j"), linear, GPU) == """\
schedule error: j of y has 30 iterations, and a tile of a GPU needs a power of two
  instead: split('j', 32) and take the inner part, or pad('j', 32)"""


def test_prefetching_on_a_gpu():
    assert message(lambda s: s.prefetch("x", at="k"), linear, GPU) == """\
schedule error: prefetch is for CPUs, and this is a schedule for sm_90
  because: a GPU hides latency by its pipeline
  instead: pipeline"""


def test_warps_that_are_no_power_of_two():
    assert message(lambda s: s.warps(3, stage="y"), linear, GPU) == """\
schedule error: warps(3): a program has 1, 2, 4, 8, 16 or 32 warps"""


def test_a_trace_of_another_version():
    with pytest.raises(ScheduleError, match="a schedule of version 7"):
        read_trace({"dlc schedule": 7, "steps": []})


@pytest.mark.parametrize("bad", ["nonsense", "[1]", '[{"step": "split"}]', "{}"])
def test_what_is_no_trace(bad):
    with pytest.raises(ScheduleError, match="not the trace of a schedule|a schedule of version"):
        read_trace(bad)


def test_a_step_that_is_unknown():
    with pytest.raises(ScheduleError, match="step 0 of a schedule is `fly`, which no primitive is called"):
        replay(build_nest(trace(linear)), read_trace([{"step": "fly", "args": {}}]))


def test_a_step_that_does_not_fit():
    with pytest.raises(ScheduleError, match="step 0 of a schedule, split, does not fit linear at these sizes"):
        replay(build_nest(trace(linear)), read_trace([{"step": "split", "args": {"stage": "gone", "loop": "i", "factor": 4}}]))


def rows(x: f32[50, 6]):
    """z: a map over rows; s: a sum over them; u: what reads the sum."""
    i = dlc.reduce_axis(50)
    z = dlc.compute((50, 6), lambda i, j: dlc.exp(x[i, j]), name="z")
    s = dlc.compute((6,), lambda j: dlc.sum(z[i, j], i), name="s")
    return z, dlc.compute((50, 6), lambda i, j: x[i, j] * s[j], name="u")


def parted(s):
    return s.split("s:i", 10).rfactor("s:i.o")


def test_beside_the_wrong_loop():
    assert message(lambda s: parted(s).compute_beside("z:i", "s.part:j", 10), rows) == (
        "schedule error: compute_beside('z', 's.part:j', 'i', 10): j is not the outermost loop of s.part\n"
        "  instead: its loops are i.o, j, i.i")


def test_beside_with_other_points():
    assert message(lambda s: parted(s).compute_beside("z:i", "s.part:i.o", 20), rows) == (
        "schedule error: compute_beside('z', 's.part:i.o', 'i', 20): the rounds of i.o would not make every point of i once\n"
        "  because: 50 points, 20 in each of 5 rounds")


def test_beside_what_it_needs():
    assert message(lambda s: parted(s).compute_beside("u:i", "s.part:i.o", 10), rows) == (
        "schedule error: compute_beside('u', 's.part:i.o', 'i', 10): u needs what s.part makes\n"
        "  because: of later rounds, for all that is known")


def test_beside_in_parallel():
    assert message(lambda s: parted(s).parallel("z:i").compute_beside("z:i", "s.part:i.o", 10), rows) == (
        "schedule error: compute_beside('z', 's.part:i.o', 'i', 10): z has parallel loops\n"
        "  because: threads are started once, around the outermost loops\n"
        "  instead: serial('i') of z first")


def test_what_is_beside_holds_the_loop():
    assert message(lambda s: parted(s).compute_beside("z:i", "s.part:i.o", 10).split("s.part:i.o", 2), rows) == (
        "schedule error: i.o: z is computed beside s.part, some points in each of its iterations\n"
        "  instead: compute_root('z') first")
    assert message(lambda s: parted(s).compute_beside("z:i", "s.part:i.o", 10).parallel("s.part:i.o", "s.part:j"), rows).startswith(
        "schedule error: parallel('j'): z is computed beside s.part")


def test_terms_of_no_sum():
    assert message(lambda s: s.define_terms("z:i"), rows).startswith(
        "schedule error: define_terms('z', 'i'): not a reduction axis of one sum")


def softmax_of_rows(x: f32[6, 100]):
    return dlc.softmax(x)


def test_cutting_the_loop_over_blocks_of_a_pass():
    assert message(lambda s: s.roll("max", 32).split("max.roll:k1_b", 2), softmax_of_rows) == (
        "schedule error: split('k1_b', 2): k1_b goes over the blocks of a pass, which carry states from one to the next\n"
        "  instead: roll with blocks of another size")
    assert message(lambda s: s.roll("max", 32).pad("max.roll:k1_b", 2), softmax_of_rows).startswith(
        "schedule error: pad('k1_b', 2): k1_b goes")
