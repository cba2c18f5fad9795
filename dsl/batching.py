"""A program over a batch: every element of some inputs' new first axis gives an element of the results' new first axis."""

from __future__ import annotations

from collections.abc import Sequence

from dsl.algebra import inputs_and_computes, reads, transform
from dsl.dim import Var, as_term
from dsl.expr import Compute, Expr, Input, Read, Tensor
from dsl.program import Program


def batched(program: Program, mapped: Sequence[bool], name: str = "batch") -> Program:
    """The program for each element of a new first axis.

    before::

        y[i] = sum[k](x[k] * w[i, k])

    after ``batched(program, (True, False))``::

        y[b, i] = sum[k](x[b, k] * w[i, k])

    Args:
        program: any program; random numbers are the same for every element.
        mapped: for each input, whether it has the new axis; at least one has. Every result has it.
        name: of the new size, made unique.
    """
    taken = {v.name for v in program.dims}
    while name in taken:
        name += "_"
    size = as_term(Var(name, kind="dim"))
    new: dict[Tensor, Tensor] = {}
    computes: dict[Tensor, Compute] = {}
    wide: set[Tensor] = set()
    inputs: list[Input] = []
    for t, own in zip(program.inputs, mapped):
        inputs.append(Input(t.name, (size, *t.shape), t.dtype, t.loc) if own else t)
        new[t] = inputs[-1]
        if own:
            wide.add(t)
    for c in inputs_and_computes(program.outputs)[1]:
        own = c in program.outputs or any(r.tensor in wide for r in reads(c.body))
        b = Var("b", size)
        body = _over(c.body, b, new, wide)
        new[c] = computes[c] = Compute(c.name, (b, *c.axes) if own else c.axes, body, c.loc, c.dtype)
        if own:
            wide.add(c)
    return Program(program.name, tuple(inputs), tuple(computes[t] for t in program.outputs), program.single, program.loc)


def _over(body: Expr, b: Var, new: dict[Tensor, Tensor], wide: set[Tensor]) -> Expr:
    """A body whose reads of what has the new axis are at ``b``."""
    def one(e: Expr) -> Expr | None:
        if not isinstance(e, Read) or new.get(e.tensor, e.tensor) is e.tensor:
            return None
        slots = (as_term(b), *e.data[1]) if e.tensor in wide else e.data[1]
        return Read(e.args, (new[e.tensor], slots), e.dtype, e.loc)

    return transform(body, one)
