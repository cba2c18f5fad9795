"""Primitives that place stages and their storage: compute_at, compute_inline, cache_read, merge, rfactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dsl.algebra import reads, substitute, transform
from dsl.carrier import merging, partial
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype
from dsl.errors import ScheduleError
from dsl.expr import Cast, Compute, Expr, Index, Read, Reduce, Tensor, cast, index, where
from dsl.nest import Nest, Split, Stage
from dsl.program import Program
from dsl.stages import inline_reads


def compute_at(nest: Nest, stage: str, consumer: str, loop: str) -> Nest:
    """Compute just the region that ``consumer`` needs inside ``loop``, there."""
    s, c = nest[stage], nest[consumer]
    if loop and loop not in c.order:
        raise ScheduleError(f"{consumer} has no loop `{loop}`", remedy="its loops are " + ", ".join(c.order))
    return nest.with_stage(replace(s, attach=(consumer, loop)))


def compute_root(nest: Nest, stage: str) -> Nest:
    """Give a stage a nest of its own again."""
    return nest.with_stage(replace(nest[stage], attach=None))


def compute_inline(nest: Nest, stage: str) -> Nest:
    """Replace every read of a map stage by its definition, and drop the stage."""
    s = nest[stage]
    if s.kind != "map":
        raise ScheduleError(f"{stage} is a {s.kind} and cannot be inlined", "its elements are made by a loop", "use compute_at")
    if nest.is_output(s):
        raise ScheduleError(f"{stage} is an output and cannot be inlined")
    producers: dict[Tensor, Compute] = {t: t for t in s.tensors}
    moved: dict[Tensor, Tensor] = {}
    stages = [_with_bodies(t, moved, producers) for t in nest.stages if t.name != stage]
    return _moved(nest, tuple(stages), moved)


def _with_bodies(s: Stage, moved: dict[Tensor, Tensor], producers: dict[Tensor, Compute]) -> Stage:
    """A stage whose bodies read the new tensors; unchanged stages keep their identity."""
    if not any(r.tensor in producers or r.tensor in moved for t in s.tensors for r in reads(t.body)):
        return s
    new = tuple(Compute(t.name, t.axes, inline_reads(substitute(t.body, {}, moved), producers), t.loc, t.dtype) for t in s.tensors)
    moved.update(zip(s.tensors, new))
    return replace(s, tensors=new)


def _moved(nest: Nest, stages: tuple[Stage, ...], moved: dict[Tensor, Tensor]) -> Nest:
    p = nest.program
    outputs = tuple(moved.get(t, t) for t in p.outputs)
    return replace(nest, stages=stages, program=Program(p.name, p.inputs, outputs, p.single, p.loc))  # type: ignore[arg-type]


def merge(nest: Nest, first: str, second: str) -> Nest:
    """Compute two map stages over the same box in one set of loops; ``second`` moves into ``first``."""
    a, b = nest[first], nest[second]
    if a.kind != "map" or b.kind != "map" or [x.extent for x in a.axes] != [x.extent for x in b.axes]:
        raise ScheduleError(f"{first} and {second} cannot share loops", "they are not pointwise over the same shape")
    env: dict[Var, Term] = {o: as_term(n) for o, n in zip(b.axes, a.axes)}
    new = tuple(Compute(t.name, a.axes, substitute(t.body, env), t.loc, t.dtype) for t in b.tensors)
    moved: dict[Tensor, Tensor] = dict(zip(b.tensors, new))
    joined = replace(a, tensors=(*a.tensors, *new))
    at = max(n for n, s in enumerate(nest.stages) if s.name in (first, second))
    order = [joined if n == at else s for n, s in enumerate(nest.stages) if n == at or s.name not in (first, second)]
    return _moved(nest, tuple(_with_bodies(s, moved, {}) if s is not joined else s for s in order), moved)


def cache_read(nest: Nest, consumer: str, tensor: Tensor, name: str = "", layout: Sequence[int] | None = None,
               dtype: Dtype | None = None, only: Read | None = None) -> tuple[Nest, str]:
    """Read ``tensor`` in ``consumer`` through a copy: a new map stage (a root until it is placed).

    Args:
        nest: the nest.
        consumer: the stage that shall read the copy.
        tensor: what is copied.
        name: the copy's stage name; made from the tensor's when empty.
        layout: order of the copy's storage dimensions, a permutation of the tensor's; row-major when omitted.
        dtype: what the elements are converted to on the way; the tensor's when None.
        only: the one read that shall go through the copy; every read of the tensor when None.

    Returns:
        The new nest and the copy's stage name.
    """
    c = nest[consumer]
    label = name or f"{tensor.name}.copy"
    n, unique = 1, label
    while any(s.name == unique for s in nest.stages):
        unique, n = f"{label}{n}", n + 1
    axes = tuple(Var(f"{tensor.name}{d}", e) for d, e in enumerate(tensor.shape))
    copy = Compute(unique, axes, cast(tensor.read(*(index(a) for a in axes)), dtype or tensor.dtype), tensor.loc)
    new = tuple(Compute(t.name, t.axes, _through(t.body, tensor, copy, only), t.loc, t.dtype) for t in c.tensors)
    moved: dict[Tensor, Tensor] = dict(zip(c.tensors, new))
    stage = Stage(unique, (copy,), axes, order=tuple(a.name for a in axes), layout=tuple(as_term(axes[d]) for d in layout) if layout else None)
    out: list[Stage] = []
    for s in nest.stages:
        if s.name == consumer:
            out += [stage, replace(c, tensors=new)]
        else:
            out.append(_with_bodies(s, moved, {}))
    return _moved(nest, tuple(out), moved), unique


def _through(body: Expr, tensor: Tensor, copy: Compute, only: Read | None) -> Expr:
    """A body that reads the copy; a conversion that the copy has made already is dropped."""
    def one(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor is tensor and (only is None or e is only):
            return cast(copy.read(*e.indices), e.dtype)
        held = e.args[0].args[0] if isinstance(e, Cast) and isinstance(e.args[0], Cast) else None
        return held if isinstance(held, Read) and held.tensor is copy and held.dtype == e.dtype else None

    return transform(body, one)


def redefine(nest: Nest, stage: str, body: Expr, helpers: Sequence[Stage] = ()) -> Nest:
    """Give a stage of one tensor another body of the same meaning; ``helpers`` are new stages that it reads, put in front of it."""
    s = nest[stage]
    old = s.tensors[0]
    new = Compute(old.name, old.axes, body, old.loc, old.dtype)
    moved: dict[Tensor, Tensor] = {old: new}
    out: list[Stage] = []
    for x in nest.stages:
        out += [*helpers, replace(s, tensors=(new,))] if x.name == stage else [_with_bodies(x, moved, {})]
    return _moved(nest, tuple(out), moved)


def lay_out(nest: Nest, stage: str, dimensions: Callable[[tuple[Var, ...]], tuple[Term, ...]]) -> Nest:
    """Store a private stage's region in other dimensions.

    Args:
        nest: the nest.
        stage: an attached stage.
        dimensions: from the stage's axes, counted from the start of its region, to the index in each storage dimension:
            ``lambda i, k: (i // 8, k, i % 8)`` keeps eight rows side by side. No two points may share a place.
    """
    s = nest[stage]
    return nest.with_stage(replace(s, layout=dimensions(s.axes)))


def rfactor(nest: Nest, stage: str, loop: str) -> tuple[Nest, str]:
    """Turn a reduction loop into a spatial one of a new stage of partial results, which ``stage`` then combines.

    ``s[i] = sum[k] f(i, k)`` with ``k`` split in ``k.o, k.i`` becomes ``s.part[k.o, i] = sum[k.i] f``, ``s[i] = sum[k.o] s.part[k.o, i]``.
    ``loop`` must be the outer part of a split of a reduction axis.

    Returns:
        The new nest and the name of the stage of partial results.
    """
    s = nest[stage]
    body = s.body
    made = next((r for r in s.relations if isinstance(r, Split) and r.outer == loop), None)
    names = s.axis_names()
    axis = next((v for v in s.bound if made is not None and names[v] == made.axis), None)
    if made is None or axis is None or not isinstance(body, Reduce) or axis.extent is None:
        raise ScheduleError(f"rfactor({loop!r}): not the outer part of a split reduction axis of {stage}", remedy="split a reduction axis first")
    chunks = (axis.extent + (made.factor - 1)) // made.factor
    outer, inner = Var(loop, chunks), Var(made.inner, as_term(made.factor))
    spatial = tuple(Var(v.name, v.extent) for v in s.axes)
    rest = tuple(Var(v.name, v.extent) for v in s.bound if v is not axis)
    place: dict[Var, Term] = {o: as_term(n) for o, n in zip(s.axes, spatial)}
    place |= {o: as_term(n) for o, n in zip((v for v in s.bound if v is not axis), rest)}
    place[axis] = as_term(outer) * made.factor + inner
    args = tuple(substitute(a, place) for a in body.args)
    dtypes = tuple(a.dtype for a in body.args)
    exact = axis.extent.is_const and axis.extent.const % made.factor == 0
    args = args if exact else tuple(_guard(body, n, a, place[axis], axis.extent) for n, a in enumerate(args))
    part_carrier, merge_carrier = partial(body.carrier), merging(body.carrier)
    states = body.carrier.state(dtypes)
    parts = tuple(Compute(f"{stage}.part{n or ''}", (outer, *spatial), Reduce(args, (part_carrier, (inner, *rest), n), d, body.loc), body.loc)
                  for n, d in enumerate(states))
    k = Var(loop, chunks)
    inputs = tuple(p.read(index(k), *(index(v) for v in s.axes)) for p in parts)
    final = tuple(Compute(t.name, t.axes, Reduce(inputs, (merge_carrier, (k,), t.body.data[2]), t.body.dtype, body.loc), t.loc, t.dtype)
                  for t in s.tensors)
    part = Stage(f"{stage}.part", parts, (outer, *spatial), (inner, *rest))
    part = replace(part, order=tuple(part.axis_names().values()))
    done = Stage(stage, final, s.axes, (k,), attach=s.attach)
    done = replace(done, order=tuple(done.axis_names().values()))
    moved: dict[Tensor, Tensor] = dict(zip(s.tensors, final))
    out: list[Stage] = []
    for x in nest.stages:
        out += [part, done] if x.name == stage else [_with_bodies(x, moved, {})]
    return _moved(nest, tuple(out), moved), part.name


def _guard(body: Reduce, n: int, arg: Expr, at: Term, extent: Term) -> Expr:
    """A carrier input that is neutral past the end of the axis: the ragged last chunk adds nothing."""
    neutral = neutral_input(body, n)
    if neutral is None:
        raise ScheduleError(f"rfactor: `{body.carrier}` has no neutral input", "the last chunk is ragged", "split by a factor that divides the axis")
    return where(index(at) < index(extent), arg, neutral)


def neutral_input(body: Reduce, n: int) -> Expr | None:
    """An input whose lifted state is the identity, for carriers whose lift is a conversion."""
    from dsl.algebra import EXPRS  # noqa: PLC0415
    if body.carrier.arity != len(body.carrier.state(tuple(a.dtype for a in body.args))) or body.carrier.name == "logsumexp":
        return None
    held = tuple(a.dtype for a in body.args)
    value = body.carrier.identity(EXPRS, body.carrier.state(held))[n]
    return value if isinstance(value, Expr) else None


__all__ = ["Index", "Read", "cache_read", "compute_at", "compute_inline", "compute_root", "lay_out", "merge", "redefine", "rfactor", "transform"]
