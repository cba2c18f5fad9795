"""What the GPU emitter hands over: Triton source text and every fact needed to compile, check and launch it.

A :class:`TritonArtifact` is one or more kernels launched in order over tensors and sizes known by name: the same
name in two kernels is the same tensor. Values only; nothing here imports Triton or touches a device.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dsl.dim import Atom, MinMax, Mod, Term, Var
from dsl.dtype import Dtype
from dsl.errors import InternalError

Formula = str | int
_CALLS: dict[str, Callable[..., int]] = {"cdiv": lambda a, b: -(-a // b), "min": min, "max": max}
_OPS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}


@dataclass(frozen=True)
class Arg:
    """One run-time argument of a kernel; make it with :meth:`pointer` or :meth:`scalar`."""

    name: str
    kind: str  # "pointer", or the dtype name of a scalar
    dtype: Dtype
    access: str = "r"  # of a pointer: "r", "w" (writes every element, reads none first) or "rw"
    multiple: int = 1  # promised divisor: of the address in bytes, or of an integer's value

    @staticmethod
    def pointer(name: str, dtype: Dtype, access: str = "r", multiple: int = 16) -> Arg:
        """A tensor argument whose first element sits at an address divisible by ``multiple`` bytes."""
        return Arg(name, "pointer", dtype, access, multiple)

    @staticmethod
    def scalar(name: str, dtype: Dtype, multiple: int = 1) -> Arg:
        """A number argument; for integers ``multiple`` is a divisor the caller promises."""
        return Arg(name, dtype.name, dtype, "r", multiple)

    @property
    def is_pointer(self) -> bool:
        """True for a tensor argument."""
        return self.kind == "pointer"


@dataclass(frozen=True)
class TritonKernel:
    """One ``@triton.jit`` function: its module text, signature order, compile-time constants and launch shape."""

    name: str
    source: str
    args: tuple[Arg, ...]
    constexprs: dict[str, int] = field(default_factory=dict, hash=False)
    grid: tuple[Formula, ...] = (1,)
    num_warps: int = 4
    num_stages: int = 2
    num_ctas: int = 1
    fp_fusion: bool = True  # may a*b+c become one fused operation
    max_registers: int | None = None
    options: tuple[tuple[str, int], ...] = ()  # further compiler options, such as ("waves_per_eu", 2) on AMD

    def grid_of(self, sizes: Mapping[str, int]) -> tuple[int, int, int]:
        """The number of programs along the three grid axes for these sizes."""
        x, y, z, *_ = (*(evaluate(g, {**sizes, **self.constexprs}) for g in self.grid), 1, 1, 1)
        return x, y, z

    @property
    def key(self) -> str:
        """A digest of everything that decides the compiled code (the grid does not)."""
        facts = (self.source, self.name, self.args, sorted(self.constexprs.items()), self.num_warps, self.num_stages)
        more = (self.num_ctas, self.fp_fusion, self.max_registers, self.options)
        return hashlib.sha256(repr((facts, more)).encode()).hexdigest()


@dataclass(frozen=True)
class Workspace:
    """A scratch tensor shared by the kernels of an artifact."""

    name: str
    dtype: Dtype
    shape: tuple[Formula, ...]
    zero: bool = False  # must hold zeros before the first kernel

    def shape_of(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The extents for these sizes."""
        return tuple(evaluate(f, sizes) for f in self.shape)


@dataclass(frozen=True)
class TritonArtifact:
    """Kernels launched in order on one stream, and the scratch tensors they share.

    ``error`` names the argument, an i32 tensor of one zero, that receives the code of a failed run-time check; empty without checks.
    """

    kernels: tuple[TritonKernel, ...]
    workspaces: tuple[Workspace, ...] = ()
    error: str = ""

    def pointers(self) -> dict[str, Arg]:
        """Every tensor by name; its access is that of the whole sequence: written before read is ``w``."""
        found: dict[str, Arg] = {}
        for kernel in self.kernels:
            for arg in kernel.args:
                if arg.is_pointer:
                    found[arg.name] = _join(found[arg.name], arg) if arg.name in found else arg
        return found


def _join(first: Arg, second: Arg) -> Arg:
    """The access of two kernels in a row on one tensor."""
    if first.access in ("w", "rw") or second.access == "r":
        return first
    return Arg(first.name, first.kind, first.dtype, "rw", first.multiple)


def evaluate(formula: Formula, values: Mapping[str, int]) -> int:
    """An integer formula over named sizes: ``+ - * // %``, ``cdiv``, ``min``, ``max`` and parentheses."""
    if isinstance(formula, int):
        return formula
    try:
        return _value(ast.parse(formula, mode="eval").body, values)
    except (SyntaxError, KeyError, ValueError, ZeroDivisionError) as error:
        raise InternalError(f"cannot evaluate {formula!r}", f"{type(error).__name__}: {error}; known sizes: {dict(values)}") from error


def _value(node: ast.expr, values: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPS:
            return _OPS[type(op)](_value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
            return _CALLS[name](*(_value(a, values) for a in args))
    raise ValueError(f"{ast.unparse(node)} is not part of the formula language")


def formula(t: Term, names: Mapping[Var, str]) -> Formula:
    """An index term as a formula over sizes."""
    if t.is_const:
        return t.const
    parts = [" * ".join([*([str(c)] if c != 1 else []), *(_formula_atom(a, names) for a in mono)]) for mono, c in t.parts.items()]
    return " + ".join([*parts, str(t.const)] if t.const else parts).replace("+ -", "- ")


def _formula_atom(a: Atom, names: Mapping[Var, str]) -> str:
    if isinstance(a, Var):
        return names[a]
    if isinstance(a, MinMax):
        return f"{a.which}({formula(a.a, names)}, {formula(a.b, names)})"
    return f"(({formula(a.num, names)}) {'%' if isinstance(a, Mod) else '//'} ({formula(a.den, names)}))"
