"""Bounds are proved from masks, loop ranges and guards, or refuted by a witness."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codegen.lower.context import without_implied
from codegen.tile.bounds import consequences, end_inside, holds, witness
from codegen.tile.ir import Load, Phase, Store, TileOp, TileProgram, Value, walk_ops
from codegen.tile.verify import verify
from dsl.dim import Var, as_term, cdiv, tmax, tmin, without_quotient
from dsl.dtype import f32, i64
from dsl.errors import BoundsError, InternalError
from tests.codegen.tile_programs import Writer, buffer, gather, matmul, program, vadd
from tests.dsl.terms import box, random_term, random_variables


def _first(p: TileProgram, kind: type[TileOp], where: Callable[[Any], bool] = lambda op: True) -> Any:
    return next(op for phase in p.phases for op in walk_ops(phase.body) if isinstance(op, kind) and where(op))


def test_a_missing_mask_has_a_witness(rng: np.random.Generator) -> None:
    p = vadd(rng).program
    _first(p, Load, lambda op: op.buffer.name == "y").mask = ()
    with pytest.raises(BoundsError) as error:
        verify(p)
    assert error.value.title == "read of y at `128*g + i` in dimension 0 of size N is out of bounds"
    assert "the index is" in error.value.reason and "N =" in error.value.reason


@pytest.mark.parametrize("which", range(4))
def test_every_mask_of_a_matmul_is_needed(which: int, rng: np.random.Generator) -> None:
    p = matmul(rng).program
    masked = [op for op in walk_ops(p.phases[0].body) if isinstance(op, (Load, Store))]
    for n in range(len(masked[which].mask)):
        saved = masked[which].mask
        masked[which].mask = saved[:n] + saved[n + 1:]
        with pytest.raises((BoundsError, InternalError)):
            verify(p)
        masked[which].mask = saved
    verify(p)


def test_unguarded_gather(rng: np.random.Generator) -> None:
    p = gather(rng).program
    _first(p, Load, lambda op: op.conds).conds = ()
    with pytest.raises(InternalError, match="data-dependent index .* is not guarded"):
        verify(p)


def test_clamped_gather_needs_no_guard() -> None:
    n = 9
    i, x, idx, o = Var("i", 8), buffer("x", f32, (n,)), buffer("idx", i64, (8,)), buffer("o", f32, (8,), "output")
    w = Writer(set())
    at = w.map("min", (w.map("max", (w.load(idx, (i,)), w.const(0, i64)), i64), w.const(n - 1, i64)), i64)
    w.store(o, (i,), w.load(x, (at,)))
    verify(program("clamped", (x, idx, o), (), Phase("p", (), w.block)))


def test_facts_of_a_peeled_loop() -> None:
    """The full part of a peeled loop needs no mask: its end is a quotient that says so."""
    M = Var("M", kind="dim")
    v, i = Var("v", cdiv(as_term(M), 8)), Var("i", 8)
    x = buffer("x", f32, (M,), "output")
    w = Writer({M})

    def body(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        w.store(x, (as_term(v) * 8 + i,), w.const(0.0, f32))
        return ()

    w.loop(v, 0, (as_term(M) - 8) // 8 + 1, (), body)
    verify(program("peeled", (x,), (M,), Phase("p", (), w.block)))


def test_holds() -> None:
    n, m = Var("n", kind="dim"), Var("m", kind="dim")
    a, b = Var("a", as_term(n) * m), Var("b", 8)
    assert holds(as_term(n) - 1 - as_term(a) // m, ())
    assert holds(as_term(m) - 1 - as_term(a) % m, ()) and holds(as_term(a) % m, ())
    assert not holds(as_term(m) - 2 - as_term(a) % m, ())
    assert holds(as_term(9) - (as_term(b) * 16 + 3) // 13, ()) and not holds(as_term(8) - (as_term(b) * 16 + 6) // 13, ())
    assert holds(as_term(n) - tmin(n, m), ()) and not holds(as_term(n) - tmax(n, m), ())


def test_nothing_runs_below_the_start_of_a_range() -> None:
    s = as_term(Var("s", as_term(40)))
    lo = s // 2 + 1
    assert end_inside(lo, tmax(10, lo)) == 10
    assert end_inside(lo, tmax(10, lo + 1)) == tmax(10, lo + 1)
    assert end_inside(lo, tmin(10, lo + 4)) == tmin(10, lo + 4)


def test_consequences() -> None:
    n, v = Var("n", kind="dim"), Var("v", as_term(Var("q", kind="dim")))
    text = [str(f) for f in consequences(tmin((as_term(n) - 8) // 8 + 1, as_term(Var("m", kind="dim"))) - 1 - v)]
    assert "n - 8*v - 8" in text and "m - v - 1" in text
    assert "n - v - 3" in [str(f) for f in consequences(tmax(as_term(n) - 2, 0) - 1 - v)]
    w = as_term(Var("w", as_term(2)))  # below 2: from the least block on that a causal mask leaves whole
    assert "64*w - 15*v - 15" in [str(f) for f in consequences(w - tmin((as_term(v) * 15 + 14) // 64 + 1, 2))]


def test_witness() -> None:
    n, i = Var("n", kind="dim"), Var("i", 8)
    found = witness(as_term(i), as_term(n), ())
    assert found is not None and found[i] >= found[n]
    assert witness(as_term(i), as_term(n), (as_term(n) - 1 - i,)) is None


def test_conditions_without_their_quotient() -> None:
    q, m = Var("q", 48), Var("M", kind="dim")
    assert without_quotient(3 - as_term(q) // 9) == 35 - as_term(q)
    assert without_quotient(as_term(q) // 9 - 2) == as_term(q) - 18
    assert without_quotient(as_term(q) // 9 // 2 - as_term(m)) == as_term(q) - 18 * as_term(m)
    for kept in (7 - 2 * (as_term(q) // 9), as_term(q) % 9 - 3, as_term(q) // 9 + as_term(q) // 7 - 3, 5 - as_term(q)):
        assert without_quotient(kept) == kept


@pytest.mark.parametrize("block", range(4))
def test_masks_hold_at_the_same_points_without_quotients_and_implied_terms(block: int) -> None:
    changed = shorter = 0
    for seed in range(block * 100, block * 100 + 100):
        rng = random.Random(seed)
        variables = random_variables(rng)
        terms = [random_term(rng, variables, rng.randint(1, 3))[0] for _ in range(rng.randint(1, 4))]
        terms += [rng.choice((1, -1)) * (t // rng.randint(2, 5)) + rng.randint(-2, 2) for t in terms[:2]]
        mask = without_implied([without_quotient(t) for t in terms])
        changed += any(t != without_quotient(t) for t in terms)
        shorter += len(mask) < len(set(terms))
        for env in box(variables):
            assert all(t.eval(env) >= 0 for t in terms) == all(t.eval(env) >= 0 for t in mask), (seed, terms, mask, env)
    assert changed > 20 and shorter > 20
