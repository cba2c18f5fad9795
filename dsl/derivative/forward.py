"""Forward mode: the tangents of the outputs from tangents of the inputs, by the same rules as reverse mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsl.algebra import inputs_and_computes, walk
from dsl.carrier import SUM
from dsl.derivative.adjoint import inline_single_uses
from dsl.derivative.invariance import irrelevant_extrema
from dsl.derivative.names import unique
from dsl.derivative.reductions import Site, forward_scan, position_of, reduction_partials, scan_partials
from dsl.derivative.reverse import depends
from dsl.derivative.rules import tangent
from dsl.derivative.signature import assemble, own_outputs, targets_of
from dsl.derivative.simplify import add, guarded, mul, simplify, zero
from dsl.derivative.split import is_pointwise, split, split_program, stripped
from dsl.errors import DerivativeError
from dsl.expr import Compute, Expr, Input, Read, Reduce, Scan, Tensor, reduce, scan
from dsl.program import Program


def jvp(program: Program, wrt: Sequence[str] | None = None) -> Program:
    """The forward derivative of a program: tangents of its float outputs from tangents of its float inputs.

    Args:
        program: any program.
        wrt: names of the inputs that move; every float input when omitted.

    Returns:
        A program whose inputs are those inputs of ``program`` that it needs, then a tangent ``t_<input>`` for each of ``wrt``;
        its outputs are ``t_<output>`` for each float output, of the output's shape and dtype.

    Raises:
        DerivativeError: an unknown or integer input in ``wrt``, no float output, or a carrier without a derivative.
    """
    form = split_program(program)
    moving = targets_of(form, wrt)
    taken = {t.name for t in form.inputs}
    given: dict[Tensor, Input] = {t: Input(unique(f"t_{t.name}", taken), t.shape, t.dtype, t.loc) for t in moving}
    outputs = [t for t in form.outputs if t.dtype.is_float]
    if not outputs:
        raise DerivativeError(f"{program.name} has no float output", loc=program.loc)
    pushed = pushforward(outputs, dict(given))
    found = own_outputs([pushed[t] for t in outputs], [f"t_{t.name}" for t in outputs], {})
    return assemble(f"{program.name}_jvp", form, found, (), tuple(given.values()))


def pushforward(outputs: Sequence[Compute], tangents: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """The tangents of ``outputs`` from those of some of the tensors they depend on.

    Returns:
        For each output a definition of its shape and dtype; it refers to the forward definitions in split form.
    """
    form = split(outputs)
    forward = inputs_and_computes(tuple(form.of(t) for t in outputs))[1]
    wrt = {form.of(t) for t in tangents}
    results = [form.of(t) for t in outputs]
    active = depends(forward, wrt) - irrelevant_extrema(forward, results, wrt)
    known: dict[Tensor, Tensor] = {form.of(t): d for t, d in tangents.items()}
    for c in forward:
        if c in active and c not in known:
            body = simplify(_tangent(c, known))
            known[c] = Compute(f"t_{c.name}", c.axes, body, c.loc, c.dtype)
    found = [known[t] if t in known else Compute(f"t_{t.name}", t.axes, zero(t.dtype)) for t in results]
    tidy = inline_single_uses(found, inputs_and_computes((*forward, *tangents.values()))[1])
    return dict(zip(outputs, tidy))


def _tangent(c: Compute, known: Mapping[Tensor, Tensor]) -> Expr:
    """The tangent of one definition in split form."""
    if is_pointwise(c.body):
        return _through(c.body, known)
    guards, core = stripped(c.body)
    site = Site(c, guards)
    changes = [_through(a, known) if a.dtype.is_float else zero(a.dtype) for a in core.args]
    if isinstance(core, Reduce):
        return guarded(guards, reduce(SUM, (_weighted(changes, reduction_partials(site, core), core),), core.axes))
    assert isinstance(core, Scan), core
    if core.carrier == SUM:
        return guarded(guards, scan(SUM, tuple(changes), core.axis, core.at, exclusive=core.exclusive, reverse=core.reverse))
    step = scan_partials(site, core, position_of(core, c.axes))
    return guarded(guards, forward_scan(core, step, _weighted(changes, step.partials, core)))


def _weighted(changes: Sequence[Expr], partials: Sequence[Expr | None], e: Expr) -> Expr:
    out: Expr = zero(e.dtype)
    for change, p in zip(changes, partials):
        if p is not None:
            out = add(out, mul(change, p))
    return out


def _through(e: Expr, known: Mapping[Tensor, Tensor]) -> Expr:
    """The tangent of a pointwise expression."""
    moves: dict[Expr, Expr] = {
        r: Read(r.args, (known[r.tensor], r.data[1]), r.dtype, r.loc)
        for r in walk(e) if isinstance(r, Read) and r.tensor in known and r.dtype.is_float}
    return tangent(e, moves)


