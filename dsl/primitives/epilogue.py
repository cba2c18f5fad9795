"""A reader brought into the loops of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dsl.dependence import elsewhere, needed_elsewhere, uncovered
from dsl.errors import ScheduleError
from dsl.nest import TILE_ROLES, Fuse, Nest, Pad, Relation, Split, Stage
from dsl.primitives.placement import check_reached
from dsl.primitives.record import primitive


@primitive
def reverse_compute_at(nest: Nest, stage: str, producer: str, loop: str) -> Nest:
    """Compute a reader inside a loop of what it reads, on the part that is ready there: an epilogue.

    before::

        y: for i.o in 4
             for i.i in 16
               for k in 50: y[i] += f(i, k)
        z: for i in 64: z[i] = g(y[i])

    after ``reverse_compute_at(z, y, i.o)``::

        z: for i.o in 4
             y: for i in 16
                  for k in 50: y[i] += f(i, k)
             for i.i in 16: z[i] = g(y[i])

    The loops of ``y`` down to that one become loops of ``z``, with their roles; what is computed in them comes along.

    Raises:
        ScheduleError: the stage does not read the other, or at other points than its own, or its loops have been arranged already; a
            reduction runs in that loop or around it; parts of one axis lie inside and outside in the wrong order; somebody else needs it.
    """
    c, p = nest[stage], nest[producer]
    what = f"reverse_compute_at({stage!r}, {f'{producer}:{loop}'!r})"
    _check(nest, c, p, loop, what)
    cut = _Cut(p, c, loop, what)
    reader = replace(c, relations=cut.relations(), order=cut.order(), roles=cut.roles(), notes=cut.notes())
    moved = replace(cut.inside(), attach=(stage, cut.name(loop)))
    made = nest.with_stage(reader).with_stage(moved)
    outer = p.order[:p.order.index(loop) + 1]
    for x in nest.stages:
        if x.attach is not None and x.attach[0] == producer:
            at = x.attach[1]
            made = made.with_stage(replace(x, attach=(stage, cut.name(at)) if at in outer or at == "" else (producer, cut.renamed(at))))
    why = needed_elsewhere(made, made[producer], stage, cut.name(loop))
    if why is None and nest.is_output(p):
        why = uncovered(made, made[producer])
    if why is not None:
        raise ScheduleError(f"{what}: {producer} is needed outside that loop", why,
                            "cache_write a copy for the other reader, or bring it here first")
    check_reached(made, what)
    return made


def _check(nest: Nest, c: Stage, p: Stage, loop: str, what: str) -> None:
    if loop not in p.order:
        raise ScheduleError(f"{p.name} has no loop `{loop}`", remedy="its loops are " + ", ".join(p.order))
    if p.role(loop) in TILE_ROLES:
        raise ScheduleError(f"{what}: {loop} is {p.role(loop)}, an axis of the tile", "inside a tile nothing is computed apart",
                            "a loop outside the tile")
    if c.kind != "map" or c not in nest.consumers(p):
        raise ScheduleError(f"{what}: {c.name} is not a pointwise reader of {p.name}",
                            remedy=f"readers: {', '.join(x.name for x in nest.consumers(p)) or 'none'}")
    why = elsewhere(c, p)
    if why is not None:
        raise ScheduleError(f"{what}: the iterations of {c.name} do not match those of {p.name}", why,
                            f"compute_at({p.name!r}, a loop of {c.name})")
    if c.relations or c.roles or c.attach is not None:
        raise ScheduleError(f"{what}: the loops of {c.name} have been arranged already", "they are replaced by those of " + p.name,
                            f"untile({c.name!r}) first")
    if any(x.attach is not None and x.attach[0] == c.name for x in nest.stages) or p.attach is not None:
        raise ScheduleError(f"{what}: {p.name if p.attach else c.name} shares loops with another stage", remedy="compute_root first")
    summed = next((x for x in p.order[:p.order.index(loop) + 1] if x in p.reducing()), None)
    if summed is not None:
        raise ScheduleError(f"{what}: {summed} is a loop of the {p.kind} of {p.name}",
                            f"in the iteration {summed} = 0 its elements are not complete; {c.name} needs them as they are after the last",
                            "a loop outside it")


@dataclass(frozen=True)
class _Cut:
    """The loops of ``p`` cut below ``loop``: those outside go to the reader ``c``, each axis's part inside stays.

    Attributes:
        what: the step, for messages.
    """

    p: Stage
    c: Stage
    loop: str
    what: str

    @property
    def outer(self) -> tuple[str, ...]:
        return self.p.order[:self.p.order.index(self.loop) + 1]

    def name(self, loop: str) -> str:
        """The reader's name of a loop."""
        for v, w in zip(self.p.axes, self.c.axes):
            own, theirs = self.p.axis_names()[v], self.c.axis_names()[w]
            if loop == own or loop.startswith(own + "."):
                return theirs + loop[len(own):]
        return loop

    def _spatial(self) -> list[Relation]:
        reducing = self.p.reducing()
        return [r for r in self.p.relations if (r.outer if isinstance(r, Fuse) else r.axis) not in reducing]

    def relations(self) -> tuple[Relation, ...]:
        """The reader's."""
        return tuple(_mapped(r, self.name) for r in self._spatial())

    def order(self) -> tuple[str, ...]:
        """The reader's loops; the axis that goes along with a scan gets one of its own, inside."""
        along = () if self.p.position is None else (self.c.axis_names()[self.c.axes[self.p.axes.index(self.p.position)]],)
        return (*(self.name(x) for x in self.p.order if x not in self.p.reducing()), *along)

    def roles(self) -> dict[str, str]:
        """The reader's roles."""
        return {self.name(x): role for x, role in self.p.roles.items() if x not in self.p.reducing()}

    def notes(self) -> dict[str, object]:
        """The reader's notes: those of the whole stage, which say how it is launched."""
        return {**self.c.notes, **{k: v for k, v in self.p.notes.items() if not isinstance(v, dict)}}

    def kept(self) -> Mapping[str, str]:
        """The loop that an axis's inside part hangs from -> the axis."""
        out: dict[str, str] = {}
        for v in self.p.axes:
            if v is not self.p.position:
                axis = self.p.axis_names()[v]
                node = self._inner(axis)
                if node is not None:
                    out[node] = axis
        return out

    def _inner(self, name: str) -> str | None:
        leaves = self._leaves(name)
        if all(x in self.outer for x in leaves):
            return None
        if not any(x in self.outer for x in leaves):
            return name
        for r in self.p.relations:
            if isinstance(r, Pad) and r.axis == name:
                return self._inner(r.padded)
            if isinstance(r, Split) and r.axis == name and all(x in self.outer for x in self._leaves(r.outer)):
                return self._inner(r.inner)
        raise ScheduleError(f"{self.what}: the parts of {name} do not lie one inside the other", f"the loops are {', '.join(self.p.order)}",
                            "reorder, so that the outer part of a split is outside the inner one")

    def _leaves(self, name: str) -> list[str]:
        """The loops that a loop or axis has become; one fused of two axes belongs to both."""
        for r in self.p.relations:
            if isinstance(r, Fuse) and name in (r.outer, r.inner):
                return self._leaves(r.fused)
            if isinstance(r, Pad) and r.axis == name:
                return self._leaves(r.padded)
            if isinstance(r, Split) and r.axis == name:
                return [*self._leaves(r.outer), *self._leaves(r.inner)]
        return [name]

    def renamed(self, loop: str) -> str:
        """The producer's new name of a loop inside."""
        kept = self.kept()
        return kept.get(loop, loop)

    def inside(self) -> Stage:
        """The producer with what is left of its loops."""
        p, kept = self.p, self.kept()
        if any(isinstance(r, Fuse) and r.fused not in self.outer and r in self._spatial() for r in p.relations):
            raise ScheduleError(f"{self.what}: loops of different axes were fused inside", remedy="fuse after the reader is in place")
        below: set[str] = set(kept)
        relations: list[Relation] = []
        for r in p.relations:
            if r not in self._spatial():
                relations.append(r)
            elif not isinstance(r, Fuse) and r.axis in below:
                below |= {r.outer, r.inner} if isinstance(r, Split) else {r.padded}
                relations.append(_mapped(r, self.renamed))
        names = p.axis_names()
        single = [names[v] for v in p.axes if v is not p.position and names[v] not in kept.values()]
        left = [x for x in p.order if x not in self.outer]
        roles = {self.renamed(x): role for x, role in p.roles.items() if x in left}
        notes = {k: {self.renamed(x): v for x, v in n.items() if x in left} if isinstance(n, dict) else n for k, n in p.notes.items()}
        kept_notes = {k: v for k, v in notes.items() if isinstance(v, dict) and v or k in ("memory", "reduce_each")}
        return replace(p, relations=tuple(relations), order=(*single, *map(self.renamed, left)), roles=roles, notes=kept_notes)


def _mapped(r: Relation, name: Callable[[str], str]) -> Relation:
    if isinstance(r, Fuse):
        return Fuse(name(r.outer), name(r.inner), name(r.fused))
    if isinstance(r, Pad):
        return Pad(name(r.axis), name(r.padded), r.multiple)
    return Split(name(r.axis), name(r.outer), name(r.inner), r.factor, r.tail)
