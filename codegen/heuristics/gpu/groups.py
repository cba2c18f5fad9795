"""What shares a kernel: a root stage, and the stages computed for each of its rows or tiles inside it."""

from __future__ import annotations

import math

from codegen.analysis.access import size
from codegen.analysis.product import product_of
from codegen.heuristics.gpu.fusing import WIDEST
from codegen.heuristics.groups import Group, fills, row_map
from dsl.dim import Var
from dsl.nest import Nest, Stage

PART = ".part"  # of a reduction that was parted to occupy more processors: a kernel of its own
_PRODUCTS = 2  # that one kernel finishes together: a gate needs two


def joins(nest: Nest, s: Stage, groups: dict[str, Group], home: dict[str, str]) -> str | None:
    """The anchor a stage can be computed inside of, recorded in its group; None when it must be a root."""
    consumers = nest.consumers(s)
    anchors = {home[c.name] for c in consumers}
    if nest.is_output(s) or s.kind == "scan" or s.name.endswith(PART) or len(anchors) != 1 or any(c.kind == "scan" for c in consumers):
        return None
    group = groups[anchors.pop()]
    anchor = nest[group.anchor]
    rows = row_map(s, consumers, group)
    if not rows or anchor.kind != "map" or product_of(anchor) is not None:
        return None
    products = [m for m in group.members if product_of(nest[m])]
    if product_of(s) is not None:
        return _join_product(nest, s, rows, group, products)
    kept = tuple(a for a in anchor.axes if a in rows.values())
    if products or (group.rows and group.rows != kept) or any(product_of(c) is not None for c in consumers):
        return None
    inside = math.prod(size(a.extent) for a in s.axes if a not in rows)
    if inside > WIDEST or not _worth(s, kept):
        return None
    group.rows = kept
    group.members[s.name] = rows
    return group.anchor


def _worth(s: Stage, rows: tuple[Var, ...]) -> bool:
    """A row to a program: with one row alone only what is short."""
    points = math.prod(size(a.extent) for a in (*s.axes, *s.bound))
    return math.prod(size(a.extent) for a in rows) >= 2 or points <= WIDEST


def _join_product(nest: Nest, s: Stage, rows: dict[Var, Var], group: Group, products: list[str]) -> str | None:
    """A product joins the map that finishes it, alone or beside another one that is tiled alike."""
    anchor = nest[group.anchor]
    p = product_of(s)
    assert p is not None
    whole = len(rows) == len(s.axes) == len(anchor.axes) and fills(rows)
    if not whole or len(products) != len(group.members) or len(products) >= _PRODUCTS:
        return None
    for m in products:
        other, up = product_of(nest[m]), group.members[m]
        assert other is not None
        sides = [{rows[v] for v in side} for side in (p.rows, p.columns)]
        theirs = [{up[v] for v in side} for side in (other.rows, other.columns)]
        if sides not in (theirs, theirs[::-1]):
            return None
    group.rows = anchor.axes
    group.members[s.name] = rows
    return group.anchor
