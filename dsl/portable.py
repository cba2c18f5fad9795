"""A program as bytes, for another process of the same dlc: what was traced here can be compiled, run and timed there.

Nodes are interned and compared by identity, and their hashes differ from process to process, so a program is sent as a stream of what
makes it, each thing after what it refers to: variables, tensors and expressions by number, dtypes and carriers by name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from dsl import expr
from dsl.algebra import walk
from dsl.canonical import variables
from dsl.carrier import CARRIERS, Carrier
from dsl.dim import Div, MinMax, Mod, Term, Var
from dsl.dtype import Dtype, by_name
from dsl.errors import UserError
from dsl.expr import Compute, Expr, Input, Tensor
from dsl.program import Program


def dumps(program: Program) -> bytes:
    """The program as bytes; :func:`loads` reads them.

    Raises:
        UserError: it uses a carrier that is not one of the language's.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol=5)
    for v in variables(program):  # in the order of their making, which decides how terms are written
        pickler.item("var", v, (v.name, v.extent, v.kind))
    for t in program.inputs:
        pickler.item("input", t, (t.name, t.shape, t.dtype, t.loc))
    for c in program.computes:
        for e in walk(c.body):
            if e not in pickler.numbers:
                pickler.item("expr", e, (type(e).__name__, e.args, e.data, e.dtype, e.loc))
        pickler.item("compute", c, (c.name, c.axes, c.body, c.loc, c.dtype))
    pickler.dump(("program", (program.name, program.inputs, program.outputs, program.single, program.loc)))
    return buffer.getvalue()


def loads(data: bytes) -> Program:
    """The program that :func:`dumps` wrote, with variables and tensors of its own."""
    unpickler = _Unpickler(io.BytesIO(data))
    while True:
        kind, fields = unpickler.load()
        if kind == "program":
            return Program(*fields)
        unpickler.items.append(_MAKE[kind](*fields))


def _expr(name: str, *fields: Any) -> Expr:
    made: Expr = getattr(expr, name)(*fields)
    return made


_MAKE: dict[str, Callable[..., Any]] = {"var": Var, "input": Input, "compute": Compute, "expr": _expr}


class _Pickler(pickle.Pickler):
    """Writes references to what it has written already as numbers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.numbers: dict[Any, int] = {}

    def item(self, kind: str, thing: Any, fields: tuple[Any, ...]) -> None:
        self.dump((kind, fields))
        self.numbers[thing] = len(self.numbers)

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, (Var, Tensor, Expr)):
            return self.numbers[obj]
        if isinstance(obj, Dtype):
            return "dtype", obj.name
        if isinstance(obj, Carrier):
            if CARRIERS.get(obj.name) is not obj:
                raise UserError(f"the carrier {obj} is not one of the language's",
                                "it is made of functions, which another process cannot be sent", f"one of {', '.join(CARRIERS)}")
            return "carrier", obj.name
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Term):
            return Term, (obj.parts, obj.const)
        if isinstance(obj, (Div, Mod)):
            return type(obj), (obj.num, obj.den)
        if isinstance(obj, MinMax):
            return MinMax, (obj.which, obj.a, obj.b)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Resolves those references."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.items: list[Any] = []

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, int):
            return self.items[pid]
        kind, name = pid
        return by_name(name) if kind == "dtype" else CARRIERS[name]
