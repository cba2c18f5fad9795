"""Blocks of tile registers: which register holds what, and the configuration that the processor loads."""

import itertools

import pytest

from codegen.micro.instructions import DOTS, TILES
from codegen.micro.tile_block import TileBlock, fits

TILED = [d for d in DOTS if d.tiled]
SHAPES = [(m, n) for m, n in itertools.product(range(1, 8), repeat=2) if fits(m, n)]


@pytest.mark.parametrize("d", TILED, ids=lambda d: d.name)
@pytest.mark.parametrize("row_tiles, lane_tiles", SHAPES)
def test_every_product_finds_its_operands_loaded(d, row_tiles, lane_tiles):
    block = TileBlock.of(d, row_tiles * d.rows, lane_tiles * d.lanes, d.steps)
    held, loads, seen = {}, 0, set()
    for row, lane, a, b, load_row, load_lane in block.products():
        for register, load, what in ((a, load_row, ("row", row)), (b, load_lane, ("lane", lane))):
            assert block.accumulators <= register < TILES.count
            if load:
                held[register] = what
                loads += 1
            assert held[register] == what
        seen.add((row, lane, block.accumulator(row, lane)))
    assert len(seen) == len({n for *_, n in seen}) == row_tiles * lane_tiles and loads == row_tiles + lane_tiles


def test_which_blocks_fit():
    assert fits(2, 2) and fits(1, 6) and fits(3, 1)
    assert not fits(2, 3) and not fits(3, 3) and not fits(1, 7)


def test_the_configuration_of_a_block_of_four():
    (d,) = (d for d in DOTS if d.name == "tdpbf16ps")
    data = TileBlock.of(d, 32, 32, 16).configuration()
    assert len(data) == 64 and data[:2] == bytes([1, 0])
    assert [int.from_bytes(data[16 + 2 * n:18 + 2 * n], "little") for n in range(8)] == [64] * 8 and data[48:56] == bytes([16] * 8)


def test_small_products_configure_small_tiles():
    (d,) = (d for d in DOTS if d.name == "tdpbssd")
    data = TileBlock.of(d, 5, 9, 3).configuration()
    shapes = [(data[48 + n], int.from_bytes(data[16 + 2 * n:18 + 2 * n], "little")) for n in range(8)]
    assert shapes == [(5, 36), (5, 12), (3, 36)] + [(0, 0)] * 5


def test_results_that_are_no_whole_tiles_have_no_block():
    (d,) = (d for d in DOTS if d.name == "tdpbf16ps")
    assert TileBlock.of(d, 24, 16, 16) is None and TileBlock.of(d, 48, 48, 16) is None and TileBlock.of(d, 16, 16, 17) is None
