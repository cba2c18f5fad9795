"""Reverse mode through one scalar expression: what each read receives, and under which conditions.

The branches of a ``where`` need care. A value that is used only in a branch may not be touched outside it (its reads may be
out of bounds, its derivative infinite), so its contributions carry the condition. A value that is evaluated anyway, because
the condition, both branches or something outside use it, collects what the branches give it, ``where(c, a, b)``, and goes on once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dsl.algebra import walk
from dsl.derivative.rules import moves, partials
from dsl.derivative.simplify import add, fold, mul, negate, select, zero
from dsl.expr import Cast, Expr, Op, Read, Tensor, Where, cast

Found = tuple[Read, tuple[Expr, ...], Expr]


@dataclass
class Backward:
    """One reverse sweep.

    Args:
        active: tensors whose reads are wanted.
        named: expressions whose value is at hand (the element being defined), used instead of computing it again.
    """

    active: Iterable[Tensor]
    named: Mapping[Expr, Expr] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    _evaluated: dict[Expr, frozenset[Expr]] = field(default_factory=dict)
    _moving: dict[Expr, bool] = field(default_factory=dict)

    def run(self, root: Expr, seed: Expr) -> list[Found]:
        """``(read, guards, adjoint)`` for each active read of ``root``, whose own adjoint is ``seed``."""
        self._prepare(root)
        self._sweep(root, seed, frozenset(), ())
        return self.found

    def _prepare(self, root: Expr) -> None:
        wanted = set(self.active)
        for e in walk(root):
            self._moving[e] = (e.tensor in wanted and e.dtype.is_float) if isinstance(e, Read) else any(self._moving[m] for m in moves(e))
            below = [self._evaluated[a] for a in e.args]
            if isinstance(e, Where):
                below = [below[0], below[1] & below[2]]
            self._evaluated[e] = frozenset((e,)).union(*below)

    def _sweep(self, root: Expr, seed: Expr, outside: frozenset[Expr], guards: tuple[Expr, ...]) -> dict[Expr, Expr]:
        """Propagate from ``root``; returns what arrives at nodes that are evaluated ``outside`` and continue there."""
        adjoint: dict[Expr, Expr] = {}
        arrived: dict[Expr, Expr] = {}

        def push(node: Expr, value: Expr) -> None:
            if self._moving[node]:
                into = arrived if node in outside else adjoint
                into[node] = add(into[node], value) if node in into else value

        push(root, seed)
        here = outside | self._evaluated[root]
        for node in reversed(list(walk(root))):
            g = adjoint.pop(node, None)
            if g is None:
                continue
            if isinstance(node, Read):
                self.found.append((node, guards, g))
            for operand, value in self._operands(node, g, here, guards):
                push(operand, value)
        return arrived

    def _operands(self, node: Expr, g: Expr, here: frozenset[Expr], guards: tuple[Expr, ...]) -> list[tuple[Expr, Expr]]:
        """What each operand of ``node`` receives."""
        if isinstance(node, Where):
            return list(self._branches(node, g, here, guards).items())
        if isinstance(node, Cast):
            return [(node.args[0], fold(cast(g, node.args[0].dtype)))]
        if not isinstance(node, Op):
            return []
        parts = zip(node.args, partials(node, self.named.get(node, node)))
        return [(a, mul(g, p)) for a, p in parts if p is not None and self._moving[a]]

    def _branches(self, node: Where, g: Expr, here: frozenset[Expr], guards: tuple[Expr, ...]) -> dict[Expr, Expr]:
        cond, then, other = node.args
        yes = self._sweep(then, g, here, (*guards, cond))
        no = self._sweep(other, g, here, (*guards, negate(cond)))
        return {n: select(cond, yes.get(n, zero(n.dtype)), no.get(n, zero(n.dtype))) for n in {**yes, **no}}
