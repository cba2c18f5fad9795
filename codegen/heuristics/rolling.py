"""Cascades become rolling stages, and those that go along in the loops of another: what both need is then made once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from codegen.analysis.access import size
from codegen.heuristics.blocking import register_tile
from codegen.heuristics.cascade import Choice, choose_form, choose_parts, pick_again, points, producers
from codegen.heuristics.decisions import Setting
from dsl.cascade import Cascade, derive
from dsl.cascade.crossing import Crossing, crossing
from dsl.cascade.guards import guards
from dsl.dim import Var
from dsl.nest import Nest
from dsl.primitives.loops import split
from dsl.primitives.reduction import rfactor
from dsl.primitives.roll import roll


def roll_cascades(nest: Nest, setting: Setting, without: AbstractSet[str] = frozenset()) -> tuple[Nest, list[str]]:
    """Turn the cascades for which one pass pays into rolling stages, ``without`` some reductions; the nest and those stages' names."""
    made: list[str] = []
    done = set(without)
    nest = pick_again(nest)
    while (found := _next_pass(nest, done, setting)) is not None:
        if isinstance(found, Pair):
            nest, stage = _one_axis(nest, found.host, found.axis)
            nest, name = roll(nest, stage, found.block, found.axis.name, again=True, cross=[found.other.components[0].stage])
        else:
            c, choice = found
            parts = choose_parts(c, choice, setting)
            nest, stage = _one_axis(nest, c, choice.axis) if c.folded else (nest, c.components[0].stage)
            nest, name = roll(nest, stage, choice.block, choice.axis.name, setting.target.kind != "cpu", parts, choice.again)
        made.append(name)
    return nest, made


def _next_pass(nest: Nest, done: set[str], setting: Setting) -> tuple[Cascade, Choice] | Pair | None:
    """The first cascade that is computed in one pass, alone or with another, of those without stages that are ``done``.

    Those looked at are, after that.
    """
    if all(s.name in done for s in nest.stages if s.kind == "reduce" and s.attach is None):
        return None
    left = [c for c in derive(nest).cascades if not done & _stages(c)]
    for n, c in enumerate(left):
        done |= _stages(c)
        pair = going_along(nest, c, left[n:], setting)
        if pair is not None and pair.together:
            done |= _stages(pair.host) | _stages(pair.other)
            return pair
        choice = choose_form(nest, c, setting)
        if choice.one:
            return c, choice
    return None


def _stages(c: Cascade) -> set[str]:
    return {x.stage for x in c.components}


def _one_axis(nest: Nest, c: Cascade, axis: Var) -> tuple[Nest, str]:
    """Sums over other axes besides (the heads that share a key) are left for the end, so that a block is one of a single axis."""
    stage = c.components[0].stage
    for name in dict.fromkeys(x.stage for x in c.components):
        at = c.axes.index(axis)
        part, names = name, nest[name].axis_names()
        for loop in [names[v] for n, v in enumerate(nest[name].bound) if n != at and size(v.extent) > 1]:
            nest = split(nest, part, loop, 1)
            nest, part = rfactor(nest, part, f"{loop}.o")
        stage = part if name == stage else stage
    return nest, stage


# -- two directions of one matrix ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pair:
    """Two passes over blocks of one matrix, along its rows and along its columns.

    Attributes:
        host, other: ``other`` can go along in the loops of ``host``.
        axis, block: the axis of ``host`` that is cut into blocks, and points in a block.
        together: whether it does.
        why: the reason in words, with the figures.
    """

    host: Cascade
    other: Cascade
    axis: Var
    block: int
    together: bool
    why: str


def going_along(nest: Nest, c: Cascade, left: Sequence[Cascade], setting: Setting) -> Pair | None:
    """The cascade of ``left`` that can share its loops with ``c``, one inside of the other's; None where none can.

    Both make blocks of the same matrix, which together is made once. What has more columns keeps them in the nearest caches; the sums of
    the other go through memory. Their order is fixed, so that the axis of the other is no longer shared out among the threads.
    """
    if setting.target.kind != "cpu":
        return None
    mine = _blocks(nest, c, setting)
    for o in left if mine is not None else ():
        theirs = _blocks(nest, o, setting) if o is not c else None
        pairs = sorted(((c, mine, o), (o, theirs, c)), key=lambda p: -_columns(p[0])) if theirs is not None else []
        for host, choice, other in pairs:
            assert choice is not None
            x = crossing(nest, host, other, choice.axis)
            if x is not None and all(v is choice.axis or size(v.extent) > 1 for v in host.axes):  # the others become rows
                return _weighed(nest, host, choice, x, setting)
    return None


def _blocks(nest: Nest, c: Cascade, setting: Setting) -> Choice | None:
    """How a product with a matrix takes it in blocks, unless it was asked to keep it or must."""
    if not c.folded or setting.decisions.preset.get(f"{c.components[0].stage}.pass") == "several":
        return None
    choice = choose_form(nest, c, setting)
    return choice if choice.one or choice.kept else None


def _weighed(nest: Nest, host: Cascade, choice: Choice, x: Crossing, setting: Setting) -> Pair:
    """Whether less is computed together, where only the other rows are shared out among the threads."""
    threads, other = setting.target.threads, x.cascade
    shares = math.prod(size(v.extent) for v in (*host.rows, *host.axes) if v not in (x.along, choice.axis))
    made, sums = _making(nest, host), _summing(host) + _summing(other)
    together = (made + sums) * -(-shares // threads) * threads // shares
    apart = sums + made + (_keeping(choice, setting) if choice.kept else _making(nest, other))
    if choice.kept and guards(replace(host, accumulators=(*host.accumulators, *x.sums))):
        together //= 2  # a triangle of blocks, where what is kept is computed whole
    chosen = setting.choose(f"{other.components[0].stage}.along", together < apart, (True, False))
    names, hosts = (", ".join(y.tensor.name for y in c.components) for c in (other, host))
    why = (f"{names} goes along in the loops of {hosts}: {together:,} operations instead of {apart:,}" if chosen else
           f"{names} and {hosts} are made apart: {apart:,} operations shared by {threads} threads, together {together:,}")
    return Pair(host, other, choice.axis, _even(choice, setting), chosen, why)


def _keeping(choice: Choice, setting: Setting) -> int:
    """The time it takes to keep the matrices, in multiply-adds: none where half of the last cache holds all of them."""
    return choice.kept * _STORED if choice.kept * 4 > setting.target.caches[-1] // 2 else 0


def _making(nest: Nest, c: Cascade) -> int:
    """Multiply-adds of the matrices that the elements of a pass are made of."""
    return sum(points((*s.axes, *s.bound)) for s in producers(nest, c))


def _summing(c: Cascade) -> int:
    """Multiply-adds of what a pass sums."""
    return sum(points((*c.rows, *c.axes, *a.extra)) for a in c.accumulators)


def _columns(c: Cascade) -> int:
    return sum(points(a.extra) for a in c.accumulators)


def _even(choice: Choice, setting: Setting) -> int:
    """A block of whole register tiles whether they have its points along their rows or along their lanes."""
    unit = math.lcm(*register_tile(setting.target, choice.block, choice.block))
    return choice.block // unit * unit if choice.block > unit and choice.block < size(choice.axis.extent) else choice.block


_STORED = 48  # multiply-adds in the time that storing an element of a matrix and reading it again takes
