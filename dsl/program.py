"""Tracing: from a Python function over tensors to a :class:`Program`, the unit that is checked, scheduled and compiled."""

from __future__ import annotations

import inspect
import linecache
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dsl.sizes  # noqa: F401  (what sizes are beside numbers)
from dsl.algebra import inputs_and_computes, substitute, transform
from dsl.carrier import Carrier
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype, TensorType
from dsl.errors import IndexingError, ShapeError, UserError
from dsl.expr import Compute, Expr, Index, Input, Reduce, Scan, Tensor, as_expr, cast, index, reduce
from dsl.loc import Loc, caller_locals, here


@dataclass(frozen=True)
class Program:
    """A traced kernel.

    Attributes:
        name: the user's function name.
        inputs: parameters in call order; scalars are tensors of rank 0.
        outputs: the tensors returned, in order.
        single: whether the function returned one tensor rather than a tuple.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Compute, ...]
    single: bool = True
    loc: Loc | None = field(default=None, compare=False)

    @property
    def dims(self) -> tuple[Var, ...]:
        """The symbolic sizes, in order of first appearance in the inputs' shapes."""
        out: dict[Var, None] = {}
        for t in (*self.inputs, *self.outputs):
            for s in t.shape:
                for v in sorted(s.vars, key=lambda v: v.uid):
                    out.setdefault(v)
        return tuple(out)

    @property
    def computes(self) -> list[Compute]:
        """Every definition the outputs depend on, in dependence order."""
        return inputs_and_computes(self.outputs)[1]

    def specialize(self, sizes: Mapping[Var, int | Term]) -> Program:
        """The same program with sizes replaced by numbers, so that every range is known."""
        env = {v: as_term(n) for v, n in sizes.items()}
        inputs: dict[Tensor, Input] = {t: Input(t.name, tuple(s.subs(env) for s in t.shape), t.dtype, t.loc) for t in self.inputs}
        computes: dict[Tensor, Compute] = {}
        for c in self.computes:
            computes[c] = _specialize_compute(c, env, {**inputs, **computes})
        return Program(self.name, tuple(inputs.values()), tuple(computes[t] for t in self.outputs), self.single, self.loc)


def _specialize_compute(c: Compute, env: Mapping[Var, Term], tensors: Mapping[Tensor, Tensor]) -> Compute:
    axes = tuple(Var(a.name, a.extent.subs(env)) for a in c.axes if a.extent is not None)
    full: dict[Var, Term] = {**env, **{old: as_term(new) for old, new in zip(c.axes, axes)}}
    body = substitute(rebind_axes(c.body, env), full, tensors)
    return Compute(c.name, axes, body, c.loc, c.dtype)


def rebind_axes(body: Expr, env: Mapping[Var, Term]) -> Expr:
    """Give the bound axes of reductions and scans whose extents mention ``env`` new extents (and new identities)."""
    def renew(axes: Sequence[Var]) -> tuple[tuple[Var, ...], dict[Var, Term]]:
        new = tuple(Var(a.name, a.extent.subs(env)) if a.extent is not None and a.extent.vars & set(env) else a for a in axes)
        return new, {a: as_term(b) for a, b in zip(axes, new) if a is not b}

    def one(e: Expr) -> Expr | None:
        if isinstance(e, Reduce):
            axes, env2 = renew(e.axes)
            return Reduce(tuple(substitute(a, env2) for a in e.args), (e.carrier, axes, e.out), e.dtype, e.loc) if env2 else None
        if isinstance(e, Scan):
            (axis,), env2 = renew((e.data[1],))
            return Scan(tuple(substitute(a, env2) for a in e.args), (e.data[0], axis, *e.data[2:]), e.dtype, e.loc) if env2 else None
        return None

    return transform(body, one)


class _Definitions(threading.local):
    open = 0


_definitions = _Definitions()


@contextmanager
def defining() -> Iterator[None]:
    """While a definition is traced: operations without tensors among their arguments (``zeros``, ``arange``) belong to it."""
    _definitions.open += 1
    try:
        yield
    finally:
        _definitions.open -= 1


def is_defining() -> bool:
    """Whether a definition is being traced in this thread."""
    return _definitions.open > 0


# -- what users call -----------------------------------------------------------------------------------------------
def dims(names: str) -> Any:
    """Make symbolic sizes, one per word; a single word gives one size, not a tuple.

    Raises:
        ShapeError: a word is no name, or is there twice.
    """
    words = names.replace(",", " ").split() if isinstance(names, str) else [repr(names)]
    wrong = next((w for n, w in enumerate(words) if not w.isidentifier() or w in words[:n]), None if words else "")
    if wrong is not None:
        raise ShapeError(f"dims({names!r}): {f'`{wrong}` is there twice' if words.count(wrong) > 1 else 'sizes need names'}",
                         remedy='M, N = dlc.dims("M N")')
    out = tuple(index(Var(w, kind="dim")) for w in words)
    return out[0] if len(out) == 1 else out


