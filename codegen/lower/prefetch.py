"""Prefetches that a schedule asks for: one cache line of every row that a later iteration reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from codegen.lower.context import Context, InMemory, storage_index
from codegen.tile.ir import Prefetch
from dsl.algebra import reads
from dsl.dim import ZERO, Term, Var, as_term, tmax, tmin
from dsl.expr import Read
from dsl.nest import Stage
from dsl.placing import Placed, PlacedLoop
from dsl.primitives.storage import tensor_name

_LINE = 64  # bytes
_MOST = 32  # prefetches of one read


def emit_prefetches(cx: Context, stage: Stage, p: Placed, x: PlacedLoop, var: Var) -> None:
    """Emit the prefetches noted at a loop that has just been opened with the variable ``var``."""
    wanted = stage.notes.get("prefetch", {}).get(x.name, {})
    if not wanted:
        return
    found = dict.fromkeys(r for t in stage.tensors for r in reads(t.body))
    for r in found:
        ahead = wanted.get(tensor_name(cx.nest, r.tensor), 0)
        binding = cx.bindings.get(r.tensor)
        if ahead and isinstance(binding, InMemory) and all(isinstance(i, Term) for i in r.indices):
            for slots in _lines(cx, r, binding, p, var, int(ahead)):
                cx.builder.loc = r.loc
                cx.builder.add(Prefetch(binding.buffer, slots))


def _lines(cx: Context, r: Read, binding: InMemory, p: Placed, var: Var, ahead: int) -> Iterator[tuple[Term, ...]]:
    """The indices of one element of each line, kept inside the buffer; inner loops stand at their beginning."""
    slots = storage_index(binding, tuple(cx.term(i, p) for i in r.indices if isinstance(i, Term)))
    later = [s.subs(cx.env).subs({var: as_term(var) + ahead}) for s in slots]
    tile = sorted({v for s in later for v in s.vars if v in cx.tile}, key=lambda v: v.uid)
    near = max(1, _LINE // binding.buffer.dtype.itemsize)
    steps = [range(0, v.size, near if v in cx.lanes else 1) for v in tile]
    shut = {y.var: ZERO for y in p.loops if not y.tile and y.var not in cx.env}
    for point in itertools.islice(itertools.product(*steps), _MOST):
        env = {v: as_term(n) for v, n in zip(tile, point)}
        yield tuple(tmax(ZERO, tmin(s.subs(shut).subs(env), n - 1)) for s, n in zip(later, binding.buffer.shape))
