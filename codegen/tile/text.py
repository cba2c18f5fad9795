"""Tile programs as text, and back.

The text is a subset of Python's syntax, so that Python's own parser reads it: ``x_tile: f32[i, j] = load(x, [m, k + j], mask=[7 - k])``.
Every operation prints by its declared fields: those without a default in order, the others by name where they differ from it. Names are
the program's own, made unique by a number. Source lines follow as comments, and are not read back.

    with phase("y", grid=[(m, 16)]):
        acc: f32[i, j] = broadcast(zero)
        for k in loop(0, 60, carry=[(acc_1, f32[i, j], acc)], results=[total]):
            ...
            yield sum
        store(out, [m, j], total)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from codegen.tile.ir import Block, Buffer, For, If, Phase, Seek, TileOp, TileProgram, Value
from dsl.carrier import Carrier
from dsl.dim import Term, Var
from dsl.dim import show as show_term
from dsl.loc import Loc

__all__ = ["own_fields", "show"]


def show(program: TileProgram, places: bool = True) -> str:
    """The text of a program, which :func:`codegen.tile.text_parse.parse` reads; with the user's lines as comments if ``places``."""
    return "\n".join(_Printer(program, places).lines()) + "\n"


def own_fields(op: TileOp | type[TileOp]) -> list[Field[Any]]:
    """What an operation declares itself: operands and attributes, not results, place or blocks."""
    return [f for f in fields(op) if f.init and f.type != "Block"]


