"""Trees of tensors: what they hold is found and replaced, whatever tuples, lists and dicts they are made of."""

from __future__ import annotations

from typing import NamedTuple

import dlc
from dlc.trees import Slot, filled, mapped, rebuilt, tensors


class Pair(NamedTuple):
    loss: object
    more: object


def test_tensors_are_found_and_replaced_where_they_are() -> None:
    a, b = dlc.zeros(1), dlc.ones(2)
    tree = {"x": (a, [b, 3]), "y": Pair(b, None), "z": "text"}
    assert [t is u for t, u in zip(tensors(tree), (a, b, b))] == [True] * 3
    shapes = mapped(tree, lambda t: t.shape)
    assert shapes == {"x": ((1,), [(2,), 3]), "y": Pair((2,), None), "z": "text"} and isinstance(shapes["y"], Pair)


def test_slots_are_filled() -> None:
    slot = Slot((True, 0), None)
    assert filled([slot, (slot, 1)], lambda s: s.place) == [(True, 0), ((True, 0), 1)]


def test_rebuilding_keeps_the_kind() -> None:
    assert rebuilt((1, 2), str) == ("1", "2") and rebuilt([1], str) == ["1"] and rebuilt({"a": 1}, str) == {"a": "1"}
