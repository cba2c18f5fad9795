"""Einstein's summation: products of tensors named by their indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.carrier import SUM
from dsl.dim import ONE, Term
from dsl.errors import ShapeError, UserError
from dsl.expr import Expr, Tensor
from dsl.ops.dispatch import build, operation, show_shape, tensor
from dsl.program import reduce_axis, reduce_over

Labels = tuple[str, ...]


@operation
def einsum(equation: str, *operands: Any) -> Any:
    """``einsum("bik,bkj->bij", x, y)``: products of the operands, summed over every index that the result does not name.

    Args:
        equation: index letters of each operand, ``->`` and those of the result. Without ``->`` the result has the letters that occur
            once, in alphabetical order. A letter twice in one operand is its diagonal; ``...`` are dimensions that broadcast.
        operands: one tensor for each part of the equation. Three or more are multiplied from the left, two at a time.

    Raises:
        UserError: the equation is malformed.
        ShapeError: ranks do not match the equation, or a letter has two sizes.
    """
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    tensors = [tensor(t, "einsum") for t in given]
    inputs, result = _parse(equation, tensors)
    sizes = _sizes(inputs, tensors, equation)
    terms = list(zip(inputs, tensors))
    while len(terms) > 2:
        (la, a), (lb, b), *rest = terms
        later = set(result).union(*(labels for labels, _ in rest))
        kept = tuple(dict.fromkeys(x for x in (*la, *lb) if x in later))
        terms = [(kept, _product([(la, a), (lb, b)], kept, sizes)), *rest]
    return _product(terms, result, sizes)


def _product(terms: Sequence[tuple[Labels, Tensor]], result: Labels, sizes: dict[str, Term]) -> Tensor:
    """The sum over all labels that are not in ``result`` of the product of one or two tensors."""
    present = dict.fromkeys(x for labels, _ in terms for x in labels)
    gone = {x: reduce_axis(sizes[x], name=_plain(x)) for x in present if x not in result}

    def body(*at: Any) -> Expr:
        where_ = {**dict(zip(result, at)), **gone}
        factors = [t.read(*(0 if s == 1 else where_[x] for x, s in zip(labels, t.shape))) for labels, t in terms]
        value = factors[0]
        for f in factors[1:]:
            value = value * f
        return reduce_over(SUM, (value,), tuple(gone.values())) if gone else value

    return build("einsum", [sizes[x] for x in result], body, [_plain(x) for x in result])


def _plain(label: str) -> str:
    return label if label.isalpha() else f"b{label[1:]}"


# -- the equation --------------------------------------------------------------------------------------------------
def _parse(equation: str, tensors: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise UserError(f"einsum: {equation!r} names {len(parts)} operands, {len(tensors)} were given")
    rank = max((t.ndim - len(p.replace("...", "")) for p, t in zip(parts, tensors) if "..." in p), default=0)
    inputs = [_labels(p, t, rank, equation) for p, t in zip(parts, tensors)]
    dots = tuple(f".{n}" for n in range(rank))
    if arrow:
        _letters(right, equation)
        out = _expand(right, dots)
        unknown = [x for x in out if not any(x in labels for labels in inputs) and x not in dots]
        if unknown or len(set(out)) < len(out):
            bad = unknown[0] if unknown else next(x for n, x in enumerate(out) if x in out[:n])
            raise UserError(f"einsum: the result of {equation!r} has the index {bad!r} {'that no operand has' if unknown else 'twice'}")
        return inputs, out
    once = sorted(x for x in set().union(*inputs) if x.isalpha() and sum(labels.count(x) for labels in inputs) == 1)
    return inputs, (*dots, *once)


def _letters(part: str, equation: str) -> None:
    rest = part.replace("...", "", 1)
    if not all(c.isalpha() for c in rest):
        raise UserError(f"einsum: {equation!r} is no equation", f"`{part}` has something else than letters and one `...`",
                        "as in 'bik,bkj->bij'")


def _expand(part: str, dots: Labels) -> Labels:
    before, ellipsis, after = part.partition("...")
    return (*before, *(dots if ellipsis else ()), *after)


def _labels(part: str, t: Tensor, rank: int, equation: str) -> Labels:
    _letters(part, equation)
    own = t.ndim - len(part.replace("...", ""))
    if own < 0 or own and "..." not in part:
        raise ShapeError(f"einsum: `{part}` in {equation!r} does not fit `{t.name}` {show_shape(t.shape)}", f"it has {t.ndim} dimensions",
                         "one letter for each, or `...`")
    return _expand(part, tuple(f".{n}" for n in range(rank - own, rank)))


def _sizes(inputs: Sequence[Labels], tensors: Sequence[Tensor], equation: str) -> dict[str, Term]:
    out: dict[str, Term] = {}
    owner: dict[str, Tensor] = {}
    for labels, t in zip(inputs, tensors):
        for x, s in zip(labels, t.shape):
            if x not in out or out[x] == 1:
                out[x], owner[x] = s, t
            elif s not in (ONE, out[x]):
                a = owner[x]
                raise ShapeError(f"einsum: the index {x!r} of {equation!r} has two sizes, {out[x]} and {s}",
                                 f"in `{a.name}` {show_shape(a.shape)} and in `{t.name}` {show_shape(t.shape)}",
                                 "declare both with the same symbol")
    return out
