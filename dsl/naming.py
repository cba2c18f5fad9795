"""What the names in a schedule mean: ``"i.o"``, ``"y:i"``, a stage, a tensor."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from dsl.errors import ScheduleError
from dsl.nest import Nest, Stage
from dsl.primitives import storage
from dsl.tiling import starts_over


def runs_in(nest: Nest, s: Stage, host: str) -> bool:
    """Whether a stage is another, or is computed in it."""
    return s.name == host or (s.attach is not None and runs_in(nest, nest[s.attach[0]], host))


@dataclass(frozen=True)
class Names:
    """The names of a nest, with those of the stage in focus first.

    Every method raises :class:`dsl.errors.ScheduleError` for a name that means nothing, or several things.
    """

    nest: Nest
    focus: str | None = None

    def stage(self, name: str) -> Stage:
        """The stage of a name."""
        names = [s.name for s in self.nest.stages]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise ScheduleError(f"no stage is called `{name}`", f"did you mean {near[0]}?" if near else "", "one of " + ", ".join(names))
        return self.nest[name]

    def focused(self, what: str) -> str:
        """The stage in focus."""
        if self.focus is None:
            raise ScheduleError(f"{what} needs a stage", remedy=f'{what}("y", ...), or s.stage("y").{what}(...)')
        return self.focus

    def named(self, stage: str | None, what: str) -> str:
        """A stage by its name, else the one in focus."""
        return self.focused(what) if stage is None else self.stage(stage).name

    def only_root(self, stage: str | None, what: str) -> str:
        """A stage by its name, else the one in focus, else the only one with a nest of its own."""
        if stage is not None or self.focus is not None:
            return self.named(stage, what)
        roots = [s.name for s in self.nest.stages if s.attach is None]
        if len(roots) != 1:
            raise ScheduleError(f"{what} of which stage?", f"{', '.join(roots)} each have a nest of their own",
                                f'{what}(..., stage="{roots[-1]}")')
        return roots[0]

    def loop(self, name: str) -> tuple[str, str]:
        """(stage, loop) of a name."""
        stage, colon, loop = name.rpartition(":")
        if colon:
            return self.stage(stage).name, self.inside(stage, loop)
        if self.focus is not None and name in self.nest[self.focus].order:
            return self.focus, name
        return self.outermost(name, [s for s in self.nest.stages if name in s.order]), name

    def inside(self, stage: str, name: str) -> str:
        """A loop of a stage."""
        s, loop = self.nest[stage], name.removeprefix(f"{stage}:")
        if loop not in s.order:
            raise ScheduleError(f"{stage} has no loop `{loop}`", remedy="its loops are " + ", ".join(s.order) if s.order else "it has none")
        return loop

    def outermost(self, name: str, among: list[Stage]) -> str:
        """The one stage, or the one in which all the others are computed."""
        hosts = [s for s in among if all(runs_in(self.nest, x, s.name) for x in among)]
        if hosts:
            return hosts[0].name
        if among:
            places = ", ".join(f"{s.name}:{name}" for s in among)
            raise ScheduleError(f"`{name}` is a loop of {len(among)} stages", f"it may be {places}",
                                f'say which: "{among[-1].name}:{name}", or s.stage("{among[-1].name}")')
        every = [f"{s.name}: {', '.join(s.order)}" for s in self.nest.stages]
        raise ScheduleError(f"no stage has a loop `{name}`", remedy="the loops are\n" + "\n".join(every))

    def host(self, name: str) -> str:
        """The stage that a tiling begins with: that of a loop, or of an axis that has been split already."""
        stage, colon, loop = name.rpartition(":")
        if colon:
            return self.stage(stage).name
        if self.focus is not None:
            return self.focus
        among = [s for s in self.nest.stages if name in s.order or name in starts_over(s)]
        return self.outermost(name, among)

    def place(self, at: str, producer: str | None, tensor: str = "") -> tuple[str, str]:
        """(stage, loop) of a place: ``y:i.o``, a loop, or a stage for its start."""
        stage, colon, loop = at.rpartition(":")
        if colon:
            return self.stage(stage).name, self.inside(stage, loop) if loop else ""
        among = [s for s in self.nest.stages if at in s.order and s.name != producer]
        if not among and any(s.name == at for s in self.nest.stages):
            return at, ""
        if tensor and len(among) > 1:
            among = [s for s in among if any(storage.tensor_name(self.nest, t) == tensor for t in s.sources())] or among
        if self.focus is not None and self.focus != producer and any(s.name == self.focus for s in among):
            return self.focus, at
        return self.outermost(at, among), at

    def reader(self, tensor: str, place: tuple[str, str] | None) -> str:
        """The stage that reads a tensor: the one in focus, the one whose loop was named, or the only one."""
        readers = [s.name for s in self.nest.stages if any(tensor in (storage.tensor_name(self.nest, t), t.name) for t in s.sources())]
        if not readers:
            raise ScheduleError(f"nothing reads `{tensor}`", remedy="the tensors read are " + ", ".join(sorted(
                {storage.tensor_name(self.nest, t) for s in self.nest.stages for t in s.sources()})))
        for wanted in (self.focus, place[0] if place else None):
            if wanted in readers:
                return wanted
        inside = [r for r in readers if place is None or runs_in(self.nest, self.nest[r], place[0])]
        if len(inside) != 1:
            raise ScheduleError(f"`{tensor}` is read by {' and '.join(inside or readers)}",
                                remedy=f's.stage("{(inside or readers)[-1]}") says by which')
        return inside[0]