class _Printer:
    def __init__(self, program: TileProgram, places: bool) -> None:
        self.program, self.places = program, places
        self.names: dict[Any, str] = {}
        self.taken: set[str] = set()

    def name(self, thing: Any, wanted: str = "") -> str:
        """The unique name of a variable, buffer or value."""
        if thing not in self.names:
            stem = "".join(c if c.isalnum() or c == "_" else "_"
                           for c in wanted or getattr(thing, "name", "") or getattr(thing, "hint", "") or "v")
            stem = stem if stem[:1].isalpha() or stem[:1] == "_" else f"v{stem}"
            name, n = stem, 0
            while name in self.taken:
                n += 1
                name = f"{stem}_{n}"
            self.taken.add(name)
            self.names[thing] = name
        return self.names[thing]

    # -- the program -----------------------------------------------------------------------------------------------
    def lines(self) -> Iterator[str]:
        p = self.program
        self.taken |= _RESERVED
        yield f"program({p.name!r})"
        for v in p.sizes:
            yield f"{self.name(v)} = size()"
        for v in _variables(p):
            if v not in self.names:
                kind = "size" if v.kind == "dim" else "lane" if v in p.lanes else "axis"
                yield f"{self.name(v)} = {kind}({self.show(v.extent) if v.extent is not None else ''})"
        for b in p.buffers:
            yield self.buffer(b)
        for text in p.checks:
            yield f"check_text({str(text)!r})"
        for phase in p.phases:
            yield from self.phase(phase)

    def buffer(self, b: Buffer) -> str:
        return f"{self.name(b)} = {b.scope}({b.dtype}, {self.show(b.shape)}, {self.show(b.strides)})"

    def phase(self, phase: Phase) -> Iterator[str]:
        facts = [repr(phase.name), f"grid=[{', '.join(f'({self.name(v)}, {self.show(n)})' for v, n in phase.grid)}]"]
        facts += [f"{f.name}={getattr(phase, f.name)!r}" for f in fields(Phase)
                  if f.name in ("serial", "warps", "stages", "group") and getattr(phase, f.name) != f.default]
        yield f"with phase({', '.join(facts)}):" + self.place(phase.loc)
        for b in phase.scratch:
            yield "    " + self.buffer(b)
        yield from self.suite(phase.body, bool(phase.scratch))

    def suite(self, block: Block, begun: bool = False) -> Iterator[str]:
        for op in block.ops:
            for line in self.op(op):
                yield "    " + line
        if block.yields:
            yield f"    yield {', '.join(self.name(v) for v in block.yields)}"
        elif not block.ops and not begun:
            yield "    pass"

    # -- operations ------------------------------------------------------------------------------------------------
    def op(self, op: TileOp) -> Iterator[str]:
        where = self.place(op.loc)
        if isinstance(op, For):
            yield self.loop(op) + where
            yield from self.suite(op.body)
            return
        if isinstance(op, Seek):
            yield f"for {self.name(op.var)} in seek({', '.join(map(self.show, (op.value, op.lo, op.hi)))}):{where}"
            yield from self.suite(op.body)
            return
        name = "guard" if isinstance(op, If) else type(op).__name__.lower()
        call = f"{name}({', '.join(self.arguments(op))})"
        if isinstance(op, If):
            yield f"if {call}:{where}"
            yield from self.suite(op.body)
        elif len(op.results) == 1:
            yield f"{self.name(op.results[0])}: {self.type(op.results[0])} = {call}{where}"
        elif op.results:
            types = ", ".join(self.type(r) for r in op.results)
            yield f"{', '.join(self.name(r) for r in op.results)} = {call[:-1]}, types=[{types}]){where}"
        else:
            yield call + where

    def place(self, loc: Loc | None) -> str:
        return f"  # {loc}" if loc is not None and self.places else ""

    def loop(self, op: For) -> str:
        rest = []
        if op.inits:
            rest.append(
                f"carry=[{', '.join(f'({self.name(p)}, {self.type(p)}, {self.name(v)})' for p, v in zip(op.body.params, op.inits))}]")
            rest.append(f"results=[{', '.join(self.name(r) for r in op.results)}]")
        rest += [f"{f.name}={getattr(op, f.name)}" for f in own_fields(op) if f.default is not MISSING and getattr(op, f.name) != f.default]
        return f"for {self.name(op.var)} in loop({', '.join([self.show(op.lo), self.show(op.hi), *rest])}):"

    def arguments(self, op: TileOp) -> Iterator[str]:
        for f in own_fields(op):
            value = getattr(op, f.name)
            if f.default is MISSING or f.type == "bool | int | float":
                yield self.show(value)
            elif value != f.default:
                yield f"{f.name}={self.show(value)}"

    def type(self, v: Value) -> str:
        return f"{v.dtype}[{', '.join(self.name(a) for a in v.axes)}]" if v.axes else str(v.dtype)

    def show(self, x: Any) -> str:
        """Any field's value."""
        if isinstance(x, Term):
            return show_term(x, self.name)
        if isinstance(x, Carrier):
            return repr(x.name)
        if isinstance(x, (Var, Buffer, Value)):
            return self.name(x)
        if isinstance(x, tuple):
            return f"[{', '.join(map(self.show, x))}]"
        if isinstance(x, float) and not math.isfinite(x):
            return f"float('{x}')"
        return repr(x)


_RESERVED = {
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except", "finally", "for", "from",
    "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
    "None", "True", "False", "min", "max", "float",
}  # fmt: skip


def _variables(program: TileProgram) -> list[Var]:
    """Every variable in the order of creation, which is the order axes have in a tile."""
    found: dict[Var, None] = {}
    pending: list[Any] = [program.sizes, program.lanes, program.buffers, program.phases]
    while pending:
        x = pending.pop()
        if isinstance(x, Var):
            if x not in found:
                found[x] = None
                pending.append(x.extent)
        elif isinstance(x, Term):
            pending += x.vars
        elif isinstance(x, (tuple, list, frozenset)):
            pending += x
        elif isinstance(x, Value):
            pending.append(x.axes)
        elif isinstance(x, (TileOp, Block, Buffer, Phase)):
            pending += [getattr(x, f.name) for f in fields(x)]
    return sorted(found, key=lambda v: v.uid)
