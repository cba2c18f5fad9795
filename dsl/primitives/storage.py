"""Primitives on what is kept in memory: copies of operands and results, their layout and dtype, and factors kept apart."""

from __future__ import annotations

import ast
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dsl import dtype as dtypes
from dsl.algebra import reads, substitute, substitute_values, transform
from dsl.dim import Term, Var, as_term, show
from dsl.dtype import Dtype
from dsl.errors import ScheduleError
from dsl.expr import Cast, Compute, Const, Expr, Input, Op, Read, Reduce, Scan, Tensor, cast, const, op
from dsl.nest import Nest, Stage
from dsl.opset import PRECISIONS
from dsl.primitives.bodies import moved_nest, unique_stage, with_bodies
from dsl.primitives.placement import compute_at, compute_inline, compute_root, merge
from dsl.primitives.record import primitive
from dsl.primitives.reduction import neutral_input, rfactor
from dsl.widen import contains

_BINARY: dict[type[ast.operator], Callable[[Term, Term], Term]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
DTYPES: dict[str, Dtype] = {d.name: d for d in vars(dtypes).values() if isinstance(d, Dtype)}


# -- copies of operands --------------------------------------------------------------------------------------------
def cache_read(nest: Nest, consumer: str, tensor: Tensor | str, name: str = "", layout: Sequence[int] | None = None,
               dtype: Dtype | None = None, only: Read | None = None) -> tuple[Nest, str]:
    """Read a tensor through a copy: a new map stage, a root until it is placed.

    before::

        y: for i: for k: y[i] += f(x[i, k])

    after ``cache_read(y, x)``::

        x.copy: for x0: for x1: x.copy[x0, x1] = x[x0, x1]
        y: for i: for k: y[i] += f(x.copy[i, k])

    Placed at a loop of ``y`` with compute_at, it holds just the elements that one round reads.

    Args:
        nest: the nest.
        consumer: the stage that shall read the copy.
        tensor: what is copied, or its name (see :func:`tensor_name`).
        name: the copy's stage name; made from the tensor's when empty.
        layout: order of the copy's storage dimensions, a permutation of the tensor's; row-major when omitted.
        dtype: what the elements are converted to on the way; the tensor's when None.
        only: the one read that shall go through the copy; every read of the tensor when None.

    Returns:
        The new nest and the copy's stage name.

    Raises:
        ScheduleError: the stage does not read the tensor, or reads it at places that depend on data.
    """
    called = tensor if isinstance(tensor, str) else tensor_name(nest, tensor)
    sources = _reads_of(nest[consumer], find_tensor(nest, consumer, called))
    which = None if only is None else next(n for n, r in enumerate(sources) if r is only)
    return _cache_read(nest, consumer, called, name, None if layout is None else list(layout), None if dtype is None else dtype.name, which)


def _cache_read(nest: Nest, consumer: str, tensor: str, name: str, layout: list[int] | None, dtype: str | None,
                only: int | None) -> tuple[Nest, str]:
    c = nest[consumer]
    source = find_tensor(nest, consumer, tensor)
    if only is None and any(isinstance(i, Expr) for r in _reads_of(c, source) for i in r.indices):
        raise ScheduleError(f"cache_read({tensor!r}): {consumer} reads it at places that depend on data",
                            "the region that a round needs is not known", "let it be read where it is")
    unique = unique_stage(nest, name or f"{source.name}.copy")
    axes = tuple(Var(f"{source.name}{d}", e) for d, e in enumerate(source.shape))
    element = Read((), (source, tuple(as_term(a) for a in axes)), source.dtype, source.loc)
    copy = Compute(unique, axes, cast(element, source.dtype if dtype is None else DTYPES[dtype]), source.loc)
    chosen = None if only is None else _reads_of(c, source)[only]
    new = tuple(Compute(t.name, t.axes, _through(t.body, source, copy, chosen), t.loc, t.dtype) for t in c.tensors)
    moved: dict[Tensor, Tensor] = dict(zip(c.tensors, new))
    stored = tuple(as_term(axes[d]) for d in layout) if layout else None
    stage = Stage(unique, (copy,), axes, order=tuple(a.name for a in axes), layout=stored, notes={"copy": True})
    out: list[Stage] = []
    for s in nest.stages:
        if s.name == consumer:
            out += [stage, replace(c, tensors=new)]
        else:
            out.append(with_bodies(s, moved, {}))
    return moved_nest(nest, tuple(out), moved), unique


_cache_read.__name__, _cache_read.__doc__ = "cache_read", cache_read.__doc__
_cache_read = primitive(_cache_read)


def gather_read(nest: Nest, consumer: str, read: Read, name: str, axes: Sequence[Var]) -> tuple[Nest, str]:
    """Read elements of a tensor through a copy that holds them in the order of some axes; see below."""
    names, only = nest[consumer].axis_names(), [r is read for r in _reads_of(nest[consumer], read.tensor)].index(True)
    return _gather_read(nest, consumer, tensor_name(nest, read.tensor), only, name, [names[v] for v in axes])


def _gather_read(nest: Nest, consumer: str, tensor: str, only: int, name: str, axes: list[str]) -> tuple[Nest, str]:
    """Read elements of a tensor through a copy that holds just those, in the order of the axes that find them.

    before::

        y: for i: for j: for k: y[i, j] += x[k, 2*i] * w[k, j]

    after ``gather_read(y, x, 0, x.read, [i, k])``::

        x.read: for i: for k: x.read[i, k] = x[k, 2*i]
        y: for i: for j: for k: y[i, j] += x.read[i, k] * w[k, j]

    Returns:
        The new nest and the copy's stage name.

    Raises:
        ScheduleError: an axis that the place of an element depends on is missing.
    """
    c = nest[consumer]
    chosen = _reads_of(c, find_tensor(nest, consumer, tensor))[only]
    named = {n: v for v, n in c.axis_names().items()}
    old = [named[x] for x in axes]
    if not chosen.free <= set(old):
        raise ScheduleError(f"gather_read({tensor!r}): its elements are not found by {', '.join(axes)} alone")
    unique = unique_stage(nest, name)
    own = tuple(Var(v.name, v.extent) for v in old)
    copy = Compute(unique, own, substitute(chosen, {v: as_term(o) for v, o in zip(old, own)}), chosen.tensor.loc)
    made = Stage(unique, (copy,), own)
    made = replace(made, order=tuple(made.axis_names().values()))
    through = Read((), (copy, tuple(as_term(v) for v in old)), copy.dtype, chosen.loc)
    new = tuple(Compute(t.name, t.axes, substitute_values(t.body, {chosen: through}), t.loc, t.dtype) for t in c.tensors)
    moved: dict[Tensor, Tensor] = dict(zip(c.tensors, new))
    stages = (x for s in nest.stages for x in ((made, replace(c, tensors=new)) if s.name == consumer else (with_bodies(s, moved, {}),)))
    return moved_nest(nest, tuple(stages), moved), unique


_gather_read.__name__ = "gather_read"
_gather_read = primitive(_gather_read)


def tensor_name(nest: Nest, tensor: Tensor) -> str:
    """What a tensor is called in a trace: a parameter by its name, a definition by its stage's, ``stage.1`` for the second of a stage."""
    s = nest.producer(tensor)
    if s is not None:
        n = s.tensors.index(tensor)
        return f"{s.name}#{n}" if n else s.name
    return f"input {tensor.name}" if any(x.name == tensor.name for x in nest.stages) else tensor.name


def find_tensor(nest: Nest, consumer: str, name: str) -> Tensor:
    """The tensor of a name that a stage reads.

    Raises:
        ScheduleError: it reads no such tensor.
    """
    found = {tensor_name(nest, t): t for t in nest[consumer].sources()}
    found |= {t.name: t for t in found.values() if isinstance(t, Input) and t.name not in found}
    if name not in found:
        raise ScheduleError(f"{consumer} does not read `{name}`", remedy=f"it reads {', '.join(sorted(found)) or 'nothing'}")
    return found[name]


def _reads_of(s: Stage, tensor: Tensor) -> list[Read]:
    return list(dict.fromkeys(r for t in s.tensors for r in reads(t.body) if r.tensor is tensor))


def _through(body: Expr, tensor: Tensor, copy: Compute, only: Read | None) -> Expr:
    """A body that reads the copy; a conversion that the copy has made already is dropped, and one back from an exact one."""
    def one(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor is tensor and (only is None or e is only):
            return cast(Read(e.args, (copy, e.data[1]), copy.dtype, e.loc), e.dtype)
        held = e.args[0].args[0] if isinstance(e, Cast) and isinstance(e.args[0], Cast) else None
        if not isinstance(held, Read) or held.tensor is not copy or not (held.dtype == e.dtype or contains(copy.dtype, tensor.dtype)):
            return None
        return cast(held, e.dtype)

    return transform(body, one)


# -- results -------------------------------------------------------------------------------------------------------
@primitive
def cache_write(nest: Nest, stage: str, name: str = "") -> tuple[Nest, str]:
    """Compute a stage into memory of its own, and copy it from there to where it belongs.

    before::

        y: for i: for k: y[i] += f(i, k)

    after ``cache_write(y)``::

        y.local: for i: for k: y.local[i] += f(i, k)
        y: for i: y[i] = y.local[i]

    The loops, and what is computed in them, go with the computation. Bring the copy into them with reverse_compute_at, or the
    computation into the copy's with compute_at.

    Returns:
        The new nest and the name of the stage that computes.

    Raises:
        ScheduleError: the stage is computed inside another.
    """
    s = nest[stage]
    if s.attach is not None:
        raise ScheduleError(f"cache_write({stage!r}): {stage} is computed inside {s.attach[0]}", "it is written to private memory already")
    made = unique_stage(nest, name or f"{stage}.local")
    own = tuple(Compute(made if n == 0 else f"{made}{n}", t.axes, t.body, t.loc, t.dtype) for n, t in enumerate(s.tensors))
    axes = tuple(Var(v.name, v.extent) for v in s.axes)
    point = tuple(as_term(v) for v in axes)
    copies = tuple(Compute(t.name, axes, Read((), (o, point), o.dtype, t.loc), t.loc, t.dtype) for t, o in zip(s.tensors, own))
    moved: dict[Tensor, Tensor] = dict(zip(s.tensors, copies))
    copy = Stage(stage, copies, axes)
    copy = replace(copy, order=tuple(copy.axis_names().values()))
    out: list[Stage] = []
    for x in nest.stages:
        if x.name == stage:
            out += [replace(s, name=made, tensors=own), copy]
        else:
            x = replace(x, attach=(made, x.attach[1])) if x.attach is not None and x.attach[0] == stage else x
            out.append(with_bodies(x, moved, {}))
    return moved_nest(nest, tuple(out), moved), made


def lay_out(nest: Nest, stage: str, dimensions: Callable[[tuple[Var, ...]], tuple[Term, ...]]) -> Nest:
    """Store a private stage's region in other dimensions; see :func:`store_as`.

    Args:
        nest: the nest.
        stage: an attached stage.
        dimensions: from the stage's axes, counted from the start of its region, to the index in each storage dimension:
            ``lambda i, k: (i // 8, k, i % 8)`` keeps eight rows side by side. No two points may share a place.
    """
    s = nest[stage]
    names = s.axis_names()
    return store_as(nest, stage, [show(as_term(t), lambda v: names[v]) for t in dimensions(s.axes)])


@primitive
def store_as(nest: Nest, stage: str, dimensions: Sequence[str]) -> Nest:
    """Store what a stage computes in other dimensions.

    before::

        w.packed[j, k] at w.packed + 60*j + k

    after ``store_as(w.packed, ["j // 8", "k", "j % 8"])``::

        w.packed[j, k] at w.packed + 480*(j // 8) + 8*k + j % 8

    Args:
        nest: the nest.
        stage: an attached stage, or one in a nest of its own that is no result; for the latter a permutation of its axes.
        dimensions: the index in each storage dimension, in terms of the stage's axes, counted from the start of the region.

    Raises:
        ScheduleError: not terms of the axes, two elements would share a place, or the memory is the caller's.
    """
    s = nest[stage]
    what = f"store_as({stage!r})"
    if nest.is_output(s) and s.attach is None:
        raise ScheduleError(f"{what}: {stage} is a result of the kernel, whose memory the caller owns",
                            remedy="cache_write, then store_as of the computing stage")
    axes = {name: v for v, name in s.axis_names().items() if v in s.axes}
    terms = tuple(_term(d, axes, what) for d in dimensions)
    if s.attach is None and sorted(map(str, terms)) != sorted(axes):
        raise ScheduleError(f"{what}: {stage} is in a nest of its own, where only the order of its axes can change",
                            remedy="name each of its axes once: " + ", ".join(axes))
    clash = _clash(s, axes, terms)
    if clash is not None:
        raise ScheduleError(f"{what}: two elements would lie in one place", clash,
                            "every axis must be recoverable from the dimensions: j // 8 goes with j % 8")
    return nest.with_stage(replace(s, layout=terms))


def _term(text: str, axes: Mapping[str, Var], what: str) -> Term:
    def read(e: ast.expr) -> Term:
        match e:
            case ast.Constant(int(n)):
                return as_term(n)
            case ast.Name() | ast.Attribute() if ast.unparse(e) in axes:
                return as_term(axes[ast.unparse(e)])
            case ast.BinOp(left, operator, right) if type(operator) in _BINARY:
                return _BINARY[type(operator)](read(left), read(right))
        raise ValueError
    try:
        return read(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        raise ScheduleError(f"{what}: `{text}` is not a term of its axes", remedy=f"numbers, + - * // % and {', '.join(axes)}") from None


def _clash(s: Stage, axes: Mapping[str, Var], terms: Sequence[Term]) -> str | None:
    """Two elements that a layout would put in one place, among those near the origin; None when there are none."""
    sides = [min(12, v.extent.const) if v.extent is not None and v.extent.is_const else 12 for v in axes.values()]
    while math.prod(sides) > 20_000:
        sides = [max(2, n - 2) for n in sides]
    if 0 in sides:
        return None
    points = np.indices(sides).reshape(len(sides), -1)
    env = dict(zip(axes.values(), points))
    where = np.stack([np.broadcast_to(t.eval(env), points.shape[1:]) for t in terms])
    least = where.min(1, keepdims=True)
    numbers = np.ravel_multi_index(tuple(where - least), tuple(np.ptp(where, 1) + 1))
    _, first, same = np.unique(numbers, return_index=True, return_inverse=True)
    others = first[same]
    clashing = np.flatnonzero(others != np.arange(others.size))
    if not clashing.size:
        return None
    at, other = (points[:, n].tolist() for n in (clashing[0], others[clashing[0]]))
    name = s.tensors[0].name
    return f"{name}{other} and {name}{at} both at {where[:, clashing[0]].tolist()}"


# -- factors -------------------------------------------------------------------------------------------------------
@primitive
def part_product(nest: Nest, stage: str, first: Sequence[int], second: Sequence[int], axes: Sequence[Sequence[str]]) -> Nest:
    """Give the two factors of a sum of products of several things definitions of their own.

    before::

        y: for i: for j: for k: y[i, j] += x[i, k] * s[k] * relu(w[j, k])

    after ``part_product(y, [0, 1], [2], [[i, k], [j, k]])``::

        y.factor: for i: for k: y.factor[i, k] = x[i, k] * s[k]
        y.factor1: for j: for k: y.factor1[j, k] = relu(w[j, k])
        y: for i: for j: for k: y[i, j] += y.factor[i, k] * y.factor1[j, k]

    Products are associated anew. A factor that is one plain read stays what it is, and a permission to multiply a factor less exactly stays
    with the product. Without a second factor the rest stays in the sum: of ``w[i, k] * x[i, j] / d[i, k]`` it may be ``w[i, k] / d[i, k]``.

    Args:
        nest: the nest.
        stage: a sum of products, or of quotients of products.
        first: which of the things multiplied, counted from the left, make up the first factor.
        second: those that make up the other.
        axes: the axes of each factor's definition, by loop name, in the order they are stored.
    """
    s = nest[stage]
    body = s.body
    assert isinstance(body, Reduce)
    parts, helpers, factors = multiplied(body.args[0]), list[Stage](), list[Expr]()
    named = {name: v for v, name in s.axis_names().items()}
    for side, loops in itertools.zip_longest((first, second), axes, fillvalue=()):
        value = functools.reduce(_times, (parts[n] for n in side or [n for n in range(len(parts)) if n not in first]))
        if isinstance(_plain(value), Read) or not side:
            factors.append(value)
            continue
        permission = value if isinstance(value, Op) and value.name in PRECISIONS else None
        value = value if permission is None else permission.args[0]
        old = [named[x] for x in loops]
        own = tuple(Var(v.name, v.extent) for v in old)
        name = next(n for n in (f"{stage}.factor{k or ''}" for k in range(len(nest.stages) + 3))
                    if all(n != x.name for x in (*nest.stages, *helpers)))
        t = Compute(name, own, substitute(value, {v: as_term(o) for v, o in zip(old, own)}), s.tensors[0].loc)
        helper = Stage(name, (t,), own)
        helpers.append(replace(helper, order=tuple(helper.axis_names().values())))
        read: Expr = Read((), (t, tuple(as_term(v) for v in old)), t.dtype, body.loc)
        factors.append(read if permission is None else permission.rebuild((read,)))
    return _redefined(nest, s, Reduce((op("mul", *factors),), body.data, body.dtype, body.loc), helpers)


def _redefined(nest: Nest, s: Stage, body: Expr, helpers: Sequence[Stage]) -> Nest:
    old = s.tensors[0]
    new = Compute(old.name, old.axes, body, old.loc, old.dtype)
    moved: dict[Tensor, Tensor] = {old: new}
    out: list[Stage] = []
    for x in nest.stages:
        out += [*helpers, replace(s, tensors=(new,))] if x.name == s.name else [with_bodies(x, moved, {})]
    return moved_nest(nest, tuple(out), moved)


def multiplied(e: Expr) -> list[Expr]:
    """The things that a product multiplies, in order; in a quotient of a product the reciprocal of the divisor."""
    if isinstance(e, Op) and e.name == "mul":
        return [p for a in e.args for p in multiplied(a)]
    if isinstance(e, Op) and e.name == "div" and len(parts := multiplied(e.args[0])) > 1:
        return [*parts, op("div", const(1.0, e.dtype), e.args[1])]
    return [e]


def _times(a: Expr, b: Expr) -> Expr:
    """A product; of a reciprocal the quotient."""
    inverse = isinstance(b, Op) and b.name == "div" and isinstance(b.args[0], Const) and b.args[0].value == 1
    return op("div", a, b.args[1]) if inverse else op("mul", a, b)


def _plain(e: Expr) -> Expr:
    while isinstance(e, Cast) or (isinstance(e, Op) and e.name in PRECISIONS):
        e = e.args[0]
    return e


__all__ = ["DTYPES", "Scan", "cache_read", "cache_write", "compute_at", "compute_inline", "compute_root", "find_tensor", "lay_out", "merge",
           "multiplied", "neutral_input", "part_product", "rfactor", "store_as", "tensor_name"]
