"""Copies in which neighbours stay neighbours: terms of a dot's lane, packed side by side, move as one word.

``p[k // 2, j, k % 2] = w[j, k]`` brings pairs from rows into lanes; turning registers of words takes half the shuffles that turning
elements and joining pairs would.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.emit.residents import element_offset
from codegen.tile.ir import Block, Buffer, Load, Store, TileOp, Value, walk_ops
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype, i16, i32

_WORDS: dict[int, Dtype] = {32: i32, 16: i16}


@dataclass(frozen=True)
class WordCopy:
    """A load and its store, over words: the same memory seen as wider elements."""

    load: Load
    store: Store
    views: tuple[tuple[Buffer, Buffer], ...]  # (words, the buffer they are in)


def find_word_copies(body: Block) -> dict[TileOp, WordCopy]:
    """Store -> the copy by words that it and the load before it are."""
    out: dict[TileOp, WordCopy] = {}
    uses: dict[Value, int] = {}
    for op in walk_ops(body):
        for v in op.operands():
            uses[v] = uses.get(v, 0) + 1
        for b in op.blocks():
            uses |= {v: 2 for v in b.yields}
    for block in _blocks(body):
        for before, op in zip(block.ops, block.ops[1:]):
            if isinstance(before, Load) and isinstance(op, Store) and op.value is before.results[0] and uses[op.value] == 1:
                found = _by_words(before, op)
                if found is not None:
                    out[op] = found
    return out


def _blocks(body: Block) -> list[Block]:
    return [body, *(inner for op in walk_ops(body) for inner in op.blocks())]


def _by_words(load: Load, store: Store) -> WordCopy | None:
    source, target = element_offset(load), element_offset(store)
    if source is None or target is None or load.conds or store.conds or load.buffer.dtype != store.buffer.dtype:
        return None
    for axis in load.results[0].axes:
        for count in (4, 2):
            word = _WORDS.get(count * load.buffer.dtype.bits)
            if word is not None and axis.size % count == 0 and source.coef(axis) == 1 and _in_words(target, axis, count):
                found = _copy(load, store, (source, target), axis, count, word)
                if found is not None:
                    return found
    return None


def _in_words(target: Term, axis: Var, count: int) -> bool:
    """Whether every ``count`` neighbours along an axis are neighbours in memory, and no more of them."""
    at = [target.subs({axis: as_term(n)}) for n in range(axis.size)]
    return (all(at[n] - at[n - n % count] == n % count for n in range(axis.size))
            and (axis.size == count or at[count] - at[0] != count))


def _copy(load: Load, store: Store, offsets: tuple[Term, Term], axis: Var, count: int, word: Dtype) -> WordCopy | None:
    """The copy over words; None where a word could lie across the words of memory, or be masked in part."""
    words = Var(axis.name, as_term(axis.size // count))
    found = [_divided(t.subs({axis: as_term(words) * count}), count) for t in offsets]
    asked = [[_word_mask(t, axis, words, count) for t in op.mask] for op in (load, store)]
    places, masks = [p for p in found if p is not None], [tuple(t for t in mask if t is not None) for mask in asked]
    if len(places) < 2 or any(len(mask) < len(given) for mask, given in zip(masks, asked)):
        return None
    views = tuple(Buffer(f"{b.name}.words", word, (as_term(1),), (as_term(1),), b.scope) for b in (load.buffer, store.buffer))
    value = Value(word, tuple(sorted((words if v is axis else v for v in load.results[0].axes), key=lambda v: v.uid)), load.results[0].hint)
    first = Load(views[0], (places[0],), masks[0], (), load.undefined)
    first.results, value.op = (value,), first
    last = Store(views[1], (places[1],), value, masks[1], (), store.streaming)
    return WordCopy(first, last, ((views[0], load.buffer), (views[1], store.buffer)))


def _divided(t: Term, count: int) -> Term | None:
    """An element offset in words; None where it is no whole number of them."""
    if t.const % count or any(c % count for c in t.parts.values()):
        return None
    return Term({m: c // count for m, c in t.parts.items()}, t.const // count)


def _word_mask(t: Term, axis: Var, words: Var, count: int) -> Term | None:
    """A mask of elements as one of words; None where it may part a word."""
    if axis not in t.vars:
        return t
    if t.coef(axis) != -1 or (t.const + 1) % count or any(c % count for m, c in t.parts.items() if m != (axis,)):
        return None
    return t.subs({axis: as_term(words) * count + (count - 1)})
