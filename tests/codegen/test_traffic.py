"""Work of a point of a grid: bytes asked for, products, rounds, what an address depends on."""

import dlc
from codegen.analysis.traffic import points_of, work_of
from codegen.heuristics import Decisions, default_schedule
from codegen.pipelines import make_tile
from codegen.target import by_name
from dlc import f16, f32
from dsl.stages import build_nest

M, N, K = dlc.dims("M N K")


def phases(fn, *sizes, **decisions):
    kernel = dlc.kernel(fn)
    program = kernel.program.specialize(dict(zip(kernel.program.dims, sizes)))
    target = by_name("sm_90")
    nest = default_schedule(build_nest(program, permissions=True), target, {},
                            Decisions({k.replace("__", "."): v for k, v in decisions.items()}))
    return make_tile(nest, {}, "kernel", target).program.phases


def product(x: f16[M, K], w: f16[K, N]):
    return x @ w


def fast(x: f32[M, K], w: f32[K, N]):
    return dlc.matmul(x, w, precision="tf32")


def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


def test_product():
    (phase,) = phases(product, 1024, 512, 1024, matmul__tile=(128, 64), matmul__depth=64)
    work = work_of(phase, {})
    assert points_of(phase, {}) == 8 * 16 and work.rounds == 512 // 64
    assert work.products == {"f16": 2 * 128 * 64 * 512}
    reads = {a.buffer.name: a for a in work.accesses if not a.write}
    assert reads["x"].bytes == 128 * 512 * 2 and reads["w"].bytes == 64 * 512 * 2
    rows, columns = (v for v, _ in phase.grid)
    assert reads["x"].grid == {rows} and reads["w"].grid == {columns}
    assert sum(a.bytes for a in work.accesses if a.write) == 128 * 64 * 2


def test_permitted_precision_counts_as_what_the_unit_does():
    (phase,) = phases(fast, 512, 256, 512)
    assert set(work_of(phase, {}).products) == {"tf32"}


def test_a_row_read_by_several_stages_is_read_once():
    (phase,) = phases(softmax, 300, 1024)
    work = work_of(phase, {})
    assert work.moved == 2 * sum(a.bytes for a in work.accesses if a.write) and work.arithmetic > 0
