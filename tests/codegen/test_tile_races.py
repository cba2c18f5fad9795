"""Grid points write disjoint elements: what is proved, and what is refused by name."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from codegen.tile.ir import Block, For, Phase, TileProgram
from codegen.tile.verify import verify
from dsl.dim import ZERO, Term, Var, as_term, tmin
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
                         (lambda g, i: ((g * 8 + i) // 15, (g * 8 + i) // 3 % 5, (g * 8 + i) % 3), (3, 5, 3)),
                         (lambda g, i: (g // 3, i + 8 * (g % 3)), (2, 24))):
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


def test_two_digits_of_one_number() -> None:
    """Beyond the prover, decided by looking at every element."""
    verify(_store_program(lambda g, i: (g * 2 + i // 4, i % 4), (8, 4)))
    with pytest.raises(RaceError, match=r"\(g = \d\) and \(g = \d\) both write o\[g \+ \(i // 4\), i % 4\]"):
        verify(_store_program(lambda g, i: (g + i // 4, i % 4), (8, 4)))


def test_ranges_that_limit_one_another() -> None:
    """The blocks of a point are shared out unevenly: ``16*b + w < 33``."""
    g, b, w, i = Var("g", 2), Var("b", 3), Var("w", 16), Var("i", 16)
    o = buffer("o", f32, (1025,), "output")
    out, inner = Writer({g}), Writer({g, b, w})
    at = as_term(g) * 528 + as_term(b) * 256 + as_term(w) * 16 + i
    inner.store(o, (at,), inner.const(1.0, f32), (1024 - at,))
    middle = Block(ops=[For(w, ZERO, tmin(as_term(16), 33 - as_term(b) * 16), (), inner.block)])
    out.block.ops.append(For(b, ZERO, as_term(3), (), middle))
    verify(program("uneven", (o,), (), Phase("p", ((g, as_term(2)),), out.block)))


def test_what_cannot_be_decided_names_its_phase() -> None:
    M, g, i = Var("M", kind="dim"), Var("g", 4), Var("i", 8)
    o = buffer("o", f32, (as_term(M) + 40,), "output")
    w = Writer({M, g})
    at = as_term(g) * 8 + (as_term(i) + M) % 8
    w.store(o, (at,), w.const(1.0, f32))
    with pytest.raises(RaceError):
        verify(program("turned", (o,), (M,), Phase("p", ((g, as_term(4)),), w.block)))


@pytest.mark.parametrize("seed", range(300))
def test_verdicts_against_every_point(seed: int) -> None:
    """Random stores over a grid of two and a tile of two: refused exactly when two points, or two lanes, meet."""
    rng = random.Random(seed)
    sizes = [rng.randint(1, 5) for _ in range(4)]
    variables = [Var(n, s) for n, s in zip("ghij", sizes)]
    index = tuple(_random_index(rng, variables) for _ in range(rng.randint(1, 3)))
    mask = tuple(_random_index(rng, variables) - rng.randint(0, 4) for _ in range(rng.randint(0, 1)))
    grid = tuple((v, as_term(v.size)) for v in variables[:2])
    o = buffer("o", f32, tuple(int(t.bounds[1]) + 1 for t in index), "output")
    lanes = {v for t in index for v in t.vars} - set(variables[:2])
    mask = tuple(m for m in mask if m.vars <= lanes | set(variables[:2]))
    touched: dict[tuple[int, ...], tuple[int, ...]] = {}
    meets = False
    used = [v for v in variables if v in lanes or v in variables[:2]]
    for values in itertools.product(*(range(v.size) for v in used)):
        env = dict(zip(used, values))
        if all(m.eval(env) >= 0 for m in mask):
            meets |= touched.setdefault(tuple(int(t.eval(env)) for t in index), values) != values
    w = Writer(set(variables[:2]))
    w.store(o, index, w.const(1.0, f32), mask)
    made = program("random", (o,), (), Phase("p", grid, w.block))
    if meets:
        with pytest.raises(RaceError):
            verify(made)
    else:
        verify(made)


def _random_index(rng: random.Random, variables: list[Var]) -> Term:
    out = as_term(0)
    for v in rng.sample(variables, rng.randint(1, 3)):
        part = as_term(v) * rng.choice((1, 1, 2, 3, 4, 5, 8, 20))
        out = out + rng.choice((part, part, part, part // rng.randint(2, 4), part % rng.randint(2, 6)))
    return out
