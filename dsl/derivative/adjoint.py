"""Adjoint tensors: the pieces that readers contribute, put together into as few definitions as possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from dsl.algebra import divisions, index_terms, inputs_and_computes, reads, substitute, walk
from dsl.derivative.gather import Contribution, Piece, gather
from dsl.derivative.names import unique
from dsl.derivative.simplify import add, conjuncts, factors, fold, is_op, simplify, total, zero
from dsl.derivative.split import is_pointwise
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Read, Reduce, Scan, Tensor, Where, cast, index

_TERMS = 16  # of a sum over a window that is spelled out
_NEAR = 4  # steps between windows whose elements are loaded as whole vectors


class Adjoint:
    """The adjoint of one tensor while its readers are visited."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.axes: tuple[Var, ...] = ()
        self.pieces: list[Piece] = []

    def add(self, c: Contribution) -> None:
        """Gather one contribution."""
        if not self.pieces:
            self.axes = _axes(self.tensor, c.read)
        self.pieces.append(gather(c, self.axes))

    def add_tensor(self, cotangent: Tensor) -> None:
        """A cotangent given from outside, of the tensor's own shape."""
        if not self.pieces:
            self.axes = _axes(self.tensor, None)
        self.pieces.append(Piece((), (), cotangent.read(*(index(a) for a in self.axes))))

    def build(self, name: str) -> Tensor:
        """The adjoint: an existing tensor when it is just that, else a new definition with at most one reduction."""
        axes = self.axes or _axes(self.tensor, None)
        terms = [cast(e, self.tensor.dtype) for e in self._terms()]
        sums = [e for e in terms if not is_pointwise(e)]
        if len(sums) > 1:
            terms = [e if is_pointwise(e) else _part(name, axes, e) for e in terms]
        body: Expr = zero(self.tensor.dtype)
        for e in terms:
            body = add(body, e)
        same = _copied(body, axes)
        return same if same is not None else Compute(name, axes, body, self.tensor.loc)

    def _terms(self) -> list[Expr]:
        """The summands, those that may share a loop merged; not where data sends their terms to different elements."""
        merged: list[tuple[tuple[Var, ...], Expr, frozenset[Expr]]] = []
        for piece in self.pieces:
            body, sent = piece.body(), _matches(piece) if piece.loops else frozenset()
            for n, (loops, other, where) in enumerate(merged):
                env = _renaming(piece.loops, loops)
                if (env is not None and {substitute(c, env) for c in sent} == where
                        and not (loops and (_is_contraction(body, piece.loops) or _is_contraction(other, loops)))):
                    merged[n] = loops, add(other, substitute(body, env)), where
                    break
            else:
                merged.append((piece.loops, body, sent))
        return [spelled(body, loops) if _is_window(body, loops) else total(simplify(body), loops) for loops, body, _ in merged]


def _part(name: str, axes: tuple[Var, ...], e: Expr) -> Expr:
    new = tuple(Var(a.name, a.extent) for a in axes)
    body = substitute(e, {a: as_term(b) for a, b in zip(axes, new)})
    return Compute(f"{name}_part", new, body).read(*(index(a) for a in axes))


def _axes(tensor: Tensor, read: Read | None) -> tuple[Var, ...]:
    """Fresh axes over a tensor, named as its definition or its first reader names them."""
    if isinstance(tensor, Compute):
        names = [a.name for a in tensor.axes]
    else:
        slots = read.indices if read is not None else [None] * tensor.ndim
        names = [_name_of(s, n) for n, s in enumerate(slots)]
    taken: set[str] = set()
    return tuple(Var(unique(name, taken), extent) for name, extent in zip(names, tensor.shape))


def _name_of(slot: Term | Expr | None, n: int) -> str:
    names = [v.name for v in slot.vars if as_term(v) == slot] if isinstance(slot, Term) else []
    return names[0] if names else f"i{n}"


def _renaming(mine: tuple[Var, ...], theirs: tuple[Var, ...]) -> dict[Var, Term] | None:
    """The map of loops onto loops of the same extents, or None."""
    if len(mine) != len(theirs) or any(a.extent != b.extent for a, b in zip(mine, theirs)):
        return None
    return {a: as_term(b) for a, b in zip(mine, theirs)}


def _matches(piece: Piece) -> frozenset[Expr]:
    """The comparisons of data with positions."""
    return frozenset(c for cond in piece.conditions for c in conjuncts(cond) if is_op(c, "eq") and reads(c))


def _is_contraction(e: Expr, loops: tuple[Var, ...]) -> bool:
    """A product of reads none of which varies with everything: what a matrix unit computes, so better left alone."""
    value = e.args[1] if isinstance(e, Where) else e
    parts = [f for f in factors(value)[0] if f.free & set(loops)]
    whole = {v for v in value.free if v.kind == "axis"}
    return len(parts) > 1 and not any(whole <= f.free for f in parts)


