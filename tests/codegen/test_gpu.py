"""GPU schedules: power-of-two tiles, enough programs, dots for products, few kernels."""

import pytest

import dlc
from codegen.heuristics import default_schedule
from codegen.heuristics.gpu import blocks, power
from codegen.target import by_name
from dlc import f32, i64
from dsl.nest import Split
from dsl.stages import build_nest

M, N, K = dlc.dims("M N K")


def scheduled(fn, *shapes, target="sm_90"):
    kernel = dlc.kernel(fn)
    program = kernel.program.specialize(dict(zip(kernel.program.dims, shapes)))
    return default_schedule(build_nest(program), by_name(target), {})


def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


def long_product(x: i64[M, K], w: i64[K, N]):
    return x @ w


def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


def total(x: f32[M, N]):
    return dlc.sum(x)


@pytest.mark.parametrize(("n", "least"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_power(n, least):
    assert power(n) == least


@pytest.mark.parametrize(("extents", "room", "tile"),
                         [([3, 50], 1024, [4, 64]), ([100, 7], 64, [8, 8]), ([5, 5000], 1024, [1, 1024]), ([], 8, [])])
def test_blocks_fill_from_the_last_axis(extents, room, tile):
    assert blocks(extents, room) == tile


@pytest.mark.parametrize("fn", [product, long_product, softmax, total])
@pytest.mark.parametrize("shapes", [(37, 50, 41), (1, 1, 1), (1000, 3000, 129)])
def test_every_tile_is_a_power_of_two(fn, shapes):
    for s in scheduled(fn, *shapes).stages:
        for r in s.relations:
            if isinstance(r, Split) and s.role(r.inner) in ("vectorize", "dot"):
                assert r.factor == power(r.factor)


def test_products_use_dots_where_a_matrix_unit_takes_the_dtype():
    assert "dot" in scheduled(product, 64, 64, 64).stages[-1].roles.values()
    assert "dot" not in scheduled(long_product, 64, 64, 64).stages[-1].roles.values()


def test_a_softmax_is_one_kernel_until_a_row_is_too_long():
    assert sum(s.attach is None for s in scheduled(softmax, 100, 1000).stages) == 1
    assert sum(s.attach is None for s in scheduled(softmax, 4, 100_000).stages) > 1


def test_one_number_from_many_takes_two_kernels():
    assert sum(s.attach is None for s in scheduled(total, 1000, 1000).stages) == 2
    assert sum(s.attach is None for s in scheduled(total, 10, 10).stages) == 1


def test_small_products_get_small_tiles_so_that_processors_have_work():
    def grid(m, n):
        s = scheduled(product, m, n, 64).stages[-1]
        return [r.factor for r in s.relations if isinstance(r, Split) and s.role(r.inner) == "vectorize"]

    small, large = grid(256, 256), grid(8192, 8192)
    assert small[0] * small[1] < large[0] * large[1]
