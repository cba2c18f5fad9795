"""Attention as its plain definition: the softmax of scaled products, times the values. What fuses it reads this text."""

from __future__ import annotations

import math
from typing import Any

from dsl.carrier import MAX, SUM
from dsl.dim import Term
from dsl.dtype import bool_
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, cast, const, index, op, where
from dsl.ops.dispatch import broadcast_shapes, build, element_at, operation, require, show_shape, tensor
from dsl.ops.random import dropout
from dsl.program import reduce_axis, reduce_over


@operation
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: Any = None, enable_gqa: bool = False, seed: Any = None) -> Any:
    """``softmax(query @ key.T * scale + mask) @ value``: (.., L, E), (.., S, E), (.., S, V) -> (.., L, V).

    Args:
        query: (.., L, E); leading dimensions broadcast.
        key: (.., S, E).
        value: (.., S, V).
        attn_mask: bool (True takes part) or a float that is added; broadcast to (.., L, S). A row that is masked out gives zeros.
        dropout_p: the share of the weights that is dropped; needs a ``seed``.
        is_causal: query ``i`` sees keys up to ``i``.
        scale: ``1 / sqrt(E)`` when None.
        enable_gqa: heads (dimension -3) of the query share those of key and value, in equal groups.
        seed: of the random numbers, as in :func:`dlc.dropout`.

    Raises:
        ShapeError: sizes do not fit.
    """
    q, k, v = tensor(query, "attention"), tensor(key, "attention"), tensor(value, "attention")
    _check(q, k, v)
    require(attn_mask is None or not is_causal, "attention with a mask and is_causal", "a mask says all",
            "put the triangle into the mask: dlc.tri(L, S)")
    require(not dropout_p or seed is not None, "attention: dropout needs a seed", remedy="pass seed=, a number or a scalar of the kernel")
    share = _shared_heads(q, k, v, enable_gqa)
    lead = broadcast_shapes([(q.name, q.shape[:-2]), *((t.name, _heads(t, share)) for t in (k, v))], "multiply the stacks")
    mask = None if attn_mask is None else tensor(attn_mask, "attention")
    rank = len(lead)
    names = [*("b", "h", "g")[:rank]] if rank <= 3 else [f"b{n}" for n in range(rank)]
    scores = _scores(q, k, mask, lead, share, is_causal, scale, names)
    weights = _softmax(scores, mask is not None)
    if dropout_p:
        weights = dropout(weights, dropout_p, seed)

    def body(*at: Any) -> Expr:
        s = reduce_axis(v.shape[-2], name="s")
        weight = weights.read(*at[:-1], s)
        return reduce_over(SUM, (weight * v.read(*_lead(v, at[:rank], share), s, at[-1]),), (s,))

    return build("attention", (*lead, q.shape[-2], v.shape[-1]), body, (*names, "l", "e"))


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, lead: tuple[Term, ...], share: Any, causal: bool, scale: Any,
            names: list[str]) -> Tensor:
    rank = len(lead)
    factor = 1 / math.sqrt(q.shape[-1].const) if scale is None and q.shape[-1].is_const else scale

    def body(*at: Any) -> Expr:
        row, s = at[-2:]
        d = reduce_axis(q.shape[-1], name="d")
        total = reduce_over(SUM, (q.read(*_lead(q, at[:rank], None), row, d) * k.read(*_lead(k, at[:rank], share), s, d),), (d,))
        score = total * (op("rsqrt", cast(index(q.shape[-1]), q.dtype)) if factor is None
                         else factor.read() if isinstance(factor, Tensor) else factor)
        if causal:
            return where(s <= row, score, -math.inf)
        if mask is None:
            return score
        own = element_at(mask, at)
        return where(own, score, -math.inf) if mask.dtype is bool_ else score + own

    shape = (*lead, q.shape[-2], k.shape[-2])
    if mask is not None:
        whole = broadcast_shapes([("the scores", shape), (mask.name, mask.shape)], "mask")
        require(len(whole) == len(shape),
                f"attention: the mask `{mask.name}` {show_shape(mask.shape)} has more dimensions than the scores {show_shape(shape)}")
    return build("scores", shape, body, (*names, "l", "s"))


def _softmax(scores: Tensor, may_be_empty: bool) -> Tensor:
    """The softmax along the last axis; a row of minus infinities gives zeros."""
    def reduced(name: str, carrier: Any, t: Tensor) -> Tensor:
        s = reduce_axis(scores.shape[-1], name="s")
        return build(name, scores.shape[:-1], lambda *at: reduce_over(carrier, (t.read(*at, s),), (s,)))

    top = reduced("top", MAX, scores)

    def weight(*at: Any) -> Expr:
        m = top.read(*at[:-1])
        m = where(op("eq", m, -math.inf), const(0, m.dtype), m) if may_be_empty else m
        return op("exp", scores.read(*at) - m)

    exps = build("exps", scores.shape, weight)
    total = reduced("total", SUM, exps)

    def share(*at: Any) -> Expr:
        n = total.read(*at[:-1])
        return exps.read(*at) / (where(op("eq", n, 0), const(1, n.dtype), n) if may_be_empty else n)

    return build("weights", scores.shape, share)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    shown = f"`{q.name}` {show_shape(q.shape)}, `{k.name}` {show_shape(k.shape)}, `{v.name}` {show_shape(v.shape)}"
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError(f"attention of {shown}", "each has at least (positions, features)",
                         "query [.., L, E], key [.., S, E], value [.., S, V]")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"attention: query and key differ in their features: {shown}", f"they have {q.shape[-1]} and {k.shape[-1]}",
                         "query [.., L, E], key [.., S, E], value [.., S, V]")
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"attention: there is not one value for each key: {shown}",
                         f"there are {k.shape[-2]} keys and {v.shape[-2]} values", "query [.., L, E], key [.., S, E], value [.., S, V]")


def _shared_heads(q: Tensor, k: Tensor, v: Tensor, enable: bool) -> Term | None:
    """How many query heads share one of key and value; None when each has its own."""
    if not enable or min(q.ndim, k.ndim, v.ndim) < 3:
        return None
    ours, theirs = q.shape[-3], k.shape[-3]
    if theirs != v.shape[-3] or ours % theirs != 0:
        raise ShapeError(f"attention: {ours} query heads cannot share {theirs} heads of the key and {v.shape[-3]} of the value",
                         "the first must be a multiple of the others, which are equal",
                         "declare it as one: q: f32[B, G*R, L, E], k: f32[B, G, S, E]")
    each = ours // theirs
    return None if each == 1 else each


def _heads(t: Tensor, share: Term | None) -> tuple[Term, ...]:
    return tuple(t.shape[:-2]) if share is None else (*t.shape[:-3], t.shape[-3] * share)


def _lead(t: Tensor, at: tuple[Any, ...], share: Term | None) -> list[Any]:
    """Indices of the leading dimensions: broadcast ones read element 0, shared heads that of their group."""
    own = at[len(at) - (t.ndim - 2):] if t.ndim > 2 else ()
    out = [0 if s == 1 else i for i, s in zip(own, t.shape)]
    if share is not None and out and t.shape[-3] != 1:
        out[-1] = own[-1] // index(share)
    return out
