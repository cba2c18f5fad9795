"""The order in which a schedule adds things up, by name.

Rounding makes addition depend on its order, so two schedules of one definition give the same bits only where their reductions
combine the same elements in the same order. That order is a property of the scheduled nest alone: which digits of the reduced
index are walked one after another, and which run side by side in accumulators of their own that are combined at the end.
A digit is written as arithmetic on the index, so the name says everything and is the same however the loops were made:

    serial(k)                       one after another
    serial(k//8) lanes(k%8)         eight lanes, each walks every eighth element
    serial(k//32) unroll(k//8%4) lanes(k%8)

Spatial tiling, peeled tails, packing and the number of threads change no name. What is inside one instruction of the target
(``dot``) or left to the GPU's compiler (a tile combined at once) is named as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dsl.dim import Var
from dsl.nest import Fuse, Nest, Pad, Split, Stage
from dsl.placing import Placed, place

_KINDS = {"unroll": "unroll", "vectorize": "lanes", "dot": "dot"}


@dataclass(frozen=True)
class Digit:
    """A digit of a reduced index: ``index // step % count``; ``count`` is None for the leading one.

    Attributes:
        index: the axis, or the fusion of several, that the digit belongs to.
        step: distance of two neighbouring values.
        count: how many values it takes; None for the leading digit.
        times: the number of iterations at the sizes at hand, 0 where a size is unknown.
        kind: ``serial``; ``unroll``, ``lanes`` (side by side); ``dot`` (inside an instruction).
    """

    index: str
    step: int
    count: int | None
    times: int
    kind: str = "serial"

    def __str__(self) -> str:
        text = self.index + (f"//{self.step}" if self.step != 1 else "") + (f"%{self.count}" if self.count is not None else "")
        return f"{self.kind}({text})"


@dataclass(frozen=True)
class Order:
    """The order of one reduction or scan.

    Attributes:
        stage: the stage that reduces.
        carrier: its carrier.
        digits: outermost first.
        sizes: extents of the reduced indices.
        each: every step combines its tile at once instead of keeping one accumulator for each of its elements.
        exact: no order gives other bits.
    """

    stage: str
    carrier: str
    digits: tuple[Digit, ...]
    sizes: tuple[tuple[str, str], ...]
    each: bool = False
    exact: bool = False

    @property
    def name(self) -> str:
        """The order in words, for example ``sum[k<4096]: serial(k//8) lanes(k%8)``."""
        walked = " ".join(map(str, self.digits)) or "at once"
        return (f"{self.carrier}[{', '.join(f'{n}<{size}' for n, size in self.sizes)}]: {walked}"
                + (", each step combined" if self.each else ""))

    @property
    def depth(self) -> int:
        """The most combinations that any element goes through: the length of the longest chain of roundings."""
        serial = math.prod(max(d.times, 1) for d in self.digits if d.kind == "serial")
        inside = [d for d in self.digits if d.kind != "serial"]
        at_end = sum(d.times - 1 if d.kind == "dot" else math.ceil(math.log2(max(d.times, 1))) for d in inside)
        stepwise = math.prod(d.times for d in inside if d.kind == "dot")
        return serial * (1 + at_end) if self.each else serial * max(stepwise, 1) + at_end


def summation_orders(nest: Nest) -> tuple[Order, ...]:
    """The order of every reduction and scan of a scheduled nest, producers first."""
    placed = place(nest)
    return tuple(_order(placed[s.name]) for s in nest.stages if s.kind in ("reduce", "scan"))


def order_class(nest: Nest) -> str:
    """One line per reduction whose order can be seen in the bits; empty where every order is exact.

    Equal texts mean equal bits on one target.
    """
    return "\n".join(f"{o.stage}: {o.name}" for o in summation_orders(nest) if not o.exact)


def chain_lengths(nest: Nest, stages: Iterable[str]) -> dict[str, int]:
    """For each reduction as the definition has it, the most combinations that an element goes through in a scheduled nest.

    A reduction made of partial results (``y.part``) goes through theirs and through their merging. One that the schedule has merged
    into another counts like the longest there is, with the two corrections a step that rescaling costs.
    """
    depths = {o.stage: o.depth for o in summation_orders(nest)}
    longest = 3 * max(depths.values(), default=1)
    out = {}
    for name in stages:
        own = [d for stage, d in depths.items() if stage == name or stage.startswith(f"{name}.part")]
        out[name] = sum(own) if own else longest
    return out


def _order(p: Placed) -> Order:
    stage = p.stage
    carrier = stage.body.data[0]
    digits = _digits(stage, p)
    walked = tuple(digits[x.name] for x in p.loops if x.reduce and not _once(digits[x.name]))
    names = {d.index for d in walked}
    sizes = tuple((n, str(p.extent[v])) for v, n in stage.axis_names().items() if v in stage.bound)
    exact = carrier.reorders_exactly(tuple(a.dtype for a in stage.body.args))
    return Order(stage.name, carrier.name, _merged(walked), sizes, bool(stage.notes.get("reduce_each")) and bool(names), exact)


def _once(d: Digit) -> bool:
    return d.times == 1


def _digits(stage: Stage, p: Placed) -> dict[str, Digit]:
    """Every reducing loop as a digit of the axis (or fusion of axes) it was split from."""
    names = stage.axis_names()
    out = {names[v]: Digit(names[v], 1, None, _number(p, v)) for v in stage.bound}
    for r in stage.relations:
        if isinstance(r, Split) and r.axis in out:
            whole = out.pop(r.axis)
            times = -(-whole.times // r.factor) if whole.times else 0
            out[r.inner] = replace(whole, count=r.factor, times=min(r.factor, whole.times or r.factor))
            out[r.outer] = replace(whole, step=whole.step * r.factor, count=None if whole.count is None else -(-whole.count // r.factor),
                                   times=times)
        elif isinstance(r, Pad) and r.axis in out:  # what lies beyond the end changes no sum
            out[r.padded] = out.pop(r.axis)
        elif isinstance(r, Fuse) and r.outer in out:
            a, b = out.pop(r.outer), out.pop(r.inner)
            out[r.fused] = Digit(f"({a.index},{b.index})" if a.step == b.step == 1 else r.fused, 1, None, a.times * b.times)
    return {n: replace(d, kind=_KINDS.get(stage.role(n), "serial")) for n, d in out.items()}


def _number(p: Placed, v: Var) -> int:
    extent = p.extent[v]
    return int(extent.const) if extent.is_const else 0


def _merged(digits: Iterable[Digit]) -> tuple[Digit, ...]:
    """Neighbouring serial digits that count on from one another are one: splitting a loop changes no order."""
    out: list[Digit] = []
    for d in digits:
        last = out[-1] if out else None
        if (last is not None and last.kind == d.kind == "serial" and last.index == d.index and d.count is not None
                and last.step == d.step * d.count):
            out[-1] = replace(d, count=None if last.count is None else last.count * d.count, times=last.times * d.times)
        else:
            out.append(d)
    return tuple(out)
