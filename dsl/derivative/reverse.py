"""Reverse mode over definitions: from cotangents of the outputs to gradients of the inputs, as ordinary definitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dsl.algebra import inputs_and_computes, reads, substitute
from dsl.carrier import SUM, WITHIN
from dsl.derivative.adjoint import Adjoint, inline_single_uses
from dsl.derivative.factoring import share_sums
from dsl.derivative.gather import Contribution
from dsl.derivative.invariance import irrelevant_extrema
from dsl.derivative.names import unique
from dsl.derivative.pointwise import Backward
from dsl.derivative.reductions import Partials, Site, backward_scan, inner, position_of, reduction_partials, scan_partials
from dsl.derivative.scaling import find_scalings
from dsl.derivative.signature import assemble, own_outputs, targets_of
from dsl.derivative.simplify import mul, simplify
from dsl.derivative.split import is_pointwise, split, split_program, stripped
from dsl.dim import Var, as_term
from dsl.errors import DerivativeError
from dsl.expr import Compute, Expr, Input, Op, Read, Reduce, Scan, Tensor, cast, index, op, scan
from dsl.program import Program
from dsl.windowed import dense_windows


def pullback(outputs: Sequence[Compute], cotangents: Mapping[Tensor, Tensor], wrt: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """The gradients of ``sum(cotangent * output)`` with respect to tensors of a graph of definitions.

    Args:
        outputs: definitions; those without a cotangent are ignored.
        cotangents: for each output, a tensor of its shape and dtype.
        wrt: float inputs or definitions that the outputs depend on; where they do not depend, the gradient is zero.

    Returns:
        For each of ``wrt`` a tensor of its shape and dtype: a new definition, or a cotangent itself. They refer to the
        definitions of the forward graph, or of its :func:`dsl.derivative.split.split` form where that differs (split a
        definition when it is made, and both are the same).

    Raises:
        DerivativeError: an integer tensor in ``wrt``, or a carrier without a derivative.
    """
    for t in wrt:
        if not t.dtype.is_float:
            raise DerivativeError(f"`{t.name}` is {t.dtype}: only floats have derivatives", f"it is declared {t}", loc=t.loc)
    form = split([*outputs, *wrt])
    forward = inputs_and_computes(tuple(form.of(t) for t in outputs))[1]
    sweep = _Sweep(forward, [form.of(t) for t in wrt], [form.of(t) for t in outputs])
    for t in outputs:
        if t in cotangents and t.dtype.is_float:
            sweep.adjoint(form.of(t)).add_tensor(cotangents[t])
    sweep.run()
    found = [sweep.result(form.of(t)) for t in wrt]
    given = inputs_and_computes((*forward, *cotangents.values()))[1]
    factored = share_sums(inline_single_uses(found, given), given, [*wrt, *(form.of(t) for t in outputs)])
    return dict(zip(wrt, dense_windows(factored, given)))


class _Sweep:
    """One reverse pass over definitions in dependence order."""

    def __init__(self, forward: Sequence[Compute], wrt: Iterable[Tensor], outputs: Sequence[Tensor]) -> None:
        self.forward, self.wrt = forward, set(wrt)
        self.active = depends(forward, self.wrt)
        self.active -= irrelevant_extrema(forward, outputs, self.wrt)
        self.scalings = find_scalings(forward, outputs, self.active, self.wrt)
        self.adjoints: dict[Tensor, Adjoint] = {}
        self.results: dict[Tensor, Tensor] = {}

    def adjoint(self, t: Tensor) -> Adjoint:
        """The adjoint of a tensor, empty at first."""
        if t not in self.adjoints:
            self.adjoints[t] = Adjoint(t)
        return self.adjoints[t]

    def run(self) -> None:
        """Visit every definition after all its readers."""
        passing = self.active - set(self.scalings)
        for y in reversed(self.forward):
            if y in self.scalings:
                bar = self.scalings[y].adjoint(f"d_{y.name}", lambda t: self.result(t) if t in self.adjoints else None)
                if bar is not None:
                    self.results[y] = bar
            elif y in self.active and y in self.adjoints:
                bar = self.result(y)
            else:
                continue
            for c in contributions(y, bar, passing) if bar is not None else ():
                self.adjoint(c.read.tensor).add(c)

    def result(self, t: Tensor) -> Tensor:
        """The finished adjoint of a tensor."""
        if t not in self.results:
            self.results[t] = self.adjoint(t).build(f"d_{t.name}")
        return self.results[t]


def depends(forward: Sequence[Compute], wrt: set[Tensor]) -> set[Tensor]:
    """``wrt`` and every float definition that reads something of it."""
    out = set(wrt)
    for c in forward:
        if c.dtype.is_float and any(r.tensor in out and r.dtype.is_float for r in reads(c.body)):
            out.add(c)
    return out


# -- one definition ------------------------------------------------------------------------------------------------
def contributions(y: Compute, bar: Tensor, active: set[Tensor]) -> list[Contribution]:
    """What the definition ``y`` in split form, with adjoint ``bar``, gives to the active tensors it reads."""
    g = bar.read(*(index(a) for a in y.axes))
    if is_pointwise(y.body):
        own = y.read(*(index(a) for a in y.axes))
        found = Backward(active, {y.body: own}).run(y.body, g)
        return [Contribution(r, y.axes, guards, value) for r, guards, value in found]
    guards, core = stripped(y.body)
    if isinstance(core, Reduce):
        if not any(_is_active(a, active) for a in core.args):
            return []
        seeds = [None if p is None else mul(g, p) for p in reduction_partials(Site(y, guards), core)]
        return _through(core.args, seeds, (*y.axes, *core.axes), core.axes, guards, active)
    assert isinstance(core, Scan), core
    return _scan(y, core, bar, guards, active)


def _is_active(e: Expr, active: set[Tensor]) -> bool:
    return any(r.tensor in active and r.dtype.is_float for r in reads(e))


def _through(args: Sequence[Expr], seeds: Partials, axes: tuple[Var, ...], reduced: tuple[Var, ...], guards: tuple[Expr, ...],
             active: set[Tensor]) -> list[Contribution]:
    """Continue into the operands of a reduction or scan."""
    out = []
    for a, seed in zip(args, seeds):
        if seed is not None and a.dtype.is_float:
            found = Backward(active).run(a, seed)
            out += [Contribution(r, axes, (*guards, *more), value, reduced) for r, more, value in found]
    return out


def _scan(y: Compute, e: Scan, bar: Tensor, guards: tuple[Expr, ...], active: set[Tensor]) -> list[Contribution]:
    if not any(_is_active(a, active) for a in e.args):
        return []
    p = position_of(e, y.axes)
    site = Site(y, guards)
    t: Var = e.axis
    g = bar.read(*(index(a) for a in y.axes))
    axes = tuple(t if a is p else a for a in y.axes)
    seeds: Partials
    if e.carrier == SUM:
        q = inner(p)
        later = scan(SUM, (substitute(g, {p: as_term(q)}),), q, as_term(t), exclusive=e.exclusive, reverse=not e.reverse)
        seeds = [site.helper("adjoint", later, axes)]
    else:
        step = scan_partials(site, e, p)
        behind = backward_scan(site, e, p, step, g)
        seeds = [None if b is None else mul(behind, b) for b in step.partials]
    return _through(e.args, seeds, axes, (t,), guards, active)


# -- programs ------------------------------------------------------------------------------------------------------
def vjp(program: Program, wrt: Sequence[str] | None = None, saved: Sequence[Compute | str] = ()) -> Program:
    """The backward of a program: gradients of its float inputs from cotangents of its float outputs.

    Args:
        program: any program, a derivative too.
        wrt: names of the inputs wanted; every float input when omitted.
        saved: definitions of ``split_program(program)``, or their names, that the forward keeps
            (:func:`forward_with_saves`); everything else that the gradients need is computed again. Those of a low dtype that are no
            outputs are kept as they are held, in f32.

    Returns:
        A program whose inputs are those inputs of ``program`` that it needs (for their values, or to determine a size), then
        the saved tensors it needs, then a cotangent ``d_<output>`` per float output; its outputs are ``d_<input>`` in the
        order of ``wrt``.

    Raises:
        DerivativeError: an unknown or integer input in ``wrt``, no float input or output, or a carrier without a derivative.
    """
    form = split_program(program)
    targets = targets_of(form, wrt)
    taken = {t.name for t in form.inputs} | {s if isinstance(s, str) else s.name for s in saved}
    given: dict[Tensor, Input] = {
        y: Input(unique(f"d_{y.name}", taken), y.shape, y.dtype, y.loc) for y in form.outputs if y.dtype.is_float}
    if not given:
        raise DerivativeError(f"{program.name} has no float output", loc=program.loc)
    found = pullback(form.outputs, dict(given), targets)
    keep = find_saved(form, saved, _aside(form, found.values(), given.values()))
    kept = {c: Input(c.name, c.shape, c.dtype if c in form.outputs else c.dtype.held, c.loc) for c in keep}
    there: dict[Tensor, Tensor] = {c: _as_saved(c, t) for c, t in kept.items()}
    outputs = own_outputs([found[t] for t in targets], [f"d_{t.name}" for t in targets], there | _undone(there))
    return assemble(f"{program.name}_vjp", form, outputs, tuple(kept.values()), tuple(given.values()))


def asides(program: Program, wrt: Sequence[str] | None = None) -> list[Compute]:
    """What the gradients need besides definitions of the forward, and could be made with it: the position of a maximum, say."""
    form = split_program(program)
    made = vjp(form, wrt)
    return _aside(form, made.outputs, [t for t in made.inputs if t not in form.inputs])


def _aside(form: Program, gradients: Iterable[Tensor], given: Iterable[Tensor]) -> list[Compute]:
    """The definitions of gradients that are none of the forward's, have other names, and follow from its inputs alone."""
    known, seeded = {c.name for c in form.computes}, set(given)
    out = []
    for c in inputs_and_computes(tuple(gradients))[1]:
        if any(r.tensor in seeded for r in reads(c.body)):
            seeded.add(c)
        elif c.name not in known:
            known.add(c.name)
            out.append(c)
    return out


