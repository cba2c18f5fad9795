"""How one loop becomes others: the relations that splits, fusions and paddings leave behind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """``axis`` becomes ``outer * factor + inner``; ``tail`` says what happens where the factor does not divide.

    ``mask``: the last round is masked. ``peel``: it is a copy of the loop's body of its own, so that the others need no mask. ``pad``: what
    lies beyond the end is computed and stored too, in memory made larger. ``exact``: the factor divides.
    """

    axis: str
    outer: str
    inner: str
    factor: int
    tail: str = "mask"


@dataclass(frozen=True)
class Fuse:
    """``fused`` runs over ``outer x inner``."""

    outer: str
    inner: str
    fused: str


@dataclass(frozen=True)
class Pad:
    """``padded`` runs over ``axis`` and beyond it, to a multiple of ``multiple``; what lies beyond is not kept."""

    axis: str
    padded: str
    multiple: int


Relation = Split | Fuse | Pad
