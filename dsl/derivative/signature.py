"""The inputs and outputs of derived programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsl.algebra import inputs_and_computes, reads, substitute
from dsl.bind import sizes_of
from dsl.dim import Term, Var
from dsl.errors import DerivativeError
from dsl.expr import Compute, Input, Tensor, index
from dsl.program import Program


def targets_of(form: Program, wrt: Sequence[str] | None) -> list[Input]:
    """The inputs called ``wrt``, or every float input.

    Raises:
        DerivativeError: an unknown name, or no float input at all.
    """
    named = {t.name: t for t in form.inputs}
    for name in wrt or ():
        if name not in named:
            raise DerivativeError(f"{form.name} has no input `{name}`", f"its inputs are {', '.join(named)}", loc=form.loc)
    out = [t for t in form.inputs if t.dtype.is_float] if wrt is None else [named[n] for n in wrt]
    if not out:
        raise DerivativeError(f"{form.name} has no float input to differentiate by", loc=form.loc)
    return out


def own_outputs(found: Sequence[Tensor], names: Sequence[str], replaced: Mapping[Tensor, Tensor]) -> list[Compute]:
    """The results as definitions of their own, called ``names``, with some tensors replaced by inputs.

    A definition that is a result takes its name, also where others read it; what is several results is copied for all but the first.
    """
    done: dict[Tensor, Tensor] = dict(replaced)
    called = dict(zip(reversed(found), reversed(names)))
    for c in inputs_and_computes(tuple(found))[1]:
        if c in done:
            continue
        body = substitute(c.body, {}, done) if any(r.tensor in done for r in reads(c.body)) else c.body
        if body is not c.body or called.get(c, c.name) != c.name:
            done[c] = Compute(called.get(c, c.name), c.axes, body, c.loc, c.dtype)
    out: list[Compute] = []
    for t, name in zip(found, names):
        new = done.get(t, t)
        if not isinstance(new, Compute) or new in out or new.name != name:
            axes = tuple(Var(f"i{n}", s) for n, s in enumerate(new.shape))
            new = Compute(name, axes, new.read(*(index(a) for a in axes)), t.loc, t.dtype)
        out.append(new)
    return out


def assemble(name: str, form: Program, outputs: Sequence[Compute], saved: Sequence[Input], given: Sequence[Input]) -> Program:
    """The derived program: inputs of ``form`` that it reads or that determine a size it uses, then ``saved``, then ``given``."""
    used, computes = inputs_and_computes(tuple(outputs))
    needed: set[Tensor] = set(used)
    sizes = {v for c in computes for v in sizes_of(c)} | {v for t in (*used, *given) for s in t.shape for v in s.vars}
    for t in sorted(form.inputs, key=lambda t: t.ndim):
        known = determined([*needed, *given])
        if sizes <= known:
            break
        if (sizes & determined([*needed, *given, t])) - known:
            needed.add(t)
    inputs = (*(t for t in (*form.inputs, *saved) if t in needed), *given)
    return Program(name, inputs, tuple(outputs), len(outputs) == 1, form.loc)


def determined(tensors: Sequence[Tensor]) -> set[Var]:
    """The sizes that follow from the shapes of ``tensors``, as :func:`dsl.bind.bind_sizes` finds them."""
    entries = [s for t in tensors for s in t.shape]
    known: set[Var] = set()
    while True:
        found = {v for s in entries for v in _solved(s, known)}
        if found <= known:
            return known
        known |= found


def _solved(size: Term, known: set[Var]) -> set[Var]:
    unknown = size.vars - known
    if len(unknown) != 1:
        return set()
    (v,) = unknown
    coefficient = size.coef_term(v)
    return {v} if coefficient is not None and coefficient.bounds[0] > 0 else set()
