"""Random steps of schedules: what the differential tests of schedules by hand apply."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.errors import ScheduleError
from dsl.nest import Stage
from dsl.primitives.storage import tensor_name
from dsl.schedule import Schedule

Step = Callable[["Shuffler"], Any]


class Shuffler:
    """Applies random steps to a schedule; those that are refused change nothing and are counted."""

    def __init__(self, s: Schedule, seed: int) -> None:
        self.s, self.rng, self.done, self.refused = s, np.random.default_rng(seed), [], []

    def run(self, steps: int) -> Schedule:
        """Try so many steps."""
        for _ in range(steps):
            before = self.s.nest
            name = list(STEPS)[int(self.rng.integers(len(STEPS)))]
            try:
                STEPS[name](self)
                self.done.append(name)
            except ScheduleError as e:
                self.refused.append((name, e))
                assert self.s.nest is before, f"{name} was refused and changed the nest"
        return self.s

    def pick(self, options: Any) -> Any:
        """One of several; refuses when there is none."""
        options = list(options)
        if not options:
            raise ScheduleError("nothing to choose from")
        return options[int(self.rng.integers(len(options)))]

    def stage(self) -> Stage:
        """A stage."""
        return self.pick(self.s.nest.stages)

    def loop(self, s: Stage | None = None) -> str:
        """A loop by its full name."""
        s = s or self.stage()
        return f"{s.name}:{self.pick(s.order)}"

    def tensor(self, s: Stage) -> str:
        """A tensor that a stage reads, by name."""
        return self.pick(sorted(tensor_name(self.s.nest, t) for t in s.sources()))


def _split(x: Shuffler) -> None:
    x.s.split(x.loop(), int(x.pick((1, 2, 3, 4, 5, 8, 16))), tail=x.pick(("mask", "mask", "peel", "pad", "exact")))


def _tile(x: Shuffler) -> None:
    s = x.stage()
    names = [n for n in s.axis_names().values() if x.rng.random() < 0.7]
    x.s.stage(s.name).tile({n: int(x.pick((2, 3, 4, 8))) for n in names}, tail=x.pick(("mask", "peel")))


def _reorder(x: Shuffler) -> None:
    s = x.stage()
    order = [s.order[n] for n in x.rng.permutation(len(s.order))]
    x.s.reorder(*(f"{s.name}:{n}" for n in order))


def _fuse(x: Shuffler) -> None:
    s = x.stage()
    at = int(x.rng.integers(max(1, len(s.order) - 1)))
    x.s.fuse(f"{s.name}:{s.order[at]}", f"{s.name}:{s.order[at + 1]}") if at + 1 < len(s.order) else x.pick(())


def _small_tile(x: Shuffler) -> None:
    """A split whose inner part is a tile axis, so that tiles stay small."""
    loop = x.loop()
    x.s.split(loop, int(x.pick((2, 3, 4, 8))), tail=x.pick(("mask", "peel")))
    with contextlib.suppress(ScheduleError):
        getattr(x.s, x.pick(("vectorize", "unroll")))(f"{loop}.i")


def _whole_tile(x: Shuffler) -> None:
    getattr(x.s, x.pick(("vectorize", "unroll")))(x.loop())


def _place(x: Shuffler) -> tuple[str, str]:
    s = x.stage()
    host = x.pick(x.s.nest.consumers(s))
    while x.rng.random() < 0.3 and host.attach:
        host = x.s.nest[host.attach[0]]
    return s.name, f"{host.name}:{x.pick((*host.order, ''))}"


def _cache_read(x: Shuffler) -> None:
    s = x.stage()
    getattr(x.s.stage(s.name), x.pick(("cache_read", "pack")))(x.tensor(s), at=x.loop(s))


def _reverse(x: Shuffler) -> None:
    s = x.stage()
    x.s.reverse_compute_at(s.name, x.loop(x.pick([p for t in s.sources() if (p := x.s.nest.producer(t)) is not None])))


def _prefetch(x: Shuffler) -> None:
    s = x.stage()
    x.s.prefetch(x.tensor(s), x.loop(s), int(x.pick((1, 3))))


STEPS: dict[str, Step] = {
    "split": _split, "tile": _tile, "reorder": _reorder, "fuse": _fuse, "small tile": _small_tile, "small tile too": _small_tile,
    "whole tile": _whole_tile, "parallel": lambda x: x.s.parallel(x.loop()), "grid": lambda x: x.s.grid(x.loop()),
    "serial": lambda x: x.s.serial(x.loop()), "dot": lambda x: x.s.dot(x.loop()),
    "pad": lambda x: x.s.pad(x.loop(), int(x.pick((2, 4, 8)))), "unroll by": lambda x: x.s.unroll(x.loop(), by=int(x.pick((2, 3)))),
    "compute_at": lambda x: x.s.compute_at(*_place(x)), "compute_at too": lambda x: x.s.compute_at(*_place(x)),
    "compute_root": lambda x: x.s.compute_root(x.stage().name), "compute_inline": lambda x: x.s.compute_inline(x.stage().name),
    "reverse_compute_at": _reverse, "untile": lambda x: x.s.untile(x.stage().name),
    "rfactor": lambda x: x.s.rfactor(x.loop()), "split_k": lambda x: x.s.split_k(x.loop(), int(x.pick((2, 3)))), "cache_read": _cache_read,
    "cache_write": lambda x: x.s.cache_write(x.stage().name), "swizzle": lambda x: x.s.swizzle(int(x.pick((2, 3))), x.stage().name),
    "prefetch": _prefetch, "merge": lambda x: x.s.merge(x.stage().name, x.stage().name),
}
