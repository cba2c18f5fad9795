"""Which cascades one pass computes, and in what blocks: decided by what several passes would read or keep again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from codegen.analysis.access import Strides, read_access, size
from codegen.heuristics.chains import LIGHT, ONCE, light, rescales, share
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes
from dsl.algebra import reads
from dsl.cascade import Accumulator, Cascade
from dsl.cascade.factored import leaves
from dsl.dim import Term, Var, as_term
from dsl.expr import Expr, Read
from dsl.nest import Nest, Stage
from dsl.primitives.recompute import recompute
from dsl.primitives.storage import multiplied


@dataclass(frozen=True)
class Choice:
    """What becomes of a cascade.

    Attributes:
        one: whether it is computed in one pass.
        axis, block: the axis whose blocks the pass runs over, and points in a block.
        why: the reason in words, with the figures.
        again: whether what its elements are made of is computed for it alone, though others read it too.
        kept: elements of the matrix that several passes keep because it stays in the cache, where that is why they are several.
    """

    one: bool
    axis: Var
    block: int
    why: str
    again: bool = False
    kept: int = 0


def pick_again(nest: Nest) -> Nest:
    """Compute single elements of a reduction again where a reader picks a few by data.

    The logit of a label is no reason to keep all of them.
    """
    for s in nest.stages:
        if s.kind != "reduce" or nest.is_output(s) or len(s.tensors) != 1:
            continue
        for c in nest.consumers(s):
            mine = [r for t in c.tensors for r in reads(t.body) if r.tensor in s.tensors]
            by_data = all(any(isinstance(i, Expr) for i in r.indices) for r in mine)
            if (by_data and c.kind == "map" and c.attach is None and points(c.axes) * _FEW <= points(s.axes)
                    and len(nest.consumers(s)) > 1):
                nest, _ = recompute(nest, c.name, s.name)
    return nest


_FEW = 8  # elements computed for each that is picked, below which keeping all is cheaper


def choose_form(nest: Nest, c: Cascade, setting: Setting) -> Choice:
    """One pass or several, and the block."""
    axis = _cut(nest, c, setting.strides)
    default = _kept(nest, c, axis, setting) or _read_again(nest, c, axis, setting)
    name = c.components[0].stage
    forms = ("one", "several") if _possible(c) else ("several",)
    if setting.choose(f"{name}.pass", "one" if default.one and _possible(c) else "several", forms) == "several":
        return Choice(False, axis, default.block, default.why if not default.one else "several passes were asked for", kept=default.kept)
    blocks = [n for n in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192) if n < size(axis.extent)]
    block = setting.choose(f"{name}.block", default.block, blocks)
    return Choice(True, axis, block, default.why, default.again or c.folded or (not default.one and bool(producers(nest, c))))


def _cut(nest: Nest, c: Cascade, strides: Strides) -> Var:
    """The axis that is cut into blocks.

    Rows of a box are cut along the largest steps in memory, unless the other axes alone make long blocks; else it is the longest axis.
    """
    longest = max(c.axes, key=lambda v: size(v.extent))
    if c.folded or any(a.extra for a in c.accumulators):
        return longest
    steps = {v: max((n for x in c.components for e in x.element for r in reads(e) if (n := read_access(r, strides).stride(v))), default=0)
             for v in c.axes}
    far = max(c.axes, key=lambda v: steps[v])
    return far if size(far.extent) > 1 and points(c.axes) // size(far.extent) <= _BLOCK else longest


def choose_parts(c: Cascade, choice: Choice, setting: Setting) -> int:
    """How many passes over a share of the blocks each, where the rows alone do not occupy the processors."""
    values = [e for a in c.accumulators if a.extra for e in a.inputs]
    longest = max((size(v.extent) for v in c.rows if not any(v in e.free for e in values)), default=1)
    shared = _SHARED if values or any(_along(c, v, setting.strides) for v in c.axes) else _LINE
    programs = points(c.rows) // max(longest, 1) * -(-longest // shared)
    blocks = -(-size(choice.axis.extent) // choice.block)
    wanted = min(setting.target.threads // max(programs, 1), blocks // 2)
    parts = 1 << (max(wanted, 1).bit_length() - 1)
    return setting.choose(f"{c.components[0].stage}.parts", parts, [n for n in (1, 2, 4, 8, 16, 32) if n <= max(1, blocks // 2)])


_SHARED = 64  # rows that one program takes


def _possible(c: Cascade) -> bool:
    return all(v.extent is not None and v.extent.is_const and v.extent.const > 0
               for v in (*c.rows, *c.axes, *(v for a in c.accumulators for v in a.extra)))


def producers(nest: Nest, c: Cascade) -> list[Stage]:
    """Reductions over other axes that this cascade reads, an element for every row and every point of its axes."""
    out: dict[str, Stage] = {}
    members, rows = {x.stage for x in c.components}, {v for v in c.rows if size(v.extent) > 1}
    for x in c.components:
        for e in x.element:
            for r in leaves(e):
                assert isinstance(r, Read)
                s = nest.producer(r.tensor)
                if s is not None and s.kind == "reduce" and s.name not in members and r.free & set(c.axes) and r.free & rows == rows:
                    out[s.name] = s
    return [s for s in out.values() if not nest.is_output(s)]


def _readers(nest: Nest, s: Stage) -> set[str]:
    """The reductions, scans and outputs that read a stage, through pointwise definitions."""
    out: set[str] = set()
    todo = list(nest.consumers(s))
    while todo:
        x = todo.pop()
        if x.kind != "map" or nest.is_output(x):
            out.add(x.name)
        else:
            todo += nest.consumers(x)
    return out


def _kept(nest: Nest, c: Cascade, axis: Var, setting: Setting) -> Choice | None:
    """Several passes would keep a whole matrix of what a reduction over other axes makes; one pass keeps a block of it.

    A chain whose matrix nobody else reads does best without it at any size. Others would compute it again, which costs more than reading
    what stays in the cache.
    """
    made = producers(nest, c)
    if not made:
        alone = c.folded and len(c.components) == 1
        return Choice(False, axis, _TILE[setting.target.kind], "several passes: what it would take along is a result") if alone else None
    largest = max(made, key=lambda s: points(s.axes))
    again = points((*c.rows, *c.axes)) // max(points(largest.axes), 1)
    if again > 1:
        why = f"several passes: one would make each element of {largest.name} {again} times"
        return Choice(False, axis, _TILE[setting.target.kind], why)
    sizes = [points(s.axes) * s.tensors[0].dtype.itemsize for s in made]
    n, names = sum(sizes), ", ".join(s.name for s in made)
    own = c.chained and all(_readers(nest, s) <= {x.stage for x in c.components} for s in made)
    room = setting.target.caches[-1] // 2 if setting.target.kind == "cpu" else 0
    others = sum(points(s.axes) * s.tensors[0].dtype.itemsize for x in c.components for s in (nest[x.stage],))
    if not own and (max(sizes) <= max(room, 2 * others)):
        if not c.folded:
            return None
        kept = sum(points(s.axes) for s in made)
        return Choice(False, axis, _block(made, axis, setting), f"several passes: {names} is kept, {n:,} bytes", kept=kept)
    why = f"one pass: {names} is never stored, {n:,} bytes in several passes"
    return Choice(True, axis, _block(made, axis, setting), why, again=not own)


def _block(made: list[Stage], axis: Var, setting: Setting) -> int:
    """Points in a block of a matrix that is made block by block."""
    block = _TILE[setting.target.kind]
    if setting.target.kind == "cpu":  # the factor that a block of rows shares is copied for a block: it must stay in the cache
        deep = max(points(s.bound) * s.tensors[0].dtype.itemsize for s in made)
        block = max(_LEAST, min(block, 1 << ((setting.target.caches[1] // 2 // max(deep, 1)).bit_length() - 1)))
    elif all(r.tensor.dtype.bits <= 16 for s in made for t in s.tensors for r in reads(t.body)):
        deep = max(points(s.bound) for s in made) * 2
        block *= 2 if 3 * deep * 2 * block <= setting.target.caches[0] else 1  # narrow factors leave registers for more scores
    if setting.target.kind == "hip" and len(made) > 1 and max(points(s.bound) for s in made) > _NARROW:
        block //= 2  # wide factors of two matrices beside each other leave registers for fewer
    return min(size(axis.extent), block)


def points(axes: Iterable[Var]) -> int:
    """The points of a box."""
    return math.prod(size(v.extent) for v in axes)


_LEAST, _NARROW = 32, 64
_TILE = {"cpu": 128, "cuda": 32, "hip": 32}
_BLOCK = 4096  # elements of a row that are read from memory once and from the nearest cache afterwards


def _read_again(nest: Nest, c: Cascade, axis: Var, setting: Setting) -> Choice:
    """Several passes read a row from memory again where it does not stay in a cache."""
    each = max(1, points(c.axes) // max(size(axis.extent), 1))
    block = share(size(axis.extent), max(1, _BLOCK // each), setting)
    beside, along = any(a.extra for a in c.accumulators), any(_along(c, v, setting.strides) for v in c.axes)
    if beside and (along or setting.target.kind != "cpu"):
        return _beside_product(c, axis, setting)
    row = row_bytes(nest, c)
    room = setting.target.caches[1] // 2 if setting.target.kind == "cpu" else _LONGEST * 4
    if not along and beside:
        return Choice(False, axis, block, "several passes: rows are interleaved in memory, so that several are reduced side by side")
    if not along:
        return _across(nest, c, axis, each, setting)
    if rescales(nest, c, setting):
        return Choice(True, axis, block, ONCE)
    rows = points(c.rows)
    if setting.target.kind != "cpu" and rows < setting.target.threads:
        return Choice(False, axis, block, f"several passes: {rows} rows are parted to occupy {setting.target.threads} processors")
    if row <= room:
        return Choice(False, axis, block, f"several passes: a row of {row:,} bytes stays in the cache (up to {room:,})")
    return Choice(True, axis, block, f"one pass: a row of {row:,} bytes does not stay in the cache (up to {room:,})")


def _across(nest: Nest, c: Cascade, axis: Var, each: int, setting: Setting) -> Choice:
    """Rows that lie side by side in memory: many are reduced at a time, and a few elements of each make a block."""
    chain = 1 << max(math.isqrt(size(axis.extent)).bit_length() - 1, 0)  # as many blocks as elements in one: short chains of roundings
    block, panel = max(1, min(size(axis.extent), max(_SIDE, min(chain, _MOST)) // each)), row_bytes(nest, c) * _LINE
    if setting.target.kind != "cpu" and points(c.rows) < _LINE * setting.target.threads:
        return Choice(False, axis, block, f"several passes: {points(c.rows):,} rows side by side are parted to occupy the processors")
    room = setting.target.caches[0]
    if setting.target.kind == "cpu" and light(c) and all(a.weight is None for a in c.accumulators):
        room //= LIGHT  # sums of what is read save but the second reading
    if rescales(nest, c, setting):
        return Choice(True, axis, block, ONCE)
    if panel <= room or each > _SIDE:
        why = f"several passes: {_LINE} rows side by side, {panel:,} bytes, stay in the nearest cache (up to {room:,})"
        return Choice(False, axis, block, why)
    why = f"one pass: {_LINE} rows side by side, {panel:,} bytes, do not stay in the nearest cache (up to {room:,})"
    return Choice(True, axis, block, why)


_SIDE, _MOST = 16, 512  # elements of a row in a block where many rows lie side by side
_LINE = 16  # of such rows that a line of the cache holds elements of


def _beside_product(c: Cascade, axis: Var, setting: Setting) -> Choice:
    """A product over the same axis (with normalised rows, with softmax weights) reads the rows; the rest can go along with it.

    One pass saves a pass over the rows and a copy of them, so many operations for each of their elements. Its price: blocks of rows
    share no copy of the other factor, and the states of all columns are kept; both grow with the columns.
    """
    cpu, n = setting.target.kind == "cpu", size(axis.extent)
    columns = sum(points(a.extra) for a in c.accumulators if _of_rows(a, c))
    rows = points(v for v in c.rows if not any(v in e.free for e in _others(c)))
    if cpu:
        most = _COLUMNS_WEIGHTED if any(a.weight is not None for a in c.accumulators) else _COLUMNS
        block, least, where = min(n, _PART if n > 2 * _PART else n), _FEW_ROWS, "the cache"
    else:
        low = all(r.dtype.bits <= 16 for e in _others(c) for r in reads(e))
        most, block = (_COLUMNS, min(n, 32)) if low else (_COLUMNS // 4, min(n, 16))
        least, where = _SHARED * setting.target.threads // 2, "registers"
    products = max(sum(a.name in x.used and _of_rows(a, c) for a in c.accumulators) for x in c.components)
    if products > 1:
        return Choice(False, axis, block, f"several passes: apart from earlier results, one product is {products}")
    if columns > most:
        why = f"several passes: sums for {columns:,} columns do not stay in {where} beside a block of rows (up to {most})"
        return Choice(False, axis, block, why)
    if rows < least:
        return Choice(False, axis, block, f"several passes: {rows:,} rows share too few blocks of the other factor (from {least:,})")
    return Choice(True, axis, block, f"one pass: the product with {columns:,} columns reads the rows, and what scales them goes along")


def _of_rows(a: Accumulator, c: Cascade) -> bool:
    """Whether a state is a product with something of each row."""
    return bool(a.extra) and any(e.free & set(c.rows) for e in (*a.inputs, *(w.data for w in (a.weight, a.centred) if w is not None)))


def _others(c: Cascade) -> list[Expr]:
    """What products of the pass have in them besides the rows."""
    return [x for a in c.accumulators if a.extra for e in a.inputs for x in multiplied(e) if x.free & set(a.extra)]


_COLUMNS, _COLUMNS_WEIGHTED = 256, 512  # measured: beyond, copies of the other factor cost more than a pass over the rows
_FEW_ROWS = 32
_PART = 256  # elements of a row that a product on a CPU takes at a time
_LONGEST = 16384  # elements of a row that a program on a GPU holds at once


def row_bytes(nest: Nest, c: Cascade) -> int:
    """Bytes that the elements of one row are made of."""
    seen: dict[object, int] = {}
    for x in c.components:
        for e in x.element:
            for r in reads(e):
                n = r.tensor.dtype.itemsize
                for v in c.axes:
                    n *= size(v.extent) if v in r.free else 1
                if r.free & set(c.axes):
                    seen[r.tensor] = n
    return sum(seen.values())


def _along(c: Cascade, axis: Var, strides: Strides) -> bool:
    """Whether memory runs along the axis, in what there is of every row."""
    found = [read_access(r, strides).stride(axis) for x in c.components for e in x.element for r in reads(e)
             if axis in r.free and (not c.rows or r.free & set(c.rows))]
    return any(n == 1 for n in found)


# -- what both kinds of schedule ask ---------------------------------------------------------------------------------
def schedule_rolls(nest: Nest, hosts: list[str], schedule: Callable[[Nest, str, str | None], Nest]) -> tuple[Nest, set[str]]:
    """Schedule every rolling stage, what is attached in it, and the pointwise stage that finishes it where there is one.

    Args:
        nest: with rolling stages.
        hosts: their names.
        schedule: ``(nest, host, anchor or None) -> nest``, of one of them.

    Returns:
        The nest, and the names of the stages that have their schedule.
    """
    done: set[str] = set()
    for host in hosts:
        anchor = find_anchor(nest, nest[host]) if not summed_along(nest, host) else None
        nest = schedule(nest, host, anchor)
        done |= {host, *((anchor,) if anchor is not None else ()), *(s.name for s in attached(nest, host))}
    return nest, done


def summed_along(nest: Nest, host: str) -> set[Var]:
    """The row axes of a rolling stage along which sums go on in memory: blocks of their rows follow one another."""
    return {v for s in nest.stages if s.attach is not None and s.attach[0] == host for v in s.along.values()}


def attached(nest: Nest, host: str) -> list[Stage]:
    """The stages computed in a rolling stage's loop, and those inside them."""
    inside = {host}
    for s in reversed(nest.stages):
        if s.attach is not None and s.attach[0] in inside:
            inside.add(s.name)
    return [s for s in nest.stages if s.name in inside - {host}]


