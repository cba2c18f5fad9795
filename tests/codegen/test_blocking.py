"""Register tiles and cache blocks fit what they are chosen for."""

from dataclasses import replace

import pytest

from codegen.heuristics.blocking import Blocks, panels_together, register_rows, register_tile, register_tiles, thread_blocks
from codegen.target import by_name

WIDE, NARROW = by_name("x86-64-avx512"), by_name("x86-64-avx2")


@pytest.mark.parametrize("target", [WIDE, NARROW])
@pytest.mark.parametrize("columns, rows", [(1, 1), (5, 3), (64, 64), (1000, 1), (33, 1000), (4096, 4096)])
def test_tiles_fit_the_registers(target, columns, rows):
    nr, mr = register_tile(target, columns, rows)
    vectors = -(-nr * 32 // target.vector_bits)
    assert vectors * mr + vectors + 1 <= target.vector_registers
    assert mr <= rows and all(n * m <= 32 * nr * mr for n, m in register_tiles(target, nr, mr))


def test_edges_count():
    assert register_tile(WIDE, 4096, 26)[1] == 13
    assert register_tile(WIDE, 4096, 4096) == (32, 14)


def test_threads_get_equal_shares():
    for threads in (1, 2, 7, 16):
        target = replace(WIDE, threads=threads)
        b = Blocks(1024, 1024, 32, 14, 1024, 1)
        lanes, rows = thread_blocks(target, b, (True, True))
        points = -(-32 // lanes) * -(-74 // rows)
        assert -(-points // threads) * lanes * rows <= 1.2 * 32 * 74 / threads
        assert rows * b.mr * b.depth * 4 <= max(target.caches[1] // 2, target.caches[2] // (2 * threads))


def test_batches_are_not_cut():
    assert thread_blocks(replace(WIDE, threads=2), Blocks(64, 56, 32, 14, 64, 64), (False, False)) == (2, 4)


def test_panels_packed_together_fit():
    assert panels_together(WIDE, Blocks(4096, 4096, 32, 14, 1024, 1), 128) == 8
    assert panels_together(WIDE, Blocks(4096, 4096, 32, 14, 1 << 20, 1), 128) == 1
    assert panels_together(WIDE, Blocks(64, 4096, 32, 14, 1024, 1), 2) == 2


@pytest.mark.parametrize("name", ["x86-64", "x86-64-avx2", "x86-64-avx512"])
@pytest.mark.parametrize("bits", [32, 64])
def test_tiles_fit_the_registers_whatever_the_accumulator_is(name, bits):
    target = by_name(name)
    width = target.vector_bits // bits
    for nr, mr in (register_tile(target, 512, 512, bits), *register_tiles(target, 16, 6, bits)):
        assert nr % width == 0 and nr // width * mr + nr // width <= target.vector_registers, (nr, mr)
    assert register_tile(target, 512, 512, bits)[1] == register_rows(target, register_tile(target, 512, 512, bits)[0], 512, bits)[0]


def test_row_blocks_do_not_read_a_kept_factor_anew():
    """Few rows of a factor that lies in panels: threads share out its panels, and each is read for all rows."""
    target = replace(NARROW, threads=2)
    lanes, rows = thread_blocks(target, Blocks(4096, 8, 16, 4, 1024, 1), (False, False))
    assert rows == 2 and lanes <= 128
