"""Kernels as machine code: what every target's result has, and the code of CPUs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from codegen.target import Target
from dlc.compiler import Plan
from dsl.errors import LaunchError
from dsl.loc import UNKNOWN


class Compiled(ABC):
    """A kernel compiled for a target that need not be here. ``print`` it, :meth:`save` it, read its parts.

    Attributes:
        name: the kernel's.
        target: the machine.
    """

    name: str
    target: Target

    @property
    @abstractmethod
    def source(self) -> str:
        """The text that the target's compiler was given."""

    @property
    @abstractmethod
    def assembly(self) -> str:
        """The machine code as text."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""

    @abstractmethod
    def files(self) -> dict[str, str | bytes]:
        """Every form of the kernel by file name."""

    def to_json(self) -> str:
        """:meth:`as_dict` as text."""
        return json.dumps(self.as_dict(), default=plain)

    def save(self, directory: str | Path) -> list[Path]:
        """Write :meth:`files` to a directory, made if need be; returns the paths.

        Raises:
            LaunchError: the directory cannot be written.
        """
        folder, files = Path(directory), self.files()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        except OSError as e:
            raise LaunchError(f"cannot write to {folder}", str(e), loc=UNKNOWN) from e
        return [folder / name for name in files]


class CpuCompilation(Compiled):
    """A kernel as LLVM IR and object code for a CPU.

    The entry point is ``i32 NAME(ptr args, ptr scratch, i64 threads)``: ``args`` holds the addresses of inputs, outputs and workspaces,
    then the sizes as i64. It gives 0, or the number of the run-time check that failed. The code calls ``GOMP_parallel`` where it shares
    work out, and may call the C library's mathematics.

    Args:
        plan: for a CPU target.

    Attributes:
        code: the object file.
        recipe: inputs, outputs, bytes of workspaces and scratch memory: how the entry point is called.
    """

    def __init__(self, plan: Plan) -> None:
        self.name, self.target, self.recipe, self.code = plan.program.name, plan.request.target, plan.recipe, plan.object_code
        self._plan = plan

    @property
    def source(self) -> str:
        """The LLVM IR, with the user's lines as comments."""
        return self._plan.listing()

    @property
    def assembly(self) -> str:
        """The machine code as text."""
        return self._plan.assembly()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; shapes and bytes are numbers."""
        facts = asdict(self.recipe)
        del facts["place"]
        return {"target": self.target.name, "code_bytes": len(self.code), **facts}

    def files(self) -> dict[str, str | bytes]:
        """LLVM IR, assembly, object code, and how it is called, by file name."""
        n = self.name
        return {f"{n}.ll": self.source, f"{n}.s": self.assembly, f"{n}.o": self.code, f"{n}.json": self.to_json()}

    def __str__(self) -> str:
        return f"{self.name} for {self.target.name}: {len(self.code)} bytes of object code, entry {self.recipe.entry}"


def plain(x: Any) -> Any:
    """A number of numpy's as Python's, anything else as text: for JSON."""
    return x.item() if isinstance(x, np.generic) else str(x)
