"""Reductions that are chains by themselves, and the blocks of a row that one pass goes through."""

from __future__ import annotations

from codegen.analysis.access import cost
from codegen.heuristics.decisions import Setting
from codegen.heuristics.turned import side_by_side
from dsl.algebra import walk
from dsl.cascade import Cascade
from dsl.expr import Where
from dsl.nest import Nest

LIGHT = 4  # operations of an element that is as well made twice
ONCE = "one pass: block by block an element takes one exponential, and not two"


def share(n: int, most: int, setting: Setting) -> int:
    """Points of a block: on CPUs equal shares of whole vectors where there are such, since a ragged one would put masks on all of them."""
    lanes = setting.target.vector_bits // 32
    even = [k for k in range(most // lanes * lanes, most // 4, -lanes) if n % k == 0] if setting.target.kind == "cpu" and n > most else []
    return even[0] if even else min(n, most)


def rescales(nest: Nest, c: Cascade, setting: Setting) -> bool:
    """Whether a reduction is a chain by itself, a logarithm of sums of exponentials, whose elements cost less than bringing sums along.

    Element by element it takes two exponentials: of the element, and of the step by which the largest has changed. Rows so short that
    they are written out, one in each lane, have no steps.
    """
    chain = any(len(x.used) > 1 and x.form == "rolling" for x in c.components)
    stages = [nest[x.stage] for x in c.components]
    return (setting.target.kind == "cpu" and chain and light(c)
            and all(side_by_side([(s, s.axes)], s.axes, setting) is None for s in stages))


def light(c: Cascade) -> bool:
    """Whether what the states take of an element is as well made again for each of them."""
    made = [e for a in c.accumulators for e in (*a.inputs, *(a.weight.data_parts if a.weight is not None else ()))]
    return all(cost(e) <= LIGHT and not any(isinstance(x, Where) for x in walk(e)) for e in made)
