"""A program as canonical text, and its digest: the same for the same mathematics, whatever its names and wherever it is written.

Records and caches are found by it, so it must not depend on the process: variables and tensors are numbered in the order in which the
definitions meet them, those of a definition anew in each, shared subexpressions are written once in a definition, and terms list their
parts in the order of their own text. What changes the meaning changes the text: dtypes, sizes, the order of parameters and outputs,
constants (floats as hexadecimal), carriers by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from dsl.algebra import bound_axes, walk
from dsl.carrier import Carrier
from dsl.dim import Atom, MinMax, Mod, Term, Var
from dsl.expr import Expr, Tensor
from dsl.program import Program

VERSION = 2


def digest(program: Program) -> str:
    """A digest of the canonical text, which the program keeps."""
    found: str | None = program.__dict__.get("_digest")
    if found is None:
        found = program.__dict__["_digest"] = hashlib.sha256(canonical(program).encode()).hexdigest()
    return found


def canonical(program: Program) -> str:
    """The program as text without names, one definition or shared subexpression a line."""
    return "\n".join([f"program {VERSION}", *_written(program).lines]) + "\n"


def variables(program: Program) -> list[Var]:
    """Every variable of a program, in the order in which they were made."""
    return _in_order(_written(program).met)


def _written(program: Program) -> _Writer:
    writer = _Writer()
    for t in program.inputs:
        writer.tensor(t, "input")
    for c in program.computes:
        writer.start()
        axes = [writer.var(a) for a in (*c.axes, *bound_axes(c.body))][:len(c.axes)]
        body = writer.expression(c.body)
        writer.tensor(c, f"compute ({' '.join(axes)}) = {body}")
    outputs = " ".join(writer.tensors[t] for t in program.outputs)
    writer.lines.append(f"return {'one' if program.single else 'tuple'} {outputs}")
    return writer


class _Writer:
    """Numbers what it meets and collects the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.vars: dict[Var, str] = {}
        self.met: dict[Var, None] = {}
        self.tensors: dict[Tensor, str] = {}
        self.nodes: dict[Expr, str] = {}
        self.terms: dict[Term, str] = {}

    def start(self) -> None:
        """Forget the axes and expressions of the definition before."""
        self.vars = {v: name for v, name in self.vars.items() if v.kind == "dim"}
        self.nodes, self.terms = {}, {}

    def tensor(self, t: Tensor, what: str) -> None:
        shape = ", ".join(self.term(s) for s in t.shape)
        self.tensors[t] = name = f"t{len(self.tensors)}"
        self.lines.append(f"{name}: {t.dtype.name}[{shape}] {what}")

    def expression(self, root: Expr) -> str:
        for e in walk(root):
            if e not in self.nodes:
                text = " ".join([type(e).__name__, e.dtype.name, *(self.datum(d) for d in e.data), *(self.nodes[a] for a in e.args)])
                self.nodes[e] = name = f"%{len(self.nodes)}"
                self.lines.append(f"{name} = {text}")
        return self.nodes[root]

    def datum(self, d: Any) -> str:
        """One attribute of a node."""
        if isinstance(d, Term):
            return self.term(d)
        if isinstance(d, Var):
            return self.var(d)
        if isinstance(d, Tensor):
            return self.tensors[d]
        if isinstance(d, Carrier):
            return d.name
        if isinstance(d, tuple):
            return f"({', '.join(self.datum(x) for x in d)})"
        return d.hex() if isinstance(d, float) else repr(d)

    def var(self, v: Var) -> str:
        if v not in self.vars:
            extent = "" if v.extent is None else f" < {self.term(v.extent)}"
            alike = sum(w.kind == v.kind for w in self.vars)
            self.vars[v] = name = f"{'d' if v.kind == 'dim' else 'v'}{alike}"
            self.met.setdefault(v)
            self.lines.append(f"{name}: {v.kind}{extent}")
        return self.vars[v]

    def term(self, t: Term) -> str:
        if t not in self.terms:
            for v in _in_order(t.vars):
                self.var(v)
            parts = sorted("*".join([str(c), *sorted(self.atom(a) for a in mono)]) for mono, c in t.parts.items())
            self.terms[t] = "+".join([*parts, str(t.const)] if t.const or not parts else parts)
        return self.terms[t]

    def atom(self, a: Atom) -> str:
        if isinstance(a, Var):
            return self.var(a)
        if isinstance(a, MinMax):
            return f"{a.which}({', '.join(sorted((self.term(a.a), self.term(a.b))))})"
        return f"({self.term(a.num)} {'%' if isinstance(a, Mod) else '//'} {self.term(a.den)})"


def _in_order(variables: Iterable[Var]) -> list[Var]:
    """Variables in the order in which the program made them: the same in every process."""
    return sorted(variables, key=lambda v: v.uid)
