"""Reductions in two steps: partial results that are independent, then their combination."""

from __future__ import annotations

import math
from dataclasses import replace

from dsl.algebra import EXPRS, substitute, transform
from dsl.carrier import highest, lowest, merging, partial, within
from dsl.dim import Term, Var, as_term, cdiv
from dsl.dtype import Dtype, by_name
from dsl.errors import ScheduleError
from dsl.expr import Cast, Compute, Expr, Op, Read, Reduce, Tensor, cast, const, index, op, where
from dsl.nest import Nest, Split, Stage
from dsl.opset import PRECISIONS
from dsl.primitives.bodies import moved_nest, unique_stage, with_bodies
from dsl.primitives.record import primitive
from dsl.widen import contains


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
    own = (inner,) if made.factor > 1 or len(s.bound) == 1 else ()  # no axis of one point beside others
    spatial = tuple(Var(names[v], v.extent) for v in s.axes)
    rest = tuple(Var(names[v], v.extent) for v in s.bound if v is not axis)  # one called like the parted axis keeps its other name
    place: dict[Var, Term] = {o: as_term(n) for o, n in zip(s.axes, spatial)}
    place |= {o: as_term(n) for o, n in zip((v for v in s.bound if v is not axis), rest)}
    place[axis] = as_term(outer) * made.factor + (as_term(inner) if own else 0)
    args = tuple(substitute(a, place) for a in body.args)
    dtypes = tuple(a.dtype for a in body.args)
    exact = axis.extent.is_const and axis.extent.const % made.factor == 0
    args = args if exact else tuple(_guard(body, n, a, place[axis], axis, factors) for n, a in enumerate(args))
    part_carrier, merge_carrier = partial(body.carrier), merging(body.carrier)
    states = body.carrier.state(dtypes)
    parts = tuple(Compute(f"{stage}.part{n or ''}", (outer, *spatial),
                          Reduce(args, (part_carrier, (*own, *rest), n), d, body.loc), body.loc)
                  for n, d in enumerate(states))
    return _combined(nest, s, parts, merge_carrier, Var(loop, chunks))


@primitive
def finish_apart(nest: Nest, stage: str, name: str = "", dtype: str = "") -> tuple[Nest, str]:
    """Keep what a reduction adds up in a stage of its own; ``stage`` makes its result of that.

    before::

        y: for i: for j: for k: y[i, j] += x[i, k] * w[k, j]          # rounded to bf16 when it is finished

    after ``finish_apart(y)``::

        y.sums: for i: for j: for k: y.sums[i, j] += x[i, k] * w[k, j]    # in f32
        y: for i: for j: y[i, j] = bf16(y.sums[i, j])

    So that sums can be computed tile by tile, and finished row by row.

    Args:
        nest: the nest.
        stage: a reduction.
        name: of the stage of sums; made from the reduction's when empty.
        dtype: an integer dtype in which products of narrow integers are added up without overflow, for so many of them.

    Returns:
        The new nest and the name of the stage of sums.

    Raises:
        ScheduleError: not a reduction of one result, scheduled otherwise already, or a dtype in which a sum may overflow.
    """
    s = nest[stage]
    body, what = s.body, f"finish_apart({stage!r})"
    if not isinstance(body, Reduce) or len(s.tensors) != 1:
        raise ScheduleError(f"{what}: {stage} is not a reduction with one result", remedy="cache_write keeps any result apart")
    _check_plain(nest, s, what)
    made, t = unique_stage(nest, name or f"{stage}.sums"), s.tensors[0]
    states = body.carrier.state(tuple(a.dtype for a in body.args))
    carrier = body.carrier if body.carrier.name.endswith(".partial") else partial(body.carrier)
    if dtype:
        if not adds_within(body, by_name(dtype)):
            raise ScheduleError(f"{what}: a sum of {stage} may overflow {dtype}", f"it adds up {body}", "keep it in the dtype that it has")
        states, carrier = (by_name(dtype),), within(body.carrier, by_name(dtype))
    own = tuple(Compute(f"{made}{n or ''}", t.axes, Reduce(body.args, (carrier, body.data[1], n), d, body.loc), t.loc)
                for n, d in enumerate(states))
    axes = tuple(Var(v.name, v.extent) for v in s.axes)
    kept = tuple(Read((), (o, tuple(as_term(v) for v in axes)), o.dtype, t.loc) for o in own)
    result = cast(body.carrier.finalize(EXPRS, kept)[body.data[2]], t.dtype)
    finished = Compute(t.name, axes, result, t.loc, t.dtype)
    final = Stage(stage, (finished,), axes, attach=s.attach)
    final = replace(final, order=tuple(final.axis_names().values()))
    moved: dict[Tensor, Tensor] = {t: finished}
    out: list[Stage] = []
    for x in nest.stages:
        out += [replace(s, name=made, tensors=own, attach=None), final] if x.name == stage else [with_bodies(x, moved, {})]
    return moved_nest(nest, tuple(out), moved), made


def adds_within(body: Expr, dtype: Dtype) -> bool:
    """Whether a sum of products of two integers stays within an integer dtype, whatever their values."""
    factors = _factors(body)
    if len(factors) != 2 or not isinstance(body, Reduce) or not dtype.is_int or any(not f.dtype.is_int for f in factors):
        return False
    terms = math.prod(int(v.extent) if v.extent is not None and v.extent.is_const else 1 << 62 for v in body.axes)
    return terms * math.prod(max(-int(lowest(f.dtype)), int(highest(f.dtype))) for f in factors) <= highest(dtype)


