"""Arguments for a kernel on the command line: shapes from ``--shape`` and ``--dim``, random data of the declared dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dlc.kernel import Kernel
from dlc.runtime.arguments import torch_dtype
from dsl.algebra import reads, walk
from dsl.dim import Var
from dsl.errors import ArgumentError, ShapeError
from dsl.expr import Expr, Input, Read
from dsl.loc import UNKNOWN
from dsl.program import Program

_INTEGERS = 10  # integers that index nothing are below this


def shapes(kernel: Kernel, given: Sequence[str], dims: Sequence[str]) -> list[tuple[int, ...]]:
    """The shape of every parameter.

    Args:
        kernel: whose parameters.
        given: ``name=64,128`` each.
        dims: ``M=512`` each.

    Raises:
        ArgumentError: a word that is not of that form, or names nothing.
        ShapeError: a size that nothing determines.
    """
    inputs = kernel.program.inputs
    whole = {name: _numbers(text, "--shape", name) for name, text in _pairs(given, "--shape", [t.name for t in inputs]).items()}
    sizes = {name: _numbers(text, "--dim", name)[0] for name, text in _pairs(dims, "--dim", [v.name for v in kernel.program.dims]).items()}
    env: dict[Var, int] = {v: sizes[v.name] for v in kernel.program.dims if v.name in sizes}
    for t in inputs:
        for size, got in zip(t.shape, whole.get(t.name, ())):
            for v in size.vars:
                if size == v.extent or (len(size.vars) == 1 and size.coef(v) == 1 and size.const == 0):
                    env.setdefault(v, got)
    missing = [v.name for v in kernel.program.dims
               if v not in env and any(v in s.vars for t in inputs if t.name not in whole for s in t.shape)]
    if missing:
        raise ShapeError(f"the size {missing[0]} of {kernel.__name__} is not given", f"its parameters are {', '.join(map(str, inputs))}",
                         " ".join(f"--dim {name}=64" for name in missing)
                         + f", or --shape {inputs[0].name}=" + ",".join("64" for _ in inputs[0].shape), UNKNOWN)
    return [whole[t.name] if t.name in whole else tuple(int(s.eval(env)) for s in t.shape) for t in inputs]


def empty(kernel: Kernel, given: Sequence[str], dims: Sequence[str]) -> list[torch.Tensor]:
    """Arguments without data, for what only needs their shapes."""
    return [torch.empty(s, dtype=torch_dtype(t.dtype), device="meta") for s, t in zip(shapes(kernel, given, dims), kernel.program.inputs)]


def random(kernel: Kernel, given: Sequence[str], dims: Sequence[str], values: Sequence[str] = (), seed: int = 0) -> list[torch.Tensor]:
    """Arguments of random data: floats normally distributed, integers in range where they index something, else below ten.

    Args:
        kernel: whose parameters.
        given: see :func:`shapes`.
        dims: see :func:`shapes`.
        values: ``name=1.5`` each, for parameters that are one number throughout.
        seed: of the data.

    Raises:
        ArgumentError: a word that is not of its form, or names nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    fixed = _pairs(values, "--value", [t.name for t in kernel.program.inputs])
    sized = shapes(kernel, given, dims)
    ranges = _index_ranges(kernel.program.specialize(_sizes(kernel.program, sized)))
    return [_data(t, s, generator, fixed.get(t.name), ranges.get(n, _INTEGERS))
            for n, (t, s) in enumerate(zip(kernel.program.inputs, sized))]


def _sizes(program: Program, sized: Sequence[Sequence[int]]) -> dict[Var, int]:
    env: dict[Var, int] = {}
    for t, shape in zip(program.inputs, sized):
        for size, got in zip(t.shape, shape):
            for v in size.vars:
                if len(size.vars) == 1 and size.coef(v) == 1 and size.const == 0:
                    env[v] = got
    return env


def _data(t: Input, shape: tuple[int, ...], generator: torch.Generator, fixed: str | None, below: int) -> torch.Tensor:
    dtype = torch_dtype(t.dtype)
    if fixed is not None:
        try:
            return torch.full(shape, float(fixed), dtype=torch.float64).to(dtype)
        except ValueError as e:
            raise ArgumentError(f"--value {t.name}={fixed}", f"{fixed!r} is not a number", loc=UNKNOWN) from e
    if t.dtype.is_float:
        return torch.randn(shape, generator=generator).to(dtype)
    if t.dtype.name == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    return torch.randint(0, max(below, 1), shape, generator=generator).to(dtype)


def _index_ranges(program: Program) -> dict[int, int]:
    """Position of each input that is used as an index -> the least size of what it indexes."""
    position = {t: n for n, t in enumerate(program.inputs)}
    out: dict[int, int] = {}
    for c in program.computes:
        for r in (e for e in walk(c.body) if isinstance(e, Read) and e.args):
            for index, size in zip(r.indices, r.tensor.shape):
                for t in _sources(index) if isinstance(index, Expr) else ():
                    if t in position and size.is_const:
                        out[position[t]] = min(out.get(position[t], size.const), size.const)
    return out


def _sources(index: Expr) -> set[Input]:
    """The inputs an index is read from."""
    return {r.tensor for r in reads(index) if isinstance(r.tensor, Input)}


def _pairs(words: Sequence[str], option: str, names: Sequence[str]) -> Mapping[str, str]:
    out: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ArgumentError(f"{option} {word}", remedy=f"{option} {names[0] if names else 'name'}=64", loc=UNKNOWN)
        if name not in names:
            raise ArgumentError(f"{option} {word}: there is no {name!r}", f"there are {', '.join(names) or 'none'}", loc=UNKNOWN)
        out[name] = value
    return out


def _numbers(text: str, option: str, name: str) -> tuple[int, ...]:
    words = [w for w in text.replace("x", ",").split(",") if w]
    if not words or not all(w.isdecimal() for w in words):
        raise ArgumentError(f"{option} {name}={text}", "sizes are whole numbers", f"{option} {name}=64", UNKNOWN)
    return tuple(int(w) for w in words)
