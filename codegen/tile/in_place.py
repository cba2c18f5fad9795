"""Which results may be written over an input: ``p = update(p, g)`` without memory of its own.

An element of the input must have been read for the last time when the element of the result in its place is written. So where a load and
a store may touch one place, they do so in the same point of the grid and the same round of every loop around both, and the load, with
everything that takes its value, comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from codegen.tile.bounds import condition_facts, consequences
from codegen.tile.ir import Block, Buffer, For, If, Load, Phase, Store, TileOp, TileProgram, Value
from codegen.tile.races import Access, apart, undetermined
from dsl.dim import Term, as_term, product

Position = tuple[int, ...]


@dataclass(frozen=True)
class _Touch:
    """A load or store: where it is, and when it is done with the memory it touches.

    Attributes:
        access: the operation and what holds where it runs.
        loops: the loops around it, outermost first.
        done: the position of the last operation that takes its value; of the store itself.
    """

    access: Access
    loops: tuple[For, ...]
    done: Position


def find_in_place(program: TileProgram) -> tuple[tuple[int, int], ...]:
    """(input, output) by their numbers, such that the output may lie where the input does, both being row-major and of one shape.

    None of a program that can stop half-way at a failed check: its input would be lost.
    """
    inputs = [b for b in program.buffers if b.scope == "input"]
    outputs = [b for b in program.buffers if b.scope == "output"]
    pairs = [(n, k) for n, x in enumerate(inputs) for k, y in enumerate(outputs) if _alike(x, y)] if not program.checks else []
    if not pairs:
        return ()
    touches = [_touches(p) for p in program.phases]
    return tuple((n, k) for n, k in pairs if _safe(touches, program.phases, inputs[n], outputs[k]))


def _alike(x: Buffer, y: Buffer) -> bool:
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    return all(s == product(y.shape[d + 1:]) for b in (x, y) for d, s in enumerate(b.strides) if y.shape[d] != 1)


def _safe(touches: list[list[_Touch]], phases: tuple[Phase, ...], x: Buffer, y: Buffer) -> bool:
    """Whether no element of ``x`` is read after the element of ``y`` in its place is written."""
    written = False
    for phase, here in zip(phases, touches):
        loads = [t for t in here if t.access.op.buffer is x and isinstance(t.access.op, Load)]
        stores = [t for t in here if t.access.op.buffer is y and isinstance(t.access.op, Store)]
        if loads and written:
            return False
        if not all(_before(phase, load, store) for load in loads for store in stores):
            return False
        written = written or bool(stores)
    return True


def _before(phase: Phase, load: _Touch, store: _Touch) -> bool:
    """Whether the load is done with every element that it shares with the store, when that is written."""
    points = [*(v for v, _ in phase.grid), *(a.var for a, b in zip(load.loops, store.loops) if a is b)]
    if load.done == store.done:  # element by element, perhaps
        points += store.access.op.value.axes  # type: ignore[union-attr]  # what is done at a store's position is a store
    for a, b in ((load.access, store.access), (_flat(load.access), _flat(store.access))):
        if (load.done <= store.done and not undetermined(a, b, points)) or apart(a, b):
            return True
    return False


def _flat(x: Access) -> Access:
    """The access as one to memory without dimensions, which loops over several of them at once have taken it for."""
    at = as_term(0)
    for i, s in zip(x.op.indices, x.op.buffer.strides):
        if isinstance(i, Value):
            return x
        at += i * s
    return Access(replace(x.op, indices=(at,)), x.facts)


def _touches(phase: Phase) -> list[_Touch]:
    last: dict[Value, Position] = {}
    found: list[tuple[Access, tuple[For, ...], Position]] = []
    facts = [f for v, n in phase.grid for f in (as_term(v), *consequences(n - 1 - as_term(v)))]
    for op, at, loops, known in _walk(phase.body, (), (), tuple(facts), last):
        if isinstance(op, (Load, Store)):
            own = [f for t in (*op.mask, *(t for c in op.conds for t in condition_facts(c))) for f in consequences(t)]
            found.append((Access(op, (*known, *own)), loops, at))
    return [_Touch(a, loops, max(at, *(last.get(r, at) for r in a.op.results)) if a.op.results else at) for a, loops, at in found]


def _walk(block: Block, at: Position, loops: tuple[For, ...], facts: tuple[Term, ...], last: dict[Value, Position],
          ) -> Iterator[tuple[TileOp, Position, tuple[For, ...], tuple[Term, ...]]]:
    """Every operation with its position, the loops around it and what holds there; ``last`` takes the last use of every value."""
    for n, op in enumerate(block.ops):
        here = (*at, n)
        for v in op.operands():
            last[v] = max(last.get(v, here), here)
        yield op, here, loops, facts
        inner, more = (*loops, op) if isinstance(op, For) else loops, _facts(op)
        for b in op.blocks():
            yield from _walk(b, here, inner, (*facts, *more), last)
    for v in block.yields:
        last[v] = (*at, len(block.ops))


def _facts(op: TileOp) -> list[Term]:
    """What holds inside of an operation."""
    given = (as_term(op.var) - op.lo, op.hi - 1 - as_term(op.var)) if isinstance(op, For) else op.terms if isinstance(op, If) else ()
    return [f for t in given for f in consequences(t)]


__all__ = ["find_in_place"]
