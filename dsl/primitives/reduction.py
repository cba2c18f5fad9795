"""Reductions in two steps: partial results that are independent, then their combination."""

from __future__ import annotations

from dataclasses import replace

from dsl.algebra import EXPRS, substitute
from dsl.carrier import merging, partial
from dsl.dim import Term, Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Cast, Compute, Expr, Op, Read, Reduce, Tensor, const, index, op, where
from dsl.nest import Nest, Split, Stage
from dsl.opset import PRECISIONS
from dsl.primitives.bodies import moved_nest, unique_stage, with_bodies
from dsl.primitives.record import primitive


@primitive
def rfactor(nest: Nest, stage: str, loop: str, factors: bool = False) -> tuple[Nest, str]:
    """Turn a reduction loop into a spatial one of a new stage of partial results, which ``stage`` then combines.

    before::

        for k.o in 4
          for k.i in 16
            y += f(16*k.o + k.i)

    after ``rfactor(k.o)``::

        y.part:
          for k.o in 4
            for k.i in 16
              y.part[k.o] += f(16*k.o + k.i)
        y:
          for k.o in 4
            y += y.part[k.o]

    The iterations of ``k.o`` no longer depend on each other: make them parallel in ``y.part``. The order of summation changes.

    Args:
        nest: the nest.
        stage: a reduction.
        loop: the outer part of a split of one of its axes.
        factors: where the last chunk is ragged, make both factors of a product that is summed zero past the end, so that it stays a
            product.

    Returns:
        The new nest and the name of the stage of partial results.

    Raises:
        ScheduleError: not a reduction, or not the outer part of a split of one of its axes; it has been scheduled otherwise already; its
            carrier has no neutral input and the last chunk is ragged.
    """
    s = nest[stage]
    body = s.body
    what = f"rfactor({loop!r})"
    made = next((r for r in s.relations if isinstance(r, Split) and r.outer == loop), None)
    names = s.axis_names()
    axis = next((v for v in s.bound if made is not None and names[v] == made.axis), None)
    if made is None or axis is None or not isinstance(body, Reduce) or axis.extent is None:
        raise ScheduleError(f"{what}: not the outer part of a split reduction axis of {stage}", remedy="split a reduction axis first")
    _check_plain(nest, s, what)
    chunks = (axis.extent + (made.factor - 1)) // made.factor
    outer, inner = Var(loop, chunks), Var(made.inner, as_term(made.factor))
    spatial = tuple(Var(v.name, v.extent) for v in s.axes)
    rest = tuple(Var(v.name, v.extent) for v in s.bound if v is not axis)
    place: dict[Var, Term] = {o: as_term(n) for o, n in zip(s.axes, spatial)}
    place |= {o: as_term(n) for o, n in zip((v for v in s.bound if v is not axis), rest)}
    place[axis] = as_term(outer) * made.factor + as_term(inner)
    args = tuple(substitute(a, place) for a in body.args)
    dtypes = tuple(a.dtype for a in body.args)
    exact = axis.extent.is_const and axis.extent.const % made.factor == 0
    args = args if exact else tuple(_guard(body, n, a, place[axis], axis, factors) for n, a in enumerate(args))
    part_carrier, merge_carrier = partial(body.carrier), merging(body.carrier)
    states = body.carrier.state(dtypes)
    parts = tuple(Compute(f"{stage}.part{n or ''}", (outer, *spatial),
                          Reduce(args, (part_carrier, (inner, *rest), n), d, body.loc), body.loc)
                  for n, d in enumerate(states))
    return _combined(nest, s, parts, merge_carrier, Var(loop, chunks))


def _check_plain(nest: Nest, s: Stage, what: str) -> None:
    if len(s.relations) > 1 or s.roles:
        raise ScheduleError(f"{what}: other loops of {s.name} have been split or given roles", "they would be lost",
                            "rfactor first, then schedule its parts")
    here = next((x.name for x in nest.stages if x.attach is not None and x.attach[0] == s.name), None)
    if here is not None:
        raise ScheduleError(f"{what}: {here} is computed inside {s.name}", remedy=f"rfactor first, then place {here}")
    if not s.body.data[0].commutative and len(s.bound) > 1:
        raise ScheduleError(f"{what}: {s.name} combines its elements in order along several axes",
                            "chunks of one axis are not neighbours in that order")


def _combined(nest: Nest, s: Stage, parts: tuple[Compute, ...], merge: object, k: Var) -> tuple[Nest, str]:
    """The nest with a stage for the partial results and ``s`` over them."""
    name = unique_stage(nest, f"{s.name}.part")
    bound: tuple[Var, ...] = parts[0].body.data[1]
    inputs = tuple(Read((), (p, (as_term(k), *(as_term(v) for v in s.axes))), p.dtype, s.body.loc) for p in parts)
    final = tuple(Compute(t.name, t.axes, Reduce(inputs, (merge, (k,), t.body.data[2]), t.body.dtype, t.body.loc), t.loc, t.dtype)
                  for t in s.tensors)
    part = Stage(name, parts, parts[0].axes, bound)
    part = replace(part, order=tuple(part.axis_names().values()))
    done = Stage(s.name, final, s.axes, (k,), attach=s.attach)
    done = replace(done, order=tuple(done.axis_names().values()))
    moved: dict[Tensor, Tensor] = dict(zip(s.tensors, final))
    out: list[Stage] = []
    for x in nest.stages:
        out += [part, done] if x.name == s.name else [with_bodies(x, moved, {})]
    return moved_nest(nest, tuple(out), moved), name


def _guard(body: Reduce, n: int, arg: Expr, at: Term, axis: Var, factors: bool) -> Expr:
    """A carrier input that is neutral past the end of the axis: the ragged last chunk adds nothing."""
    neutral = neutral_input(body, n)
    if neutral is None or axis.extent is None:
        raise ScheduleError(f"rfactor: `{body.carrier}` has no neutral input", "the last chunk is ragged",
                            "split by a factor that divides the axis")
    inside = op("lt", index(at), index(axis.extent))
    given = body.args[n]
    if factors and body.carrier.name == "sum" and isinstance(given, Op) and given.name == "mul" and all(axis in f.free for f in given.args):
        return Op(tuple(_zero_outside(inside, f) for f in arg.args), arg.data, arg.dtype, arg.loc)
    return where(inside, arg, neutral)


def _zero_outside(inside: Expr, factor: Expr) -> Expr:
    """A factor, zero where ``inside`` fails; under its conversion, where a read can be masked instead."""
    if isinstance(factor, Cast) or (isinstance(factor, Op) and factor.name in PRECISIONS):
        return type(factor)((_zero_outside(inside, factor.args[0]),), factor.data, factor.dtype, factor.loc)
    return where(inside, factor, const(0, factor.dtype))


def neutral_input(body: Reduce, n: int) -> Expr | None:
    """An input whose lifted state is the identity, for carriers whose lift is a conversion."""
    if body.carrier.arity != len(body.carrier.state(tuple(a.dtype for a in body.args))) or body.carrier.name == "logsumexp":
        return None
    held = tuple(a.dtype for a in body.args)
    value = body.carrier.identity(EXPRS, body.carrier.state(held))[n]
    return value if isinstance(value, Expr) else None
