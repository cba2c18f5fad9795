"""Compiled kernels as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dlc.kernel import Kernel
from dsl.errors import LaunchError
from dsl.loc import UNKNOWN


def write_compiled(kernel: Kernel, args: Sequence[torch.Tensor], target: str, out: Path | None) -> tuple[dict[str, Any], str, list[str]]:
    """Compile for a target and write every form of it to a directory.

    Args:
        kernel: what to compile.
        args: its arguments; their data is not looked at.
        target: ``cpu`` or the name of a target.
        out: the directory; None to write nothing.

    Returns:
        The facts as plain data, the same as text, and the names of the files.

    Raises:
        TargetError: an unknown target, or one the kernel does not fit.
        LaunchError: the directory cannot be written.
    """
    name = kernel.__name__
    if target == "cpu":
        plan = kernel.plan(*args)
        files: dict[str, str | bytes] = {f"{name}.ll": plan.module.text, f"{name}.s": plan.assembly(), f"{name}.o": plan.object_code}
        facts: dict[str, Any] = {"name": name, "target": plan.request.target.name, "entry": plan.module.entry,
                                 "code_bytes": len(plan.object_code)}
        text = f"{name} for {facts['target']}: {facts['code_bytes']} bytes of object code, entry {facts['entry']}"
        return facts, text, _write(files, out)
    made = kernel.compile(target, *args)
    return made.as_dict(), str(made), [] if out is None else [str(p) for p in made.save(out)]


def _write(files: Mapping[str, str | bytes], out: Path | None) -> list[str]:
    if out is None:
        return []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as e:
        raise LaunchError(f"cannot write to {out}", str(e), loc=UNKNOWN) from e
    return [str(out / name) for name in files]
