"""Carriers evaluated on expressions, and the walks over expressions that every other module uses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dsl.carrier import Carrier, Dtypes, Values
from dsl.dim import Atom, Div, MinMax, Mod, Term, Var, as_term
from dsl.dtype import Dtype, i64
from dsl.expr import Compute, Const, Expr, Index, Input, Op, Param, Read, Reduce, Scan, Tensor, Where, cast, const, index, op, where


class ExprAlgebra:
    """The :class:`dsl.carrier.Algebra` whose values are expressions."""

    def op(self, name: str, *args: Any) -> Expr:
        """A pointwise operation."""
        return op(name, *args)

    def const(self, value: float, dtype: Dtype) -> Expr:
        """A literal."""
        return const(value, dtype)

    def where(self, cond: Any, a: Any, b: Any) -> Expr:
        """Selection."""
        return where(cond, a, b)

    def cast(self, x: Any, dtype: Dtype) -> Expr:
        """Conversion."""
        return cast(x, dtype)

    def dtype(self, x: Expr) -> Dtype:
        """The dtype of an expression."""
        return x.dtype


EXPRS = ExprAlgebra()


def params(dtypes: Dtypes, start: int = 0) -> Values:
    """Placeholders for a carrier's operands."""
    return tuple(Param((), (start + n,), d) for n, d in enumerate(dtypes))


def index_terms(e: Expr) -> Iterator[Term]:
    """Every index term in an expression: those that it computes with, and the places that it reads."""
    for node in walk(e):
        if isinstance(node, Index):
            yield node.term
        elif isinstance(node, Read):
            yield from (i for i in node.indices if isinstance(i, Term))


def divisions(t: Term) -> Iterator[Div]:
    """The quotients and remainders in a term, those in others included."""
    for mono in t.parts:
        for atom in mono:
            if isinstance(atom, Div):
                yield atom
                yield from divisions(atom.num)


def combine_formula(carrier: Carrier, dtypes: Dtypes) -> Values:
    """The carrier's combine over ``Param(0..n-1)`` and ``Param(n..2n-1)``."""
    n = len(dtypes)
    return carrier.combine(EXPRS, params(dtypes), params(dtypes, n))


def children(e: Expr) -> tuple[Expr, ...]:
    """The operand expressions of a node."""
    return e.args


def walk(root: Expr) -> Iterator[Expr]:
    """Every distinct node, operands before users."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))


def transform(root: Expr, fn: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None,
              stays: Callable[[Expr], bool] | None = None) -> Expr:
    """Rebuild bottom-up: ``fn`` sees each node over its new operands and returns a replacement or None to keep it.

    Nodes in ``memo`` become what it says, those that ``stays`` holds for are as they were; what either is made of is not visited.
    """
    memo = {} if memo is None else memo
    if root not in memo and stays is not None and stays(root):
        return root
    stack = [root]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        todo: list[Expr] = []
        for a in reversed(node.args):
            if a not in memo:
                if stays is not None and stays(a):
                    memo[a] = a
                else:
                    todo.append(a)
        if todo:
            stack += todo
            continue
        new = rebuild(node, tuple([memo[a] for a in node.args]))
        replaced = fn(new)
        memo[stack.pop()] = new if replaced is None else replaced
    return memo[root]


def mentioned(root: Expr) -> frozenset[Var]:
    """The variables that occur in an expression, bound ones among them; every node keeps what was found."""
    stack = [root]
    while root._mentions is None:
        node = stack[-1]
        if todo := [a for a in node.args if a._mentions is None]:
            stack += todo
            continue
        node._mentions = node._own_free().union(*[a._mentions or () for a in node.args])
        stack.pop()
    return root._mentions


def sources(root: Expr) -> frozenset[Tensor]:
    """The tensors that an expression reads; every node keeps what was found."""
    stack = [root]
    while root._sources is None:
        node = stack[-1]
        if todo := [a for a in node.args if a._sources is None]:
            stack += todo
            continue
        own = frozenset((node.tensor,)) if isinstance(node, Read) else frozenset()
        node._sources = own.union(*[a._sources or () for a in node.args])
        stack.pop()
    return root._sources


def rebuild(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node over new operands; operations recompute their dtype when the operands' changed."""
    changed = [(a, b) for a, b in zip(args, node.args) if a is not b]
    if not changed:
        return node
    if isinstance(node, (Op, Where)) and any(a.dtype is not b.dtype for a, b in changed):
        return op(node.name, *args) if isinstance(node, Op) else where(*args)
    return node.rebuild(args)


def substitute(root: Expr, env: Mapping[Var, Term], tensors: Mapping[Tensor, Tensor] | None = None) -> Expr:
    """Replace index variables by terms and tensors by tensors, everywhere; bound axes keep their identity."""
    tensors = tensors or {}
    renamed = env.keys()

    def stays(e: Expr) -> bool:
        return renamed.isdisjoint(mentioned(e)) and (not tensors or tensors.keys().isdisjoint(sources(e)))

    def one(e: Expr) -> Expr | None:
        if isinstance(e, Index):
            return index(e.term.subs(env))
        if isinstance(e, Read):
            slots = tuple(None if s is None else s.subs(env) for s in e.data[1])
            return Read(e.args, (tensors.get(e.tensor, e.tensor), slots), e.dtype, e.loc)
        if isinstance(e, Scan):
            return Scan(e.args, (e.data[0], e.data[1], e.data[2].subs(env), *e.data[3:]), e.dtype, e.loc)
        return None

    return transform(root, one, stays=stays)


