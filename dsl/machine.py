"""What a schedule by hand must fit: the few facts of a target that decide which steps make sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsl.dim import Term
from dsl.errors import ScheduleError
from dsl.nest import Nest, Stage
from dsl.placing import place


@dataclass(frozen=True)
class Machine:
    """A kind of machine.

    Attributes:
        name: of the target.
        gpu: whether tiles are tensors of a program: power-of-two sides, warps, pipelines.
        widest: elements that one tile may have.
    """

    name: str
    gpu: bool = False
    widest: int = 1 << 14

    def check(self, nest: Nest) -> None:
        """Refuse tiles that the machine does not take.

        Raises:
            ScheduleError: a side that is no power of two on a GPU, or too many elements.
        """
        tiled = [s for s in nest.stages if any(role in ("vectorize", "unroll", "dot") for role in s.roles.values())]
        if not tiled:
            return
        placed = place(nest)
        for s in tiled:
            sides = [(x.name, x.extent) for x in placed[s.name].loops if x.tile]
            count = 1
            for name, extent in sides:
                if not extent.is_const:
                    raise ScheduleError(f"the tile of {s.name} has {extent} iterations along {name}", "a tile needs a size that is known",
                                        f"split {name} first")
                if self.gpu and extent.const & (extent.const - 1):
                    raise ScheduleError(f"{name} of {s.name} has {extent} iterations, and a tile of a GPU needs a power of two",
                                        remedy=f"split({name!r}, {_power(extent.const)}) and take the inner part, or "
                                               f"pad({name!r}, {_power(extent.const)})")
                count *= extent.const
            self._check_size(s, sides, count)

    def _check_size(self, s: Stage, sides: Sequence[tuple[str, Term]], count: int) -> None:
        if count > self.widest:
            tile = " x ".join(f"{n} along {name}" for name, n in sides)
            raise ScheduleError(f"the tile of {s.name} has {count} elements", f"{tile}; {self.name} takes {self.widest}",
                                "split, and take the inner parts")

    def need_gpu(self, step: str, why: str, instead: str) -> None:
        """Refuse a step that means nothing on a CPU."""
        if not self.gpu:
            raise ScheduleError(f"{step} is for GPUs, and this is a schedule for {self.name}", why, instead)

    def need_cpu(self, step: str, why: str, instead: str) -> None:
        """Refuse a step that means nothing on a GPU."""
        if self.gpu:
            raise ScheduleError(f"{step} is for CPUs, and this is a schedule for {self.name}", why, instead)


def _power(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


CPU = Machine("cpu")
