"""Which iterations of a stage depend on one another, and which stages on what is computed where; each answer with a concrete pair.

A stage writes every element at its own point, so two iterations of a loop over a spatial axis never meet. A loop over a bound axis
carries the state of a reduction or scan from each iteration to the next. Between stages the access maps decide: an element is needed
wherever some reader's index takes its value.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from dsl.algebra import reads
from dsl.dim import Term, Var, as_term
from dsl.expr import Read
from dsl.nest import GRID_ROLES, Fuse, Nest, Split, Stage
from dsl.placing import Placed, place


def carried(nest: Nest, stage: Stage, loop: str) -> str | None:
    """Two iterations of a loop one of which needs what the other leaves; None where no two do."""
    if loop not in stage.reducing() or once(nest, stage, loop):
        return None
    at = ", ".join("0" for _ in stage.axes)
    element = f"{stage.tensors[0].name}[{at}]" if stage.axes else stage.tensors[0].name
    if stage.kind == "scan":
        return f"the iteration {loop} = 1 starts from the prefix that {loop} = 0 ends with"
    return f"the iterations {loop} = 0 and {loop} = 1 both update {element}"


def once(nest: Nest, stage: Stage, loop: str) -> bool:
    """Whether a loop has one iteration."""
    extent = place(nest)[stage.name].loop(loop).extent
    return extent.is_const and extent.const <= 1


def outside(nest: Nest, stage: Stage, loop: str) -> str | None:
    """A loop of several iterations around one of a stage's loops; None where there is none."""
    return next((x for x in stage.order[:stage.order.index(loop)] if not once(nest, stage, x)), None)


def again(nest: Nest, stage: Stage) -> str | None:
    """Why a stage beside another would not make every point once; None where it does: its host's loops around it are those of its share."""
    assert stage.attach is not None
    host, own = nest[stage.attach[0]], [loop for loop, _, _ in stage.beside]
    around = host.order[:host.order.index(stage.attach[1]) + 1]
    x = next((x for x in host.order if (x in own) != (x in around) and not once(nest, host, x)), None)
    if x is None:
        return None
    return f"{x} outside of it would compute each point of {stage.beside[-1][1]} several times" if x in around else f"{x} is inside of it"


def disorder(stage: Stage, order: Sequence[str]) -> str | None:
    """Two elements that an order of loops would combine the wrong way round; None where the order is that of the axes, or does not matter.

    It matters along a scan, and to a carrier that is not commutative. Among a stage's loops the tile axes count as innermost.
    """
    if stage.kind == "map" or (stage.kind == "reduce" and stage.body.data[0].commutative):
        return None
    names = stage.axis_names()
    wanted = [x for v in stage.bound for x in significance(stage, names[v])]
    real = [x for x in order if x in wanted]
    for a, b in zip(wanted, real):
        if a != b:
            return f"the element at {a} = 1, {b} = 0 would come before the one at {a} = 0, {b} = 1, which precedes it along the axis"
    return None


def significance(stage: Stage, axis: str) -> list[str]:
    """The loops that an axis has become, the one with the largest steps first."""
    for r in stage.relations:
        if isinstance(r, Split) and r.axis == axis:
            return [*significance(stage, r.outer), *significance(stage, r.inner)]
        if isinstance(r, Fuse) and axis in (r.outer, r.inner):
            return significance(stage, r.fused) if axis == r.outer else []
        if not isinstance(r, (Split, Fuse)) and r.axis == axis:
            return significance(stage, r.padded)
    return [axis]


# -- between stages ------------------------------------------------------------------------------------------------
def position(host: Stage, loop: str) -> float:
    """Where a place in a stage's loops stands among them.

    ``""`` is inside the grid and outside everything else, and so is every grid loop.
    """
    if loop and host.role(loop) not in GRID_ROLES:
        return host.order.index(loop)
    return sum(host.role(x) in GRID_ROLES for x in host.order) - 0.5


def within(nest: Nest, stage: Stage, host: str, loop: str) -> bool:
    """Whether a stage runs inside a loop of ``host``."""
    if stage.name == host:
        return True
    if stage.attach is None:
        return False
    above, at = stage.attach
    if above == host:
        return position(nest[host], at) >= position(nest[host], loop)
    return within(nest, nest[above], host, loop)