def substitute_values(root: Expr, values: Mapping[Expr, Expr]) -> Expr:
    """Replace whole sub-expressions by identity; a replaced node's operands are not visited."""
    memo: dict[Expr, Expr] = dict(values)
    return transform(root, lambda e: None, memo)


def with_values(body: Expr, values: Mapping[Var, Expr]) -> Expr:
    """Replace index variables by integer expressions: terms that mention them become arithmetic."""
    def atom_value(atom: Atom) -> Expr:
        if isinstance(atom, Var):
            return values[atom] if atom in values else index(atom)
        if isinstance(atom, MinMax):
            return op(atom.which, as_value(atom.a), as_value(atom.b))
        return op("mod" if type(atom) is Mod else "floordiv", as_value(atom.num), as_value(atom.den))

    def as_value(t: Term) -> Expr:
        parts = [functools.reduce(lambda a, b: op("mul", a, b), [*([const(k, i64)] if k != 1 else []), *map(atom_value, mono)])
                 for mono, k in t.parts.items()]
        return functools.reduce(lambda a, b: op("add", a, b), [*([const(t.const, i64)] if t.const or not parts else []), *parts])

    def one(e: Expr) -> Expr | None:
        if isinstance(e, Index) and e.term.vars & set(values):
            return as_value(e.term)
        if isinstance(e, Read) and any(s is not None and s.vars & set(values) for s in e.data[1]):
            return e.tensor.read(*(as_value(i) if isinstance(i, Term) and i.vars & set(values) else i for i in e.indices))
        return None

    return transform(body, one)


def fresh_axes(e: Expr) -> Expr:
    """A copy of a reduction whose bound axes are new variables, so that it can appear twice in one scope."""
    env: dict[Var, Term] = {}

    def one(node: Expr) -> Expr | None:
        if isinstance(node, Reduce):
            new = tuple(Var(a.name, a.extent) for a in node.axes)
            env.update((old, as_term(v)) for old, v in zip(node.axes, new))
            return Reduce(tuple(substitute(a, env) for a in node.args), (node.carrier, new, node.out), node.dtype, node.loc)
        return None

    return transform(e, one)


def reads(e: Expr) -> tuple[Read, ...]:
    """Every distinct read in an expression, operands' first; every node keeps what was found."""
    stack = [e]
    while e._reads is None:
        node = stack[-1]
        if todo := [a for a in reversed(node.args) if a._reads is None]:
            stack += todo
            continue
        found = dict.fromkeys(r for a in node.args for r in a._reads or ())
        node._reads = (*found, node) if isinstance(node, Read) else tuple(found)
        stack.pop()
    return e._reads


def bound_axes(body: Expr) -> list[Var]:
    """The axes that reductions and scans of an expression bind, outermost first."""
    found: dict[Var, None] = {}
    for e in reversed(list(walk(body))):
        for a in e.axes if isinstance(e, Reduce) else (e.data[1],) if isinstance(e, Scan) else ():
            found.setdefault(a)
    return list(found)


def inputs_and_computes(outputs: tuple[Tensor, ...]) -> tuple[list[Input], list[Compute]]:
    """Everything the outputs depend on: inputs, and computes in dependence order."""
    seen: set[Tensor] = set()
    inputs: list[Input] = []
    computes: list[Compute] = []
    stack: list[tuple[Tensor, bool]] = [(t, False) for t in reversed(outputs)]
    while stack:
        t, done = stack.pop()
        if isinstance(t, Compute) and done:
            computes.append(t)
        elif t not in seen:
            seen.add(t)
            if isinstance(t, Compute):
                stack.append((t, True))
                stack.extend((r.tensor, False) for r in reversed(reads(t.body)))
            elif isinstance(t, Input):
                inputs.append(t)
    return inputs, computes


_AS_NONNEG: dict[str, Callable[[Term, Term], tuple[Term, ...]]] = {
    "ge": lambda a, b: (a - b,), "gt": lambda a, b: (a - b - 1,), "le": lambda a, b: (b - a,), "lt": lambda a, b: (b - a - 1,),
    "eq": lambda a, b: (a - b, b - a),
}


def index_condition(e: Expr) -> tuple[Term, ...] | None:
    """The terms that must be ``>= 0`` when ``e`` is a conjunction of comparisons between indices; None otherwise."""
    if not isinstance(e, Op):
        return None
    if e.name == "and":
        a, b = index_condition(e.args[0]), index_condition(e.args[1])
        return None if a is None or b is None else a + b
    sides = [t for x in e.args if (t := index_term(x)) is not None]
    if e.name in _AS_NONNEG and len(sides) == 2:
        return _AS_NONNEG[e.name](*sides)
    return None


def index_term(e: Expr) -> Term | None:
    """The term of an index or of an integer literal."""
    if isinstance(e, Index):
        return e.term
    if isinstance(e, Const) and e.dtype.is_int:
        return as_term(int(e.value))
    return None


__all__ = ["Const", "EXPRS", "ExprAlgebra", "bound_axes", "children", "combine_formula", "fresh_axes", "index_condition", "index_term",
           "inputs_and_computes", "params", "reads", "rebuild", "sources", "substitute", "substitute_values", "transform", "walk",
           "with_values"]
