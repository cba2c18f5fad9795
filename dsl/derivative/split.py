"""The form that differentiation works on: every reduction and scan is a definition of its own.

After :func:`split`, a definition's body is pointwise, or is one reduction or scan of pointwise operands, possibly under a
condition. A reduction inside a larger body becomes a tensor, so that the backward refers to it instead of computing it again
for each element; scans run forwards and include their position (sums excepted, whose adjoint needs neither).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dsl.algebra import EXPRS, inputs_and_computes, rebuild, substitute, walk
from dsl.carrier import CARRIERS, PROD, SUM
from dsl.derivative.names import unique
from dsl.derivative.simplify import as_facts, conjuncts, guarded, is_value, negate
from dsl.dim import ONE, Term, Var, as_term, nonneg, product
from dsl.expr import Compute, Expr, Read, Reduce, Scan, Tensor, Where, index, op, reduce, scan, where
from dsl.program import Program


@dataclass(frozen=True)
class Split:
    """The result: ``tensors`` maps each original definition to the one that takes its place (itself when nothing changed)."""

    tensors: Mapping[Tensor, Tensor]

    def of(self, t: Any) -> Any:
        """The tensor that takes the place of ``t``."""
        return self.tensors.get(t, t)


def split(outputs: Sequence[Tensor]) -> Split:
    """Split everything that ``outputs`` depend on. Definitions already in the form keep their identity."""
    tensors: dict[Tensor, Tensor] = {}
    for c in inputs_and_computes(tuple(outputs))[1]:
        body = substitute(c.body, {}, {r.tensor: tensors[r.tensor] for r in walk(c.body) if isinstance(r, Read) and r.tensor in tensors})
        tensors[c] = _split(c if body is c.body else Compute(c.name, c.axes, body, c.loc, c.dtype))
    return Split(tensors)


def split_program(program: Program) -> Program:
    """The program in split form, with a name of its own for each definition; idempotent."""
    done = split(program.outputs)
    outputs = tuple(done.of(t) for t in program.outputs)
    taken = {t.name for t in program.inputs}
    renamed: dict[Tensor, Tensor] = {}
    for c in inputs_and_computes(outputs)[1]:
        name = unique(c.name, taken)
        body = substitute(c.body, {}, renamed) if any(r.tensor in renamed for r in walk(c.body) if isinstance(r, Read)) else c.body
        if name != c.name or body is not c.body:
            renamed[c] = Compute(name, c.axes, body, c.loc, c.dtype)
    outputs = tuple(renamed.get(t, t) for t in outputs)
    if all(a is b for a, b in zip(outputs, program.outputs)):
        return program
    return Program(program.name, program.inputs, outputs, program.single, program.loc)


def is_pointwise(e: Expr) -> bool:
    """Whether no reduction or scan occurs."""
    return not any(isinstance(n, (Reduce, Scan)) for n in walk(e))


def stripped(body: Expr) -> tuple[tuple[Expr, ...], Expr]:
    """The conditions around a body of the form ``where(c, x, 0)``, and ``x``."""
    guards: list[Expr] = []
    while isinstance(body, Where) and is_value(body.args[2], 0) and isinstance(body.args[1], (Reduce, Scan, Where)):
        guards.append(body.args[0])
        body = body.args[1]
    return tuple(guards), body


def is_canonical(c: Compute) -> bool:
    """Whether a definition is in split form."""
    guards, core = stripped(c.body)
    if is_pointwise(c.body):
        return True
    if not all(is_pointwise(e) for e in (*guards, *core.args)):
        return False
    if isinstance(core, Reduce):
        return len(core.axes) == 1 or (core.carrier in CARRIERS.values() and core.carrier != PROD)
    return isinstance(core, Scan) and _scans_plainly(core, c.axes, guards)


def _scans_plainly(e: Scan, axes: tuple[Var, ...], guards: tuple[Expr, ...]) -> bool:
    """Whether a scan has a result at every position along one of the axes, whatever the position."""
    at = next((a for a in axes if as_term(a) == e.at), None)
    plain = e.carrier == SUM or not (e.exclusive or e.reverse)
    return at is not None and plain and at.extent == e.axis.extent and not any(at in a.free for a in (*e.args, *guards))


def _split(c: Compute) -> Compute:
    if is_canonical(c):
        return c
    body = _Extractor(c).expr(c.body, ())
    return Compute(c.name, c.axes, body, c.loc, c.dtype)


@dataclass
class _Extractor:
    """Moves the reductions of one body into definitions of their own."""

    owner: Compute
    memo: dict[tuple[Expr, tuple[Expr, ...]], Expr] = field(default_factory=dict)

    def expr(self, e: Expr, guards: tuple[Expr, ...]) -> Expr:
        """``e`` with reads in place of reductions; ``guards`` hold where it is evaluated."""
        key = e, guards
        if key not in self.memo:
            self.memo[key] = self._expr(e, guards)
        return self.memo[key]

    def _expr(self, e: Expr, guards: tuple[Expr, ...]) -> Expr:
        if is_pointwise(e):
            return e
        if isinstance(e, Where):
            cond = self.expr(e.args[0], guards)
            return where(cond, self.expr(e.args[1], (*guards, cond)), self.expr(e.args[2], (*guards, negate(cond))))
        args = tuple(self.expr(a, guards) for a in e.args)
        if isinstance(e, Reduce):
            return self._reduce(e, args, guards)
        if isinstance(e, Scan):
            return self._scan(e, args, guards)
        return rebuild(e, args)

    def _reduce(self, e: Reduce, args: tuple[Expr, ...], guards: tuple[Expr, ...]) -> Expr:
        if len(e.axes) > 1 and e.carrier == PROD:
            inner = self._reduce(Reduce(args, (PROD, e.axes[1:], 0), e.dtype, e.loc), args, guards)
            return self._define(reduce(PROD, (inner,), e.axes[:1]), guards)
        if len(e.axes) > 1 and e.carrier not in CARRIERS.values():
            flat, args = _flatten(e.axes, args)
            return self._define(Reduce(args, (e.carrier, (flat,), e.out), e.dtype, e.loc), guards)
        return self._define(Reduce(args, e.data, e.dtype, e.loc), guards)

    def _define(self, e: Expr, guards: tuple[Expr, ...]) -> Expr:
        """A definition of ``e`` over its free axes, read where it was."""
        guards = () if _in_bounds(e) else guards
        body = guarded(guards, e)
        free = sorted((v for v in body.free if v.kind == "axis"), key=lambda v: v.uid)
        axes = tuple(Var(v.name, v.extent) for v in free)
        body = substitute(body, {v: as_term(a) for v, a in zip(free, axes)})
        name = f"{self.owner.name}_{e.data[0].name}"
        return Compute(name, axes, body, self.owner.loc, e.dtype).read(*(index(v) for v in free))

    def _scan(self, e: Scan, args: tuple[Expr, ...], guards: tuple[Expr, ...]) -> Expr:
        """Read the plain scan at the position wanted: from the other end when reversed, one earlier when exclusive."""
        n = e.axis.extent
        assert n is not None
        linear = e.carrier == SUM
        at: Term = e.at
        exclusive = e.exclusive
        if e.reverse and not linear:
            args = tuple(substitute(a, {e.axis: n - 1 - as_term(e.axis)}) for a in args)
            at = n - 1 - at
        p = Var(unique(e.axis.name, {v.name for a in e.args for v in a.free}), n)
        plain = scan(e.carrier, args, e.axis, as_term(p), out=e.out, exclusive=exclusive and linear, reverse=e.reverse and linear)
        whole = self._define(plain, guards)
        assert isinstance(whole, Read)

        def element(position: Term) -> Expr:
            return substitute(whole, {p: position})

        if not exclusive or linear:
            return element(at)
        state = e.carrier.identity(EXPRS, e.carrier.state(tuple(a.dtype for a in args)))
        empty = e.carrier.finalize(EXPRS, state)[e.out]
        return where(op("ge", index(at), index(ONE)), element(at - 1), empty)


def _flatten(axes: tuple[Var, ...], args: tuple[Expr, ...]) -> tuple[Var, tuple[Expr, ...]]:
    """One axis over the box of several, in row-major order."""
    sizes = [a.extent for a in axes if a.extent is not None]
    flat = Var("_".join(a.name for a in axes), product(sizes))
    env: dict[Var, Term] = {}
    rest: Term = as_term(flat)
    for a, n in zip(reversed(axes[1:]), reversed(sizes[1:])):
        env[a], rest = rest % n, rest // n
    env[axes[0]] = rest
    return flat, tuple(substitute(a, env) for a in args)


def _in_bounds(e: Expr) -> bool:
    """Whether every read is proved in bounds by the conditions inside ``e`` alone, so that the expression may be evaluated anywhere."""
    seen: set[tuple[Expr, tuple[Term, ...]]] = set()
    stack: list[tuple[Expr, tuple[Term, ...]]] = [(e, ())]
    while stack:
        node, facts = stack.pop()
        if (node, facts) in seen:
            continue
        seen.add((node, facts))
        if isinstance(node, Read) and not all(
                isinstance(i, Term) and nonneg(i, facts) and nonneg(n - ONE - i, facts) for i, n in zip(node.indices, node.tensor.shape)):
            return False
        if isinstance(node, Where):
            cond, then, other = node.args
            stack += [(cond, facts), (then, _with(facts, cond)), (other, _with(facts, negate(cond)))]
        else:
            stack += [(a, facts) for a in node.args]
    return True


def _with(facts: tuple[Term, ...], cond: Expr) -> tuple[Term, ...]:
    return (*facts, *(f for c in conjuncts(cond) for f in as_facts(c)))