def find_anchor(nest: Nest, host: Stage) -> str | None:
    """The pointwise root that alone reads the results, at the rows of each of its points."""
    readers = nest.consumers(host)
    if nest.is_output(host) or len(readers) != 1 or readers[0].kind != "map" or readers[0].attach is not None:
        return None
    rows = identity_axes(readers[0], host)
    return readers[0].name if rows is not None and set(rows) == set(host.axes) and len(set(rows.values())) == len(rows) else None


def across_rows(nest: Nest, h: Stage, strides: Strides) -> Var | None:
    """The row axis of a rolling stage along which memory runs, where it runs along no axis of the rows themselves."""
    votes: dict[Var | None, int] = {}
    for s in (s for s in nest.stages if s.attach == (h.name, h.order[-1])):
        for t in s.tensors:
            for r in (r for r in reads(t.body) if (p := nest.producer(r.tensor)) is None or p.attach is None):
                x, n = read_access(r, strides), math.prod(size(v.extent) for v in r.free)
                for v in (v for v in r.free if isinstance(v, Var) and x.stride(v) == 1 and size(v.extent) > 1):
                    row = row_of(nest, h, s, v) if v in s.axes else None
                    votes[row] = votes.get(row, 0) + n
    return max(votes, key=lambda v: votes[v], default=None)


def row_of(nest: Nest, h: Stage, s: Stage, v: Var) -> Var | None:
    """The row axis of a rolling stage that an axis of a stage computed in its loop runs along."""
    rows = [a for a in h.axes if a not in s.along.values()]
    if s.axes[0].name == h.bound[0].name:
        at = s.axes.index(v) - 1
        return rows[at] if 0 <= at < len(rows) else None
    position = s.axes.index(v)
    for c in nest.consumers(s):
        for r in (r for t in c.tensors for r in reads(t.body) if r.tensor in s.tensors):
            i = r.indices[position]
            at = next((n - 1 for n, a in enumerate(c.axes) if isinstance(i, Term) and i == as_term(a)), -1)
            if 0 <= at < len(h.axes):
                return h.axes[at]
    return None