def as_size(value: Any, what: str = "a size") -> Term:
    """A shape entry - int, symbolic dim or expression of dims - as a term.

    Raises:
        ShapeError: the entry is negative or not an integer.
    """
    if isinstance(value, (Term, Var)):
        return as_term(value)
    if isinstance(value, Index):
        return value.term
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ShapeError(f"{what} must be an integer or a symbolic dim, not {type(value).__name__}", remedy='M = dlc.dims("M")')
    if int(value) < 0:
        raise ShapeError(f"{what} is negative: {int(value)}")
    return as_term(int(value))


def reduce_axis(*bounds: Any, name: str | None = None) -> Index:
    """An axis to reduce over: ``reduce_axis(K)`` runs over ``[0, K)``, ``reduce_axis(lo, hi)`` over ``[lo, hi)``."""
    lo, hi = (0, bounds[0]) if len(bounds) == 1 else bounds
    start, stop = as_size(lo, "a lower bound") if not isinstance(lo, int) else as_term(lo), as_size(hi, "an extent")
    return index(start + as_term(Var(name or _assigned_name() or "k", stop - start)))


def _assigned_name() -> str | None:
    """The name on the left of the user's assignment, for readable loops: ``kk = reduce_axis(K)``."""
    text = here().text
    left = text.split("=", 1)[0].strip() if "reduce_axis" in text and "=" in text else ""
    return left if left.isidentifier() else None


def axis_of(value: Any) -> Var:
    """The axis variable behind what ``reduce_axis`` returned.

    Raises:
        IndexingError: the value is not a plain axis.
    """
    if isinstance(value, Var):
        return value
    if isinstance(value, Index):
        axes = [v for v in value.term.vars if v.kind == "axis"]
        if len(axes) == 1 and value.term.coef(axes[0]) == 1:
            return axes[0]
    raise IndexingError(f"`{value}` is not a reduction axis", remedy="k = dlc.reduce_axis(K), then dlc.sum(x[i, k], k)")


def compute(shape: Any, fn: Callable[..., Any], name: str | None = None, dtype: Dtype | None = None,
            axes: Sequence[str] | None = None) -> Any:
    """Define a tensor by its element: ``fn(i, j, ...)`` at ``(i, j, ...)``.

    Args:
        shape: ints, symbolic dims, or expressions of them.
        fn: takes one index per dimension; returns an expression or a tuple of them (several tensors of one shape).
        name: the tensor's name in printed code; taken from the function's name when it has one.
        dtype: the element dtype; the body is cast to it.
        axes: names of the indices in printed code; the parameter names of ``fn`` when omitted.

    Raises:
        IndexingError: the body uses an axis that nothing binds.
    """
    sizes = tuple(as_size(s) for s in (shape if isinstance(shape, (tuple, list)) else (shape,)))
    bound = tuple(Var(n, s) for n, s in zip(axes or _axis_names(fn, len(sizes)), sizes))
    loc = here()
    result = fn(*(index(a) for a in bound))
    bodies = result if isinstance(result, tuple) else (result,)
    label = name or (fn.__name__ if fn.__name__ != "<lambda>" else "t")
    out = tuple(_close(label if len(bodies) == 1 else f"{label}{n}", bound, b, dtype, loc) for n, b in enumerate(bodies))
    return out if isinstance(result, tuple) else out[0]


def _close(name: str, axes: tuple[Var, ...], body: Any, dtype: Dtype | None, loc: Loc) -> Compute:
    if isinstance(body, Tensor):
        raise ShapeError(f"the body of {name} is a tensor, not an element", remedy="index it: t[i, j]", loc=loc)
    e = as_expr(body) if dtype is None else cast(as_expr(body), dtype)
    unbound = [v for v in e.free if v.kind == "axis" and v not in axes]
    if unbound:
        raise IndexingError(f"axis `{unbound[0]}` is used in {name} but nothing binds it",
                          f"the body is `{e}`", f"reduce over it: dlc.sum(..., {unbound[0]})", loc)
    return Compute(name, axes, e, loc)


