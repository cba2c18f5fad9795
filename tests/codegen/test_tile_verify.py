"""The verifier accepts every hand-built program and names what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codegen.tile.ir import Const, Load, Map, Phase, Store, TileOp, TileProgram, Value, walk_ops
from codegen.tile.verify import verify
from dsl.dim import Var, as_term
from dsl.dtype import f16, f32, f64
from dsl.errors import InternalError
from tests.codegen.tile_programs import CASES, Writer, attention, buffer, program, softmax, vadd


@pytest.mark.parametrize("name", CASES)
def test_valid(name: str, rng: np.random.Generator) -> None:
    verify(CASES[name](rng).program)


def _first(p: TileProgram, kind: type[TileOp], where: Callable[[Any], bool] = lambda op: True) -> Any:
    return next(op for phase in p.phases for op in walk_ops(phase.body) if isinstance(op, kind) and where(op))


def test_reading_what_nobody_wrote() -> None:
    o, t = buffer("o", f32, (), "output"), buffer("t", f32, (), "workspace")
    w = Writer(set())
    w.store(o, (), w.load(t, ()))
    with pytest.raises(InternalError, match="t is read before anything is written"):
        verify(program("early", (o, t), (), Phase("p", (), w.block)))


BROKEN: dict[str, tuple[Callable[[np.random.Generator], Any], Callable[[TileProgram], None], str]] = {}


def broken(match: str, case: Callable[[np.random.Generator], Any] = vadd) -> Callable[[Callable[[TileProgram], None]], None]:
    def register(change: Callable[[TileProgram], None]) -> None:
        BROKEN[change.__name__] = (case, change, match)
    return register


@broken("used where it is not defined")
def order(p: TileProgram) -> None:
    ops = p.phases[0].body.ops
    ops[0], ops[2] = ops[2], ops[0]


@broken("`add` of f16, f16")
def low_arithmetic(p: TileProgram) -> None:
    for b in p.buffers:
        object.__setattr__(b, "dtype", f16)
    for op in walk_ops(p.phases[0].body):
        for r in op.results:
            r.dtype = f16


@broken("should have axes")
def load_axes(p: TileProgram) -> None:
    _first(p, Load).results[0].axes = ()


@broken("cannot store")
def store_dtype(p: TileProgram) -> None:
    add = _first(p, Map)
    extra = Map("cast", add.results)
    extra.results = (Value(f64, add.results[0].axes),)
    extra.results[0].op = extra
    p.phases[0].body.ops.insert(3, extra)
    _first(p, Store).value = extra.results[0]


@broken("is not in the opset")
def unknown_name(p: TileProgram) -> None:
    _first(p, Map).name = "frobnicate"


@broken("should have axes")
def reduce_axes(p: TileProgram) -> None:
    from codegen.tile.ir import Reduce
    op = _first(p, Reduce)
    op.results[0].axes = op.axes


BROKEN["reduce_axes"] = (softmax, BROKEN["reduce_axes"][1], BROKEN["reduce_axes"][2])


@broken("where a loop carries", softmax)
def carried_dtype(p: TileProgram) -> None:
    from codegen.tile.ir import For
    op = _first(p, For)
    op.results[0].dtype = f64


@broken("is not bound here", softmax)
def unbound(p: TileProgram) -> None:
    from codegen.tile.ir import Predicate
    op = _first(p, Predicate)
    op.terms = (as_term(Var("nowhere", as_term(Var("Q", kind="dim")))),)


@broken("does not accumulate", attention)
def accumulator(p: TileProgram) -> None:
    from codegen.tile.ir import Dot
    op = _first(p, Dot)
    op.acc.dtype = op.results[0].dtype = f64


@broken("is not a f32", softmax)
def constant(p: TileProgram) -> None:
    _first(p, Const).value = True


@broken("not within its extent", softmax)
def loop_range(p: TileProgram) -> None:
    from codegen.tile.ir import For
    op = _first(p, For)
    op.hi = op.hi + 1


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str, rng: np.random.Generator) -> None:
    case, change, match = BROKEN[name]
    p = case(rng).program
    verify(p)
    change(p)
    with pytest.raises(InternalError, match=match):
        verify(p)