def _is_window(e: Expr, loops: tuple[Var, ...]) -> bool:
    """Whether a sum is over the few elements of windows some steps apart, which neighbours hardly share, and no sum of products."""
    sizes = [v.extent.const if v.extent is not None and v.extent.is_const else _TERMS + 1 for v in loops]
    if not loops or math.prod(sizes) > _TERMS or any(r.args for r in reads(e)):
        return False
    seen = [i for r in reads(e) for i in r.indices if isinstance(i, Term) and len(i.vars) > 1]
    parted = any(d.den.is_const for t in index_terms(e) for d in divisions(t))
    steps = {abs(i.coef(v) or 0) for i in seen for v in i.vars if v not in loops and v.kind == "axis"}
    slid = {v for i in seen for v in i.vars}
    return (parted or 1 < max(steps, default=0) <= _NEAR) and slid.issuperset(loops) and not any(
        is_op(n, "mul") and all(reads(a) for a in n.args) for n in walk(e))


def spelled(e: Expr, loops: tuple[Var, ...]) -> Expr:
    """A sum, term by term."""
    held = e.dtype.held
    points = itertools.product(*(range(v.extent.const) for v in loops if v.extent is not None))
    out: Expr = zero(held)
    for point in points:
        out = add(out, cast(simplify(substitute(e, {v: as_term(n) for v, n in zip(loops, point)})), held))
    return cast(out, e.dtype)


def _copied(body: Expr, axes: Sequence[Var]) -> Tensor | None:
    """The tensor whose elements the body just repeats."""
    if isinstance(body, Read) and tuple(a.extent for a in axes) == tuple(body.tensor.shape) and all(
            isinstance(i, Term) and i == as_term(a) for i, a in zip(body.indices, axes)):
        return body.tensor
    return None


# -- tidying -------------------------------------------------------------------------------------------------------
def inline_single_uses(outputs: Sequence[Tensor], kept: Iterable[Tensor]) -> list[Tensor]:
    """Substitute each pointwise definition that one reader uses once, element by element, into that reader.

    So is any definition of which the reader is but a part: the gradient of what was padded is computed for the inside alone.

    Args:
        outputs: what is wanted; never inlined.
        kept: definitions that stay tensors (those of the forward program).
    """
    fixed = set(kept) | set(outputs)
    computes = [c for c in inputs_and_computes(tuple(outputs))[1]]
    uses: dict[Tensor, int] = {}
    for c in computes:
        for r in reads(c.body):
            uses[r.tensor] = uses.get(r.tensor, 0) + 1
    bodies: dict[Tensor, Compute] = {}
    forward = set(kept)
    for c in computes:
        if c not in forward:
            bodies[c] = _inlined(c, bodies, {t for t, n in uses.items() if n == 1 and t not in fixed})
    return [bodies.get(t, t) for t in outputs]


def _inlined(c: Compute, bodies: Mapping[Tensor, Compute], single: set[Tensor]) -> Compute:
    memo: dict[Expr, Expr] = {}
    changed = False
    around = _surroundings(c)
    for node in walk(c.body):
        new = node if all(memo[a] is a for a in node.args) else fold(node.rebuild(tuple(memo[a] for a in node.args)))
        if isinstance(node, Read) and node.tensor in bodies:
            t = bodies[node.tensor]
            if node.tensor in single and (_is_part(c, node) or (is_pointwise(t.body) and _whole(node, around.get(node)))):
                new = substitute(t.body, {a: i for a, i in zip(t.axes, node.indices) if isinstance(i, Term)})
            elif t is not node.tensor:
                new = Read(new.args, (t, node.data[1]), node.dtype, node.loc)
        changed = changed or new is not node
        memo[node] = new
    return Compute(c.name, c.axes, memo[c.body], c.loc, c.dtype) if changed else c


def _surroundings(c: Compute) -> dict[Expr, frozenset[Var]]:
    """For each node, the axes over which it is evaluated; absent below a scan."""
    out: dict[Expr, frozenset[Var]] = {}
    stack: list[tuple[Expr, frozenset[Var]]] = [(c.body, frozenset(c.axes))]
    while stack:
        e, axes = stack.pop()
        if e in out and out[e] >= axes:
            continue
        out[e] = out.get(e, frozenset()) | axes
        if not isinstance(e, Scan):
            stack.extend((a, axes | set(e.axes) if isinstance(e, Reduce) else axes) for a in e.args)
    return out


def _is_part(c: Compute, r: Read) -> bool:
    """Whether a definition is only this read, of elements that lie together."""
    moved = [next((v for v in s.vars if as_term(v) + s.const == s), None) for s in r.data[1] if isinstance(s, Term)]
    return c.body is r and not r.args and None not in moved and len(set(moved)) == len(moved)


def _whole(r: Read, axes: frozenset[Var] | None) -> bool:
    """Whether a read visits each element once: its indices are the axes around it, in some order."""
    if axes is None or r.args:
        return False
    slots: list[Term] = list(r.data[1])
    names = [next((v for v in s.vars if as_term(v) == s), None) for s in slots]
    return None not in names and len(set(names)) == len(names) and axes <= set(names)