def _axis_names(fn: Callable[..., Any], rank: int) -> list[str]:
    spec = inspect.signature(fn)
    if any(p.kind is p.VAR_POSITIONAL for p in spec.parameters.values()):
        return [f"i{n}" for n in range(rank)]
    names = [p.name for p in spec.parameters.values() if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(names) != rank:
        raise ShapeError(f"the body takes {len(names)} indices but the shape has {rank} dimensions",
                         remedy="one parameter per dimension: compute((M, N), lambda i, j: ...)")
    return names


def reduce_over(carrier: Carrier, args: tuple[Any, ...], axes: tuple[Any, ...], out: int = 0) -> Expr:
    """Reduce scalar expressions over axes made by :func:`reduce_axis`."""
    if not axes:
        raise IndexingError(f"{carrier} needs at least one reduction axis", remedy="k = dlc.reduce_axis(K); dlc.sum(x[i, k], k)")
    return reduce(carrier, args, tuple(axis_of(a) for a in axes), out)


def trace(fn: Callable[..., Any], statics: Mapping[str, Any] | None = None) -> Program:
    """Run a kernel function once on symbolic inputs.

    Args:
        fn: every positional parameter is annotated ``f32[M, N]`` (a tensor) or ``f32`` (a scalar); keyword-only
            parameters are plain Python values, fixed per compiled kernel.
        statics: values for the keyword-only parameters; their defaults otherwise.

    Raises:
        UserError: a missing annotation, or a result that is not a tensor or tuple of tensors.
    """
    loc = Loc(fn.__code__.co_filename, _line(fn), fn.__name__)
    inputs = tuple(_input(p, hint, loc) for p, hint in _annotations(fn, loc))
    with defining():
        result = fn(*inputs, **(statics or {}))
    outs = result if isinstance(result, (tuple, list)) else (result,)
    if not outs:
        raise UserError(f"{fn.__name__} returned no tensor", remedy="return what dlc.compute or an operator gave", loc=loc)
    taken: set[Tensor] = set()
    named = tuple(_output(o, f"out{n}" if len(outs) > 1 else "out", taken, fn, loc) for n, o in enumerate(outs))
    return Program(fn.__name__, inputs, named, not isinstance(result, (tuple, list)), loc)


def _line(fn: Callable[..., Any]) -> int:
    """The line of a function's ``def``, below its decorators."""
    first: int = fn.__code__.co_firstlineno
    texts = ((n, linecache.getline(fn.__code__.co_filename, n).strip()) for n in range(first, first + 20))
    return next((n for n, text in texts if text.startswith("def ")), first)


def _annotations(fn: Callable[..., Any], loc: Loc) -> list[tuple[str, Any]]:
    scope = {**fn.__globals__, **caller_locals()}
    scope.update(zip(fn.__code__.co_freevars, (_cell(c) for c in fn.__closure__ or ())))
    out = []
    for p in inspect.signature(fn).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            continue
        hint = p.annotation
        if hint is p.empty:
            raise UserError(f"parameter `{p.name}` of {fn.__name__} has no type",
                            remedy=f"annotate it: {p.name}: f32[M, N], or f32 for a scalar", loc=loc)
        out.append((p.name, _evaluated(hint, scope, p.name, loc) if isinstance(hint, str) else hint))
    return out


def _evaluated(hint: str, scope: dict[str, Any], name: str, loc: Loc) -> Any:
    """A postponed annotation (``from __future__ import annotations``) as the object it names."""
    try:
        return eval(hint, scope)  # noqa: S307  (the user's own annotation)
    except NameError as e:
        raise UserError(f"the type `{hint}` of parameter `{name}` cannot be resolved", str(e),
                        "define the names it uses at module level, or trace the kernel where they are visible", loc) from e


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _input(name: str, hint: Any, loc: Loc) -> Input:
    if isinstance(hint, Dtype):
        return Input(name, (), hint, loc)
    if isinstance(hint, TensorType):
        return Input(name, tuple(as_size(s, f"a size of {name}") for s in hint.shape), hint.dtype, loc)
    raise UserError(f"parameter `{name}` has type {hint!r}", remedy="a dlc dtype: f32[M, N] for a tensor, f32 for a scalar", loc=loc)


def _output(value: Any, name: str, taken: set[Tensor], fn: Callable[..., Any], loc: Loc) -> Compute:
    """The definition to return; an input, or a tensor returned twice, is copied so that every output is a definition of its own."""
    if isinstance(value, Expr):
        return _close(name, (), value, None, loc)
    if not isinstance(value, Tensor):
        remedy = "dlc.equal(x, y) compares elements" if isinstance(value, bool) else "return what dlc.compute or an operator gave"
        raise UserError(f"{fn.__name__} returned a {type(value).__name__}, not a tensor", remedy=remedy, loc=loc)
    if isinstance(value, Compute) and value not in taken:
        taken.add(value)
        return value
    axes = tuple(Var(f"i{n}", s) for n, s in enumerate(value.shape))
    return Compute(name, axes, value.read(*(index(a) for a in axes)), value.loc, value.dtype)
