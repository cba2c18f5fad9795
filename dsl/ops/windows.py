"""The arguments that convolutions and pools share: numbers per spatial dimension, paddings, and how many windows fit."""

from __future__ import annotations

from typing import Any

from dsl.dim import Term, as_term, cdiv, tmin
from dsl.errors import ShapeError

AXES = ("z", "y", "x")


def each(value: Any, rank: int, what: str, least: int = 1) -> list[int]:
    """An int for every spatial dimension, or one for all.

    Raises:
        ShapeError: other counts, no ints, or less than ``least``.
    """
    out = list(value) if isinstance(value, (tuple, list)) else [value]
    out = out * rank if len(out) == 1 else out
    if len(out) != rank or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in out):
        raise ShapeError(f"{what} is {value!r}",
                         remedy=f"an int of at least {least}, or {rank} of them" if rank > 1 else f"an int of at least {least}")
    return out


def spatial_names(rank: int) -> tuple[str, ...]:
    """The names of the last ``rank`` dimensions."""
    return AXES[3 - rank:]


def paddings(value: Any, rank: int, what: str, kernel: list[Any], dilation: list[int], stride: list[int]) -> list[tuple[int, int]]:
    """(before, after) of each spatial dimension, from an int, one per dimension, pairs, ``"same"`` or ``"valid"``.

    Raises:
        ShapeError: another value, or ``"same"`` with a stride or a symbolic kernel.
    """
    if value == "valid":
        return [(0, 0)] * rank
    if value == "same":
        if any(s != 1 for s in stride):
            raise ShapeError(f"{what}: padding='same' with stride {tuple(stride)}", "the result has another size than the input",
                             "give the padding as numbers")
        totals = [as_term(g * (as_term(k) - 1)) for k, g in zip(kernel, dilation)]
        if any(not t.is_const for t in totals):
            raise ShapeError(f"{what}: padding='same' with a kernel of symbolic size", remedy="give the padding as numbers")
        return [(t.const // 2, t.const - t.const // 2) for t in totals]
    if isinstance(value, str):
        raise ShapeError(f"{what}: padding is {value!r}", remedy="an int, one per dimension, (before, after) pairs, 'same' or 'valid'")
    given = list(value) if isinstance(value, (tuple, list)) else [value]
    if given and all(isinstance(v, (tuple, list)) for v in given):
        pairs = [(before, after) for v in given for before, after in [each(v, 2, f"{what}: a padding", 0)]]
        if len(pairs) != rank:
            raise ShapeError(f"{what}: padding is {value!r}", remedy=f"{rank} pairs")
        return pairs
    return [(p, p) for p in each(value, rank, f"{what}: padding", 0)]


def count(size: Term, pads: tuple[int, int], kernel: Any, stride: int, dilation: int, ceil: bool = False) -> Term:
    """How many windows fit; in ``ceil`` mode also one that begins inside and ends outside."""
    room = size + pads[0] + pads[1] - dilation * (as_term(kernel) - 1) - 1
    if not ceil:
        return room // stride + 1
    fit = (size + pads[0] - 1) // stride + 1  # the last window begins inside, or in the padding before
    return tmin(cdiv(room, stride) + 1, fit)


def check_count(sizes: list[Term], what: str, shown: str) -> None:
    """Refuse a result without elements because the window is larger than the padded input.

    Raises:
        ShapeError: a size below 1 is known.
    """
    for s in sizes:
        if s.bounds[1] < 1:
            raise ShapeError(f"{what}: the window is larger than the padded input", shown, "pad more, or use a smaller window")
