"""How tensors lie in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsl.dim import ONE, Term, Var, as_term


def contiguous(shape: tuple[Term, ...]) -> tuple[Term, ...]:
    """Row-major strides, in elements."""
    steps = [ONE] * len(shape)
    for n in reversed(range(len(shape) - 1)):
        steps[n] = steps[n + 1] * shape[n + 1]
    return tuple(steps)


def stride_terms(name: str, shape: tuple[Term, ...], sizes: Sequence[int], strides: Sequence[int]) -> tuple[Term, ...]:
    """The strides that a kernel for every size of a symbolic shape takes a tensor to have, from those of one tensor.

    A row-major tensor is taken for row-major whatever its sizes. Else a stride of zero or one stays, and any other is a run-time size of
    its own, unless the shape is known: then the strides are too.
    """
    if all(t.is_const for t in shape):
        return tuple(as_term(int(s)) for s in strides)
    dense = contiguous(tuple(as_term(int(n)) for n in sizes))
    if all(int(s) == d.const for n, s, d in zip(sizes, strides, dense) if n != 1):
        return contiguous(shape)
    return tuple(as_term(int(s)) if int(s) in (0, 1) else as_term(Var(f"{name}_stride{n}", kind="dim", likely=int(s)))
                 for n, s in enumerate(strides))


def size_values(sizes: Sequence[Var], dims: Mapping[Var, int], strides: Sequence[tuple[Term, int]]) -> tuple[int, ...] | None:
    """The value of each run-time size, from those of the dims and (term, value) of every stride that matters; None when they disagree."""
    values = dict(dims)
    for t, n in strides:
        (own,) = t.vars if len(t.vars) == 1 else (None,)
        if own is not None and own not in values and t == as_term(own):
            values[own] = n
    if any(t.vars - set(values) or t.eval(values) != n for t, n in strides):
        return None
    return tuple(values.get(v, 1) for v in sizes)
