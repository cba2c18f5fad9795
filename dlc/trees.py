"""What functions of tensors take and return: tensors, constants, and tuples, lists and dicts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dlc.tensor import Tensor

Tree = Any


class Slot:
    """A tensor of the result: where its memory will be, and its shape and dtype."""

    __slots__ = ("place", "spec")

    def __init__(self, place: tuple[bool, int], spec: Any) -> None:
        self.place, self.spec = place, spec


def rebuilt(tree: Any, one: Callable[[Any], Any]) -> Any:
    """A tuple, list or dict with other things in the places of its elements."""
    if isinstance(tree, dict):
        return {k: one(v) for k, v in tree.items()}
    made = [one(x) for x in tree]
    return type(tree)(*made) if hasattr(tree, "_fields") else type(tree)(made)


def mapped(tree: Tree, one: Callable[[Tensor], Any]) -> Tree:
    """A tree with other things in the place of its tensors."""
    if isinstance(tree, Tensor):
        return one(tree)
    return rebuilt(tree, lambda x: mapped(x, one)) if isinstance(tree, (tuple, list, dict)) else tree


def filled(tree: Tree, one: Callable[[Slot], Any]) -> Tree:
    """A tree with tensors in the place of slots."""
    if isinstance(tree, Slot):
        return one(tree)
    return rebuilt(tree, lambda x: filled(x, one)) if isinstance(tree, (tuple, list, dict)) else tree


def tensors(tree: Tree) -> Iterator[Tensor]:
    """The tensors of a tree."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list, dict)):
        for x in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(x)