def _as_saved(c: Compute, kept: Input) -> Tensor:
    """What stands for a definition in the backward: what was saved of it."""
    if kept.dtype == c.dtype:
        return kept
    axes = tuple(Var(a.name, a.extent) for a in c.axes)
    return Compute(c.name, axes, op("unrounded", cast(kept.read(*(index(a) for a in axes)), c.dtype)), c.loc, c.dtype)


def _undone(there: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """Dividends of which the quotient and the divisor were saved: ``e = (e / s) * s``, which reads less than what ``e`` is made of."""
    made: dict[Tensor, Tensor] = {}
    for c, quotient in there.items():
        body = c.body if isinstance(c, Compute) else None
        if not isinstance(body, Op) or body.name != "div" or c.dtype.is_low:
            continue
        e, s = body.args
        if not (isinstance(e, Read) and isinstance(e.tensor, Compute) and e.tensor not in there and isinstance(s, Read)):
            continue
        assert isinstance(c, Compute)
        if s.tensor in there and not s.args and e.data[1] == tuple(as_term(a) for a in c.axes) and e.tensor.shape == c.shape:
            axes = tuple(Var(a.name, a.extent) for a in c.axes)
            env = {a: as_term(b) for a, b in zip(c.axes, axes)}
            again = mul(quotient.read(*(index(a) for a in axes)), substitute(s, env, {s.tensor: there[s.tensor]}))
            made[e.tensor] = Compute(e.tensor.name, axes, again, e.tensor.loc, e.tensor.dtype)
    return made


def forward_with_saves(program: Program, saved: Sequence[Compute | str], wrt: Sequence[str] | None = None) -> Program:
    """The program with the saved definitions as further outputs (those that are no outputs already), in the order given.

    Args:
        program: the forward.
        saved: definitions of ``split_program(program)``, or :func:`asides` of its gradients, or their names.
        wrt: as in :func:`vjp`.
    """
    form = split_program(program)
    names = {c.name for c in form.computes}
    more = asides(form, wrt) if any((s if isinstance(s, str) else s.name) not in names for s in saved) else ()
    extra = tuple(c for c in find_saved(form, saved, more) if c not in form.outputs)
    if not extra:
        return form
    wider: dict[Tensor, Tensor] = {c: w for c in form.computes if (w := _widened(c, extra)) is not c}
    results = own_outputs([*form.outputs, *extra], [c.name for c in (*form.outputs, *extra)], wider)
    outputs = (*results[:len(form.outputs)], *map(_held, results[len(form.outputs):]))
    return Program(form.name, form.inputs, outputs, False, form.loc)


def _widened(c: Compute, others: Sequence[Compute]) -> Compute:
    """A reduction as a result of one of others that finds it on the way, so that both take one pass: a maximum, of where it is."""
    body = c.body
    for o in others if isinstance(body, Reduce) else ():
        assert isinstance(body, Reduce)
        other = o.body
        if not isinstance(other, Reduce) or o.shape != c.shape or len(other.axes) != len(body.axes):
            continue
        if other.carrier not in WITHIN.get(body.carrier.name, ()):
            continue
        env = {v: as_term(w) for v, w in zip((*o.axes, *other.axes), (*c.axes, *body.axes))}
        args = tuple(substitute(a, env) for a in other.args)
        if all(simplify(a) is simplify(b) for a, b in zip(args, body.args)):
            return Compute(c.name, c.axes, Reduce(args, (other.carrier, body.axes, 0), body.dtype, body.loc), c.loc, c.dtype)
    return c


def _held(c: Compute) -> Compute:
    """A definition as it is held: of a low dtype, in f32."""
    if not c.dtype.is_low:
        return c
    axes = tuple(Var(a.name, a.extent) for a in c.axes)
    return Compute(c.name, axes, cast(c.read(*(index(a) for a in axes)), c.dtype.held), c.loc, c.dtype.held)


def find_saved(form: Program, saved: Sequence[Compute | str], more: Sequence[Compute] = ()) -> list[Compute]:
    """Definitions of a program in split form, or ``more``, by themselves or by name.

    Raises:
        DerivativeError: no such definition.
    """
    named = {c.name: c for c in (*form.computes, *more)}
    out = []
    for s in saved:
        name = s if isinstance(s, str) else s.name
        if name not in named:
            raise DerivativeError(f"{form.name} has no definition `{name}` to save", f"it has {', '.join(named)}", loc=form.loc)
        out.append(named[name])
    return out
