"""Grid points write disjoint elements: what is proved, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from codegen.tile.ir import Phase, TileProgram
from codegen.tile.verify import verify
from dsl.dim import Var, as_term
from dsl.dtype import f32
from dsl.errors import RaceError
from tests.codegen.tile_programs import Writer, buffer, program


def _store_program(index: Callable[[Any, Any], tuple[Any, ...]], shape: tuple[int, ...], grid: int = 4, tile: int = 8) -> TileProgram:
    g, i, o = Var("g", grid), Var("i", tile), buffer("o", f32, shape, "output")
    w = Writer({g})
    w.store(o, index(as_term(g), as_term(i)), w.const(1.0, f32))
    return program("stores", (o,), (), Phase("p", ((g, as_term(grid)),), w.block))


def test_disjoint_stores() -> None:
    for index, shape in ((lambda g, i: (g * 8 + i,), (32,)), (lambda g, i: (i * 4 + g,), (32,)), (lambda g, i: (g, i), (4, 8)),
                         (lambda g, i: ((g * 8 + i) // 5, (g * 8 + i) % 5), (7, 5)), (lambda g, i: (i, 3 - g), (8, 4)),
                         (lambda g, i: ((g * 8 + i) // 15, (g * 8 + i) // 3 % 5, (g * 8 + i) % 3), (3, 5, 3))):
        verify(_store_program(index, shape))


@pytest.mark.parametrize(("index", "shape", "names"), [
    (lambda g, i: (g * 7 + i,), (40,), "`g`"), (lambda g, i: (i,), (8,), "`g`"), (lambda g, i: (g // 2, i), (2, 8), "`g`"),
    (lambda g, i: (g * 8 + i // 2,), (32,), "`i`"), (lambda g, i: ((g * 8 + i) % 5,), (5,), "`i`"),
])
def test_races(index: Callable[[Any, Any], tuple[Any, ...]], shape: tuple[int, ...], names: str) -> None:
    with pytest.raises(RaceError, match=f"different {names} may write the same element of o"):
        verify(_store_program(index, shape))


def test_symbolic_padded_rows_do_not_race() -> None:
    """The tile is wider than a row; its mask keeps rows apart, in one flat dimension."""
    M, g, i = Var("M", kind="dim"), Var("g", 4), Var("i", 64)
    o = buffer("o", f32, (as_term(M) * 4,), "output")
    w = Writer({M, g})
    w.store(o, (as_term(M) * g + i,), w.const(1.0, f32), (as_term(M) - 1 - i,))
    verify(program("rows", (o,), (M,), Phase("p", ((g, as_term(4)),), w.block)))


def test_two_stores_that_meet() -> None:
    g, i, o = Var("g", 4), Var("i", 8), buffer("o", f32, (64,), "output")

    def build(offset: int) -> TileProgram:
        w = Writer({g})
        w.store(o, (as_term(g) * 8 + i,), w.const(1.0, f32))
        w.store(o, (as_term(g) * 8 + i + offset,), w.const(2.0, f32))
        return program("two", (o,), (), Phase("p", ((g, as_term(4)),), w.block))

    verify(build(32))
    verify(build(0))
    with pytest.raises(RaceError):
        verify(build(8))


def test_reading_a_neighbour_in_one_phase() -> None:
    g, o, t = Var("g", 4), buffer("o", f32, (4,), "output"), buffer("t", f32, (4,), "workspace")

    def build(at: Any) -> TileProgram:
        w = Writer({g})
        w.store(t, (g,), w.const(1.0, f32))
        w.store(o, (g,), w.load(t, (at,)))
        return program("neighbour", (o, t), (), Phase("p", ((g, as_term(4)),), w.block))

    verify(build(g))
    with pytest.raises(RaceError):
        verify(build(as_term(3) - g))
