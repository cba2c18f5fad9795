"""A compiled CPU kernel as something to call: on arguments checked already, or through the functions written for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch

from codegen.target import Target
from dlc.runtime.cpu import load_object
from dlc.runtime.fastcall import MISS, Functions, Hooks
from dlc.runtime.recipe import Recipe
from dlc.runtime.written import Given
from dsl.errors import InternalError

Failed = Callable[[int, tuple[Any, ...]], Exception]


class Launcher:
    """A compiled kernel for one set of shapes, strides and dtypes on this CPU, or for every value of some sizes.

    Args:
        recipe: how it is called.
        entry: the address of its code.
        failed: makes the error for the code of a failed run-time check and the arguments of the call.
    """

    def __init__(self, recipe: Recipe, entry: int, failed: Failed) -> None:
        self.recipe, self.entry, self.failed = recipe, entry, failed

    def __call__(self, tensors: Sequence[torch.Tensor], outs: Sequence[torch.Tensor] | None = None) -> tuple[torch.Tensor, ...]:
        """Run on tensors that it serves; returns the results.

        Raises:
            BoundsError: a data-dependent index is out of range.
            InternalError: the tensors are not of the shapes, strides and dtypes compiled for.
            LaunchError: there is no memory for the results.
        """
        results: tuple[torch.Tensor, ...] = self.functions.into(tuple(tensors), None if outs is None else tuple(outs))
        if results is MISS:
            raise InternalError(f"{self.recipe.name} was compiled for other arguments",
                                f"{[(tuple(t.shape), t.stride(), t.dtype) for t in tensors]}")
        return results

    def serves(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether the kernel can be called with these tensors."""
        return bool(self.functions.serves(tuple(tensors)))

    @property
    def in_place(self) -> tuple[tuple[int, int], ...]:
        """(input, output) by their numbers, such that the output may be written over the input."""
        return self.recipe.in_place

    @cached_property
    def functions(self) -> Functions:
        """The functions written for the kernel, arguments being tensors."""
        return Functions(self.recipe, self.entry, self.failed)

    def written(self, given: Given, hooks: Hooks) -> Functions:
        """The functions written for the kernel and for a kind of arguments."""
        return Functions(self.recipe, self.entry, self.failed, given, hooks)


def make_launcher(recipe: Recipe, code: bytes, target: Target, failed: Failed) -> Launcher:
    """Load object code and bind it to its recipe."""
    return Launcher(recipe, load_object(code, target, recipe.entry), failed)
