"""What a command names: a kernel, a step or a function in a file or module, or a peer as an expression."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional

from dlc.jit import Jit, jit
from dlc.kernel import Kernel
from dsl.errors import UserError
from dsl.loc import UNKNOWN, Loc

_ADDRESS = re.compile(r"^(?P<place>[\w./~-]+):(?P<name>\w+(\.\w+)*)$")


def find_kernel(address: str) -> Kernel:
    """The kernel at ``file.py:name`` or ``package.module:name``; the name may be left out where there is one kernel only.

    Attributes may follow: ``file.py:name.vjp`` is the derived backward.

    Raises:
        UserError: there is no such file, module or kernel, or the file cannot be run.
    """
    place, _, name = address.partition(":")
    module = _module(place)
    kernels = {n: k for n, k in vars(module).items() if isinstance(k, Kernel)}
    if not name and len(kernels) == 1:
        return next(iter(kernels.values()))
    listed = f"its kernels are {', '.join(kernels)}" if kernels else "it has no kernels: functions under @dlc.kernel"
    if not name:
        raise UserError(f"which kernel of {place}?", listed, f"name one: {place}:{next(iter(kernels), 'name')}", UNKNOWN)
    found = _attribute(module, name)
    if not isinstance(found, Kernel):
        raise UserError(f"{place} has no kernel {name!r}", listed, f"{place}:{next(iter(kernels), 'name')}", UNKNOWN)
    return found


def find_step(address: str, arguments: str | None) -> tuple[Jit, Sequence[Any]] | None:
    """The jitted function at ``file.py:name`` with its arguments; None where a kernel is there, or nothing.

    Args:
        address: of the step; a plain function is taken too where ``arguments`` are named.
        arguments: a name in the same file: of a tuple, or of a function that returns one. None for a step without arguments.

    Raises:
        UserError: the file cannot be run, or gives no arguments under that name.
    """
    place, _, name = address.partition(":")
    module = _module(place)
    found = _attribute(module, name) if name else None
    if isinstance(found, Kernel) or not (isinstance(found, Jit) or (callable(found) and arguments)):
        return None
    step = found if isinstance(found, Jit) else jit(found)
    if arguments is None:
        if signature(step.fn).parameters:
            raise UserError(f"{name} takes arguments", f"its parameters are {', '.join(signature(step.fn).parameters)}",
                            "name what gives them in the same file: --arguments batch", UNKNOWN)
        return step, ()
    given = _attribute(module, arguments)
    given = given() if callable(given) else given
    if not isinstance(given, (tuple, list)):
        raise UserError(f"{arguments} of {place} gives no arguments: {type(given).__name__}",
                        remedy="a tuple of arrays, or a function that returns one", loc=UNKNOWN)
    return step, given


def find_peer(text: str | None, kernel: Kernel) -> Callable[..., Any] | None:
    """What ``--against`` names: a function at ``file.py:name`` or ``package.module:name``, else a Python expression.

    The expression sees ``torch``, ``F`` (torch.nn.functional), ``math`` and the kernel's parameters by name.

    Raises:
        UserError: there is no such function, or the expression is not one.
    """
    if text is None:
        return None
    match = _ADDRESS.match(text)
    if match:
        found = _attribute(_module(match["place"]), match["name"])
        if not callable(found):
            raise UserError(f"there is no function at {text}", loc=UNKNOWN)
        return found
    try:
        code = compile(text, "--against", "eval")
    except SyntaxError as e:
        raise UserError(f"--against is not an expression: {text}", str(e),
                        "a function (file.py:name), or an expression such as torch.softmax(x, 1)", UNKNOWN) from e
    scope = {"torch": torch, "F": torch.nn.functional, "math": importlib.import_module("math")}
    names = [t.name for t in kernel.program.inputs]
    return lambda *args: eval(code, scope, dict(zip(names, args)))  # noqa: S307  (the user's own expression)


def _attribute(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _module(place: str) -> ModuleType:
    path = Path(place).expanduser()
    try:
        if place.endswith(".py") or path.is_file():
            return _from_file(path)
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(place.replace("/", "."))
        finally:
            sys.path.remove(str(Path.cwd()))
    except UserError:
        raise
    except ModuleNotFoundError as e:
        if e.name and place.split(".")[0] == e.name.split(".")[0]:
            raise UserError(f"there is no file or module {place}", remedy="file.py:kernel, or package.module:kernel", loc=UNKNOWN) from e
        raise _broken(place, e) from e
    except Exception as e:
        raise _broken(place, e) from e


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"there is no file {path}", loc=UNKNOWN)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module


def _broken(place: str, e: Exception) -> UserError:
    """The user's own error, told with the user's own line."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename != __file__ and "importlib" not in f.filename]
    at = Loc(frames[-1].filename, frames[-1].lineno or 0) if frames else UNKNOWN
    if isinstance(e, SyntaxError) and e.filename:
        at = Loc(e.filename, e.lineno or 0)
    return UserError(f"{place} cannot be run: {type(e).__name__}", str(e), loc=at)
