"""A compiled CPU kernel as something to call: pointers in order, outputs and scratch, the code of a failed check."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from codegen.emit.llvm import CpuModule
from codegen.target import Target
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.cpu import load_object
from dsl.dim import product
from dsl.errors import BoundsError
from dsl.program import Program


@dataclass
class Launcher:
    """A compiled kernel for one set of shapes, strides and dtypes on this CPU.

    Attributes:
        entry: callable on (argument array, scratch, threads), returning the code of a failed check or 0.
        outputs: (shape, dtype) of each result.
        workspaces: (elements, dtype) of each buffer that lives for one call.
        scratch: bytes private to each thread.
        checks: texts of the run-time checks, by code - 1.
        empty: there is nothing to compute.
        arguments: the type of the argument array.
    """

    program: Program
    entry: Any
    outputs: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    workspaces: tuple[tuple[int, torch.dtype], ...]
    scratch: int
    checks: tuple[str, ...]
    empty: bool
    arguments: Any

    def __call__(self, tensors: Sequence[torch.Tensor], outs: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Run on tensors of exactly the shapes, strides and dtypes compiled for; returns the outputs.

        Raises:
            BoundsError: a data-dependent index is out of range.
        """
        results = list(outs) if outs is not None else [torch.empty(s, dtype=d) for s, d in self.outputs]
        if self.empty:
            return results
        spaces = [torch.empty(n, dtype=d) for n, d in self.workspaces]
        threads = torch.get_num_threads()
        scratch = torch.empty(self.scratch * threads, dtype=torch.uint8) if self.scratch else None
        pointers = self.arguments(*[t.data_ptr() for t in tensors], *[t.data_ptr() for t in results], *[t.data_ptr() for t in spaces])
        code = self.entry(pointers, scratch.data_ptr() if scratch is not None else None, threads)
        if code:
            raise BoundsError(f"a data-dependent index of {self.program.name} is out of range", self.checks[code - 1],
                              "check the index data, or clamp it in the definition", self.program.loc)
        return results


def make_launcher(program: Program, checks: tuple[str, ...], module: CpuModule, code: bytes, target: Target) -> Launcher:
    """Load the object code of a module and bind it to its program's arguments."""
    entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(load_object(code, target, module.entry))
    outputs = tuple((tuple(int(s) for s in t.shape), torch_dtype(t.dtype)) for t in program.outputs)
    spaces = tuple((int(product(b.shape)), torch_dtype(b.dtype)) for b in module.workspaces)
    count = len(program.inputs) + len(outputs) + len(spaces)
    return Launcher(program, entry, outputs, spaces, int(module.scratch), checks, all(math.prod(s) == 0 for s, _ in outputs), ctypes.c_void_p * count)