@primitive
def pad_terms(nest: Nest, stage: str, axis: str, multiple: int) -> Nest:
    """Let a sum of products run on to a multiple of a number, over zeros.

    before::

        y: for i: for j: for k in 50: y[i, j] += x[i, k] * w[k, j]

    after ``pad_terms(y, k, 16)``::

        x.padded: for x0: for x1 in 64: x.padded[x0, x1] = x[x0, x1] if x1 < 50 else 0
        w.padded: ...
        y: for i: for j: for k in 64: y[i, j] += x.padded[i, k] * w.padded[k, j]

    So that a dot of that many terms has no rest. Inlined into a copy of the factor, the zeros are what the copy holds there.

    Args:
        nest: the nest.
        stage: a sum of products of two reads, conversions aside.
        axis: one of its reduction axes, which is an index of both reads by itself, and of nothing else.
        multiple: what its length becomes a multiple of.

    Raises:
        ScheduleError: no such product or axis.
    """
    s = nest[stage]
    body, what = s.body, f"pad_terms({stage!r}, {axis!r})"
    old = next((v for v, name in s.axis_names().items() if name == axis and v in s.bound), None)
    sides = _read_factors(body)
    if not isinstance(body, Reduce) or old is None or old.extent is None or not sides or any(not _alone(r, old) for r in sides):
        raise ScheduleError(f"{what}: not a reduction axis that both factors of a product have by itself", f"{stage} is {body}")
    _check_plain(nest, s, what)
    new = Var(old.name, cdiv(old.extent, multiple) * multiple)
    helpers: list[Stage] = []
    swaps: dict[Expr, Expr] = {}
    for r in dict.fromkeys(sides):
        helper = _zero_past_end(unique_stage(replace(nest, stages=(*nest.stages, *helpers)), f"{r.tensor.name}.padded"), r, old, new)
        helpers.append(helper)
        swaps[r] = Read((), (helper.tensors[0], r.indices), r.dtype, r.loc)
    summed = substitute(transform(body.args[0], swaps.get), {old: as_term(new)})
    bound = tuple(new if v is old else v for v in body.axes)
    t = s.tensors[0]
    made = Compute(t.name, t.axes, Reduce((summed,), (body.carrier, bound, body.out), body.dtype, body.loc), t.loc, t.dtype)
    padded = replace(s, tensors=(made,), bound=bound)
    moved: dict[Tensor, Tensor] = {t: made}
    out: list[Stage] = []
    for x in nest.stages:
        out += [*helpers, padded] if x.name == stage else [with_bodies(x, moved, {})]
    return moved_nest(nest, tuple(out), moved)


def _zero_past_end(name: str, r: Read, old: Var, new: Var) -> Stage:
    """What a read sees as a definition of its own, as long as ``new`` where ``old`` is the index, zero from the end on."""
    assert old.extent is not None
    axes = tuple(Var(f"{r.tensor.name}{n}", new.extent if as_term(old) == i else e)
                 for n, (e, i) in enumerate(zip(r.tensor.shape, r.indices)))
    at = next(a for a, i in zip(axes, r.indices) if as_term(old) == i)
    element = Read((), (r.tensor, tuple(as_term(a) for a in axes)), r.dtype, r.loc)
    t = Compute(name, axes, where(op("lt", index(as_term(at)), index(old.extent)), element, const(0, r.dtype)), r.loc)
    s = Stage(name, (t,), axes)
    return replace(s, order=tuple(s.axis_names().values()))


def _read_factors(body: Expr) -> list[Read]:
    """The two reads whose products a sum adds up, conversions aside; none where it is no such sum."""
    reads = [x for f in _factors(body) if isinstance(x := _under_casts(f), Read)]
    return reads if len(reads) == 2 else []


def _factors(body: Expr) -> list[Expr]:
    """The factors whose products a sum adds up, under conversions that change no value; none where it is no such sum."""
    if not isinstance(body, Reduce) or not body.carrier.name.startswith("sum") or len(body.args) != 1:
        return []
    e, factors = _under_casts(body.args[0]), []
    for f in e.args if isinstance(e, Op) and e.name == "mul" else ():
        while isinstance(f, Cast) and contains(f.dtype, f.args[0].dtype):
            f = f.args[0]
        factors.append(f)
    return factors


def _under_casts(e: Expr) -> Expr:
    """A value under its conversions, and under permissions to multiply it less exactly."""
    while isinstance(e, Cast) or (isinstance(e, Op) and e.name in PRECISIONS):
        e = e.args[0]
    return e


def _alone(r: Read, axis: Var) -> bool:
    """Whether one index of a read is the axis itself, and no other mentions it."""
    return [i for i in r.indices if axis in (i.vars if isinstance(i, Term) else i.free)] == [as_term(axis)]


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
    """An input whose lifted state is the identity: for carriers whose inputs are states or become one by a conversion, and logsumexp."""
    held = tuple(a.dtype for a in body.args)
    states = body.carrier.state(held)
    if body.carrier.name in ("logsumexp", "logsumexp.partial") and body.args[0].dtype.is_float:
        return const(-math.inf, body.args[0].dtype)
    if body.carrier.arity not in (0, len(states)):
        return None
    value = body.carrier.identity(EXPRS, states)[n]
    return value if isinstance(value, Expr) else None