def needed_elsewhere(nest: Nest, stage: Stage, host: str, loop: str) -> str | None:
    """A reader of a stage that runs outside a loop of ``host``, with an element it reads; None where all run inside, or it is kept."""
    for reader in nest.consumers(stage) if not stage.beside else ():
        if not within(nest, reader, host, loop):
            r = first_read(reader, stage)
            where = f"at {reader.attach[1] or 'the start'} of {reader.attach[0]}" if reader.attach else "in a nest of its own"
            return f"{reader.name}, which runs {where}, reads {element(r, reader)} too"
    return None


def first_read(reader: Stage, stage: Stage) -> Read:
    """A read of one of a stage's tensors."""
    return next(r for t in reader.tensors for r in reads(t.body) if r.tensor in stage.tensors)


def element(r: Read, reader: Stage) -> str:
    """The element that a reader's first iteration reads, as text."""
    env = dict.fromkeys((*reader.axes, *reader.bound), as_term(0))
    return f"{r.tensor.name}[{', '.join(str(i.subs(env)) if isinstance(i, Term) else str(i) for i in r.indices)}]"


def uncovered(nest: Nest, stage: Stage) -> str | None:
    """Why a stage that the program returns would not be computed whole, or not by one iteration each, where it stands; None where it is."""
    if stage.beside:
        return None
    placed = place(nest)
    for reader in nest.consumers(stage):
        own = {as_term(v): v for v in reader.axes}
        for r in (r for t in reader.tensors for r in reads(t.body) if r.tensor in stage.tensors):
            found = [own.get(i) if isinstance(i, Term) else None for i in r.indices]
            whole = all(v is not None and v.extent == a.extent for v, a in zip(found, stage.axes)) and len(set(found)) == len(found)
            if whole and (reader.attach is None or uncovered(nest, reader) is None):
                return repeated(nest, stage, placed)
    r = first_read(nest.consumers(stage)[0], stage)
    return f"its readers need the elements {r}, which are not each element once"


def repeated(nest: Nest, stage: Stage, placed: Mapping[str, Placed]) -> str | None:
    """Two parallel iterations that would both compute the same element of an attached stage; None where there are none."""
    used: set[Var] = {v for t in placed[stage.name].start.values() for v in t.vars}
    for host, loop in enclosing(nest, stage):
        x = placed[host].loop(loop)
        if x.role in GRID_ROLES and x.var not in used and not (x.extent.is_const and x.extent.const <= 1):
            return f"the parallel iterations {loop} = 0 and {loop} = 1 of {host} would both write the same elements of it"
    return None


def enclosing(nest: Nest, stage: Stage) -> list[tuple[str, str]]:
    """The loops of other stages that an attached stage runs in, as (stage, loop)."""
    out: list[tuple[str, str]] = []
    while stage.attach is not None:
        host, at = stage.attach
        stage = nest[host]
        out += [(host, x) for n, x in enumerate(stage.order) if n <= position(stage, at)]
    return out


def elsewhere(reader: Stage, stage: Stage) -> str | None:
    """An iteration of a reader that reads another element than the one at its own point; None where every read is pointwise."""
    for v, a in zip(reader.axes, stage.axes):
        if v.extent != a.extent:
            return f"{reader.name} has {v.extent} points along {v}, {stage.name} has {a.extent}"
    if len(reader.axes) != len(stage.axes):
        return f"{reader.name} has the axes {_named(reader)}, {stage.name} has {_named(stage)}"
    here = [as_term(v) for v in reader.axes]
    for r in (r for t in reader.tensors for r in reads(t.body) if r.tensor in stage.tensors):
        if list(r.indices) != here:
            return _another(r, reader)
    return None


def _named(s: Stage) -> str:
    return ", ".join(v.name for v in s.axes) or "none"


def _another(r: Read, reader: Stage) -> str:
    """An iteration at which a read is not at the reader's own point."""
    sides = [range(2) if v.extent is not None and v.extent != 1 else range(1) for v in reader.axes]
    for point in itertools.product(*sides):
        env: dict[Var, Term] = dict.fromkeys(reader.bound, as_term(0)) | {v: as_term(n) for v, n in zip(reader.axes, point)}
        read = [i.subs(env) if isinstance(i, Term) else i for i in r.indices]
        if any(isinstance(i, Term) and i != n for i, n in zip(read, point)):
            at = ", ".join(f"{v} = {n}" for v, n in zip(reader.axes, point))
            return f"the iteration {at} of {reader.name} reads {r.tensor.name}[{', '.join(map(str, read))}]"
    return f"{reader.name} reads {r}"
