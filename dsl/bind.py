"""From the shapes of a call's arguments to the values of the program's symbolic sizes."""

from __future__ import annotations

from collections.abc import Sequence

from dsl.algebra import mentioned, sources
from dsl.dim import Term, Var
from dsl.errors import ShapeError
from dsl.expr import Compute, Input
from dsl.program import Program

Shape = Sequence[int]


def bind_sizes(program: Program, shapes: Sequence[Shape]) -> dict[Var, int]:
    """The value of every symbolic size, from the shapes of the arguments in parameter order.

    Entries that are a plain dim bind it; an entry with one dim still unknown (``2*N``) is solved for it; the others are checked.

    Raises:
        ShapeError: a wrong number of arguments or rank, two parameters that disagree about a dim, an entry that does not
            match its expression, or a dim that no parameter determines. The message names parameter and symbol.
    """
    if len(shapes) != len(program.inputs):
        raise ShapeError(f"{program.name} takes {len(program.inputs)} arguments, {len(shapes)} were given",
                         f"its parameters are {', '.join(map(str, program.inputs)) or 'none'}", loc=program.loc)
    env: dict[Var, int] = {}
    origin: dict[Var, str] = {}
    for t, shape in zip(program.inputs, shapes):
        _check_rank(t, shape)
        for n, (size, got) in enumerate(zip(t.shape, shape)):
            _bind_plain(t, n, size, int(got), env, origin)
    entries = [(t, n, size, int(got)) for t, shape in zip(program.inputs, shapes) for n, (size, got) in enumerate(zip(t.shape, shape))]
    while any(_solve(t, n, size, got, env, origin) for t, n, size, got in entries):
        pass
    for t, n, size, got in entries:
        _check_entry(t, n, size, got, env, origin)
    _check_complete(program, env)
    return env


def _show(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _check_rank(t: Input, shape: Shape) -> None:
    if len(shape) != t.ndim:
        raise ShapeError(f"`{t.name}` has {len(shape)} dimensions, its declaration {t.ndim}",
                         f"it is declared {t}; the argument has shape {_show(shape)}", loc=t.loc)


def _plain(size: Term) -> Var | None:
    """The dim that ``size`` is, when it is nothing else."""
    if size.const == 0 and len(size.parts) == 1:
        (mono, c), = size.parts.items()
        if c == 1 and len(mono) == 1 and isinstance(mono[0], Var):
            return mono[0]
    return None


def _bind_plain(t: Input, n: int, size: Term, got: int, env: dict[Var, int], origin: dict[Var, str]) -> None:
    dim = _plain(size)
    if dim is None:
        return
    if dim not in env:
        env[dim], origin[dim] = got, f"dimension {n} of `{t.name}`"
    elif env[dim] != got:
        raise ShapeError(f"`{t.name}` and {origin[dim]} disagree about {dim}",
                         f"dimension {n} of `{t.name}` is {got}, but {dim} = {env[dim]} from {origin[dim]}\nit is declared {t}", loc=t.loc)


def _solve(t: Input, n: int, size: Term, got: int, env: dict[Var, int], origin: dict[Var, str]) -> bool:
    """Bind the one unknown of an affine entry; whether it did."""
    unknown = size.vars - set(env)
    if len(unknown) != 1:
        return False
    (dim,) = unknown
    known = size.subs({v: env[v] for v in size.vars if v in env})
    coef = known.coef(dim)
    rest = known - _var(dim) * coef if coef else known
    if not coef or not rest.is_const:
        return False
    value, left = divmod(got - rest.const, coef)
    if left or value < 0:
        given = _sources(size, env, origin)
        raise ShapeError(f"dimension {n} of `{t.name}` is {got}, which is not {size} for any {dim}{'; ' if given else ''}{given}",
                         f"it is declared {t}", loc=t.loc)
    env[dim], origin[dim] = value, f"dimension {n} of `{t.name}`"
    return True


def _var(v: Var) -> Term:
    return Term({(v,): 1}, 0)


def _check_entry(t: Input, n: int, size: Term, got: int, env: dict[Var, int], origin: dict[Var, str]) -> None:
    unknown = sorted(v.name for v in size.vars - set(env))
    if unknown:
        raise ShapeError(f"{' and '.join(unknown)} cannot be determined from the arguments",
                         f"dimension {n} of `{t.name}` is declared {size} and is {got}: one equation for {' and '.join(unknown)}",
                         f"give one parameter a dimension that is just {unknown[0]}", loc=t.loc)
    want = int(size.eval(env))
    if want != got:
        sources = _sources(size, env, origin)
        reason = f"it is declared {size} = {want}" if not size.is_const else f"it is declared {t}"
        raise ShapeError(f"dimension {n} of `{t.name}` is {got}, not {want}", reason + (f", with {sources}" if sources else ""), loc=t.loc)


def _sources(size: Term, env: dict[Var, int], origin: dict[Var, str]) -> str:
    return "; ".join(f"{v} = {env[v]} from {origin[v]}" for v in sorted(size.vars, key=lambda v: v.uid) if v in env)


def _check_complete(program: Program, env: dict[Var, int]) -> None:
    for c in program.computes:
        missing = sorted((v for v in sizes_of(c) if v not in env), key=lambda v: v.uid)
        if missing:
            raise ShapeError(f"{missing[0]} cannot be determined from the arguments",
                             f"{c.name} uses it, but no parameter has it in its shape",
                             f"give a parameter a dimension {missing[0]}, or use a number", loc=c.loc)


def sizes_of(c: Compute) -> set[Var]:
    """Every symbolic size that a definition mentions: in its shape, its indices, the shapes it reads and the extents of its reductions."""
    shapes = [n.vars for t in (c, *sources(c.body)) for n in t.shape]
    return {v for v in mentioned(c.body).union(*shapes) if v.kind == "dim"}
