"""Accumulators that stay in tile registers.

LLVM knows nothing of what a tile register holds, so this is decided here, before a phase is emitted: every accumulator is followed from
its dot through the loops that carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from codegen.emit.dot_match import DotMatch
from codegen.tile.ir import Block, Broadcast, Const, Dot, For, Iota, Load, Predicate, Store, TileOp, Value, walk_ops
from dsl.dim import Term, as_term


@dataclass(eq=False)
class Resident:
    """An accumulator in tile registers, with every value that stands for it.

    Attributes:
        match: the dot that adds to it.
        values: the accumulator after each dot, and as each loop carries it.
        finished: the last of them, which is used for something else.
        stored: those that are only stored, directly after they are finished; others are kept on the stack.
        fetched: the loads of its first value that are made into the registers themselves.
    """

    match: DotMatch
    values: frozenset[Value]
    finished: set[Value] = field(default_factory=set)
    stored: set[Value] = field(default_factory=set)
    fetched: set[TileOp] = field(default_factory=set)


def find_residents(body: Block, match: Callable[[Dot], DotMatch | None]) -> list[Resident]:
    """Every accumulator of a dot on tiles: through its loops where it can stay, else that of a single dot."""
    matches = {op: m for op in walk_ops(body) if isinstance(op, Dot) and (m := match(op)) is not None and m.block is not None}
    if not matches:
        return []
    groups, users = _carried(body), _users(body)
    found: list[Resident] = []
    for op, m in matches.items():
        if all(op.results[0] not in r.values for r in found):
            values = groups[op.results[0]]
            found.append(Resident(m, values if _stays(values, matches) else frozenset(op.results)))
    for block in _blocks(body):
        _place(block, found, users, matches)
        _fetch(block, found, users)
    return found


def _carried(body: Block) -> dict[Value, frozenset[Value]]:
    """Value -> all the values that loops and dots hand on to one another, itself among them."""
    groups: dict[Value, set[Value]] = {}

    def join(values: list[Value]) -> None:
        together = set().union(*(groups.get(v, {v}) for v in values))
        groups.update(dict.fromkeys(together, together))

    loops = [op for op in walk_ops(body) if isinstance(op, For)]
    made = {v for op in walk_ops(body) if isinstance(op, (For, Dot)) for v in op.results} | {p for op in loops for p in op.body.params}
    for op in walk_ops(body):
        if isinstance(op, Dot):
            join([*op.results, *({op.acc} & made)])
        elif isinstance(op, For):
            for init, *rest in zip(op.inits, op.body.params, op.body.yields, op.results):
                join([*rest, *({init} & made)])
    return {v: frozenset(group) for v, group in groups.items()}


def _stays(values: frozenset[Value], matches: Mapping[Dot, DotMatch]) -> bool:
    """Whether dots of one shape are all that touches an accumulator on its way, and no others run in its loops."""
    if len({(m.block, m.row, m.lane) for op, m in matches.items() if op.results[0] in values}) != 1:
        return False
    if any(v.op is not None and not isinstance(v.op, For) and v.op not in matches for v in values):
        return False
    inside = [op for v in values if isinstance(v.op, For) for op in walk_ops(v.op.body)]
    return all(op.results[0] in values for op in inside if isinstance(op, Dot) and op in matches)


def _users(body: Block) -> dict[Value, list[TileOp]]:
    """Value -> the operations that take it."""
    out: dict[Value, list[TileOp]] = {}
    for op in walk_ops(body):
        for v in op.operands():
            out.setdefault(v, []).append(op)
    return out


def _blocks(body: Block) -> Iterator[Block]:
    yield body
    for op in body.ops:
        for inner in op.blocks():
            yield from _blocks(inner)


def _place(block: Block, residents: list[Resident], users: Mapping[Value, list[TileOp]], matches: Mapping[Dot, DotMatch]) -> None:
    """Note which values of a block are finished, and which of those are only stored before the registers are needed again."""
    for at, op in enumerate(block.ops):
        for v in op.results:
            r = next((r for r in residents if v in r.values), None)
            if r is None:
                continue
            outside = [u for u in users.get(v, []) if not set(u.results) & r.values]
            handed_on = v in block.yields and len(r.values) > 1
            if outside or not handed_on:
                r.finished.add(v)
            direct = _direct_stores(v, block.ops[at + 1:], r.match, matches)
            if v not in block.yields and all(u in direct for u in outside):
                r.stored.add(v)


def _direct_stores(v: Value, after: list[TileOp], m: DotMatch, matches: Mapping[Dot, DotMatch]) -> list[TileOp]:
    """The stores of a value before the next dot on tiles."""
    out: list[TileOp] = []
    for op in after:
        if any(x in matches for x in (op, *(y for b in op.blocks() for y in walk_ops(b)))):
            break
        if isinstance(op, Store) and op.value is v and _direct(op, m):
            out.append(op)
    return out


def _fetch(block: Block, residents: list[Resident], users: Mapping[Value, list[TileOp]]) -> None:
    """Note which first values are loads that nothing else takes, with no store in between."""
    for at, op in enumerate(block.ops):
        for first, r in _entered(op, residents):
            load = first.op
            if (isinstance(load, Load) and load in block.ops and users[first] == [op] and _loadable(load, r.match)
                    and all(isinstance(x, (Const, Iota, Predicate, Load, Broadcast)) for x in block.ops[block.ops.index(load):at])):
                r.fetched.add(load)


def _entered(op: TileOp, residents: list[Resident]) -> Iterator[tuple[Value, Resident]]:
    """(first value, accumulator) of those that begin with an operation."""
    pairs = zip(op.inits, op.body.params) if isinstance(op, For) else [(op.acc, op.results[0])] if isinstance(op, Dot) else []
    for first, v in pairs:
        r = next((r for r in residents if v in r.values), None)
        if r is not None and first not in r.values:
            yield first, r


def _loadable(op: Load, m: DotMatch) -> bool:
    """Whether a load fills whole tiles, or, where its mask fails, none."""
    offset = element_offset(op)
    return (not op.conds and offset is not None and op.buffer.dtype == m.instruction.result and offset.coef(m.lane) == 1
            and m.row is not None and offset.coef_term(m.row) is not None and not any({m.row, m.lane} & t.vars for t in op.mask))


def _direct(op: Store, m: DotMatch) -> bool:
    """Whether a store can be made from the tile registers themselves, its mask aside."""
    offset = element_offset(op)
    return (not op.conds and offset is not None and op.value.dtype == op.buffer.dtype == m.instruction.result
            and offset.coef(m.lane) == 1 and m.row is not None and offset.coef_term(m.row) is not None)


def element_offset(op: Store | Load) -> Term | None:
    """The element offset of an access as a term; None where an index is data."""
    if any(isinstance(i, Value) for i in op.indices):
        return None
    return sum((i * s for i, s in zip(op.indices, op.buffer.strides) if not isinstance(i, Value)), as_term(0))
