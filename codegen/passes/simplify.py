"""Make each value once, and only if somebody uses it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, replace
from typing import Any

from codegen.tile.ir import PURE, Block, Buffer, Const, For, Load, Map, Store, TileOp, TileProgram, Value, walk_ops
from dsl.dim import nonneg
from dsl.dtype import Dtype


def simplify(program: TileProgram) -> TileProgram:
    """Replace what is equal to a value in scope by that value, and drop what has no effect.

    That is operations that return an operand, loops without a round, phases without a point, and what nobody uses.

    Before: ``a = load(x, [i]); b = load(x, [i]); c = mul(b, 1.0); d = add(a, c)``. After: ``a = load(x, [i]); d = add(a, a)``. Loads of
    buffers that the phase writes stay as they are. Only identities that hold for every value are used: ``x + 0.0`` stays, since it
    turns -0.0 into 0.0.
    """
    phases = tuple(p for p in program.phases if not any(n == 0 for _, n in p.grid))
    for phase in phases:
        written = {op.buffer for op in walk_ops(phase.body) if isinstance(op, Store)}
        _unify(phase.body, {}, {}, written)
        _drop_unused(phase.body)
    return program if len(phases) == len(program.phases) else replace(program, phases=phases)


def _unify(block: Block, known: Mapping[Hashable, Value], names: Mapping[Value, Value], written: set[Buffer]) -> None:
    """Rewrite a block to use the first of equal values; ``known`` are those in scope, ``names`` what replaced a value."""
    known, names = dict(known), dict(names)
    kept: list[TileOp] = []
    for op in block.ops:
        _rewrite(op, names)
        if isinstance(op, For) and nonneg(op.lo - op.hi):  # no round at all: a dimension without elements
            names.update(zip(op.results, op.inits))
            continue
        if isinstance(op, PURE) and not (isinstance(op, Load) and op.buffer in written):
            (result,) = op.results
            same = _operand(op) or known.setdefault(_key(op), result)
            if same is not result:
                names[result] = same
                continue
        for inner in op.blocks():
            _unify(inner, known, names, written)
        kept.append(op)
    block.ops = kept
    block.yields = tuple(names.get(v, v) for v in block.yields)


def _rewrite(op: TileOp, names: Mapping[Value, Value]) -> None:
    """Let an operation use the values that replaced its operands."""
    if not any(v in names for v in op.operands()):
        return
    for f in fields(op):
        if f.name == "results":
            continue
        now = getattr(op, f.name)
        if isinstance(now, Value):
            setattr(op, f.name, names.get(now, now))
        elif isinstance(now, tuple):
            setattr(op, f.name, tuple(names.get(v, v) if isinstance(v, Value) else v for v in now))


def _key(op: TileOp) -> Hashable:
    """What two equal operations share: every field, with the dtype and axes of the result. Numbers keep their kind and sign of zero."""
    parts: list[Any] = [type(op), *((r.dtype, r.axes) for r in op.results)]
    parts += [getattr(op, f.name) for f in fields(op) if f.name not in ("results", "loc")]
    return tuple(repr(p) if isinstance(p, (bool, int, float)) else p for p in parts)


def _operand(op: TileOp) -> Value | None:
    """The operand that an operation returns unchanged, if it does."""
    if not isinstance(op, Map):
        return None
    (result,) = op.results
    same = _IDENTITIES.get(op.name, _none)(op.args)
    if op.name == "cast" and same is not None and isinstance(same.op, Map) and same.op.name == "cast" and same.dtype != result.dtype:
        source, = same.op.args  # there and back
        same = source if _holds_all(same.dtype, source.dtype) else same
    return same if same is not None and (same.dtype, same.axes) == (result.dtype, result.axes) else None


def _holds_all(wide: Dtype, narrow: Dtype) -> bool:
    """Whether every value of a dtype comes back from a wider one of its kind."""
    if wide.is_float and narrow.is_float:
        return wide.bits >= 32 and wide.bits > narrow.bits
    return wide.is_int and narrow.is_int and wide.bits > narrow.bits


def _number(v: Value) -> bool | int | float | None:
    return v.op.value if isinstance(v.op, Const) else None


def _none(args: tuple[Value, ...]) -> Value | None:
    return None


def _unit(unit: int, either: bool) -> Callable[[tuple[Value, ...]], Value | None]:
    """The other operand of one that is ``unit``: on the right, or on either side. A float zero is not the unit of an addition."""
    def same(args: tuple[Value, ...]) -> Value | None:
        a, b = args
        if unit == 0 and either and a.dtype.is_float:
            return None
        if _number(b) == unit and repr(_number(b)) != "-0.0":
            return a
        return b if either and _number(a) == unit else None
    return same


def _selected(args: tuple[Value, ...]) -> Value | None:
    cond, then, other = args
    chosen = _number(cond)
    if chosen is None:
        return then if then is other else None
    return then if chosen else other


_IDENTITIES: dict[str, Callable[[tuple[Value, ...]], Value | None]] = {
    "cast": lambda args: args[0],
    "where": _selected,
    "mul": _unit(1, either=True),
    "div": _unit(1, either=False),
    "add": _unit(0, either=True),
    "sub": _unit(0, either=False),
    "and": lambda args: _true(args) or (args[0] if args[0] is args[1] else None),
    "or": lambda args: args[0] if args[0] is args[1] else None,
}


def _true(args: tuple[Value, ...]) -> Value | None:
    """The other operand of one that is True."""
    a, b = args
    if a.dtype.name != "bool":
        return None
    return a if _number(b) is True else b if _number(a) is True else None


def _drop_unused(body: Block) -> None:
    """Take away pure operations whose results nobody uses, from the last to the first."""
    used: set[Value] = set(body.yields)

    def sweep(block: Block) -> None:
        used.update(block.yields)
        kept: list[TileOp] = []
        for op in reversed(block.ops):
            for inner in op.blocks():
                sweep(inner)
            if isinstance(op, PURE) and not any(r in used for r in op.results):
                continue
            used.update(op.operands())
            kept.append(op)
        block.ops = kept[::-1]

    sweep(body)
