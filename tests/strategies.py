"""Random programs over small ragged shapes, with arguments: the input of every differential test.

``random_case(seed)`` is deterministic. Values stay of moderate size, so that two orders of summation agree to a few units in
the last place of the largest term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsl import dtype as dt
from dsl.carrier import ALL, ANY, ARGMAX, ARGMIN, LOGSUMEXP, MAX, MIN, MOMENTS, PROD, SUM
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype
from dsl.expr import Compute, Expr, Input, Tensor, cast, const, index, op, read, reduce, scan, where
from dsl.numerics import NUMPY
from dsl.program import Program

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 17)
BINARY = ("add", "sub", "mul", "max", "min")
UNARY = ("tanh", "sigmoid", "neg", "abs", "sin", "floor")


@dataclass
class Case:
    """A program and arguments it is in bounds for."""

    program: Program
    arrays: tuple[np.ndarray, ...]
    sizes: dict[Var, int]


@dataclass
class Options:
    """What a random program may contain."""

    symbolic: bool = True
    dtypes: tuple[Dtype, ...] = (dt.f32,)
    reductions: bool = True
    scans: bool = True
    gathers: bool = True
    stencils: bool = True
    computes: int = 3
    depth: int = 3
    rank: int = 2
    sizes: tuple[int, ...] = SIZES


def random_case(seed: int, **options: Any) -> Case:
    """A random program with its arguments; the keyword arguments are those of :class:`Options`."""
    return _Generator(np.random.default_rng(seed), Options(**options)).case()


@dataclass
class _Generator:
    rng: np.random.Generator
    options: Options
    sizes: dict[Var, int] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    indices: list[Input] = field(default_factory=list)
    bound: int = 0

    def case(self) -> Case:
        dims = [self._dim(n) for n in "MNK"[:self.rng.integers(2, 4)]]
        inputs: list[Input] = []
        for n in range(self.rng.integers(2, 4)):
            shape = tuple(self._pick(dims) for _ in range(self.rng.integers(1, self.options.rank + 1)))
            inputs.append(Input("xyzw"[n], shape, self._pick(self.options.dtypes)))
        inputs.append(Input("d", tuple(dims), dt.f32))  # so that every size is bound
        if self.options.gathers:
            self.indices.append(Input("idx", (self._pick(dims),), dt.i32))
        self.tensors = [*inputs]
        computes = [self._compute(f"t{n}", dims) for n in range(self.rng.integers(1, self.options.computes + 1))]
        outputs = [computes[-1]] + ([computes[0]] if len(computes) > 1 and self.rng.random() < 0.3 else [])
        everything = (*inputs, *self.indices)
        program = Program("random", everything, tuple(outputs), len(outputs) == 1)
        return Case(program, tuple(self._array(t) for t in everything), self.sizes)

    def _pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def _dim(self, name: str) -> Term:
        size = int(self._pick(self.options.sizes))
        if not self.options.symbolic:
            return as_term(size)
        v = Var(name, kind="dim")
        self.sizes[v] = size
        return as_term(v)

    def _array(self, t: Input) -> np.ndarray:
        shape = tuple(int(s.eval(self.sizes)) for s in t.shape)
        if not t.dtype.is_float:
            return self.rng.integers(-3, 20, shape).astype(NUMPY[t.dtype])
        return self.rng.standard_normal(shape).astype(NUMPY[t.dtype])

    def _compute(self, name: str, dims: list[Term]) -> Compute:
        rank = int(self.rng.integers(0 if self.rng.random() < 0.1 else 1, self.options.rank + 1))
        axes = tuple(Var("ijl"[n], self._pick(dims)) for n in range(rank))
        self.bound = 0
        body = self._value(axes, self.options.depth)
        out = self._pick(self.options.dtypes)
        c = Compute(name, axes, cast(body, out if self.rng.random() < 0.5 else body.dtype))
        self.tensors.append(c)
        return c

    # -- scalars of float dtype --------------------------------------------------------------------------------
    def _value(self, axes: tuple[Var, ...], depth: int) -> Expr:
        if depth <= 0:
            return self._leaf(axes)
        choices: list[tuple[float, Callable[[tuple[Var, ...], int], Expr]]] = [
            (4, self._binary), (2, self._unary), (1, self._selection), (1, self._round)]
        if self.options.reductions and self.bound < 2:
            choices.append((3, self._reduction))
        if self.options.scans and axes and self.bound < 2:
            choices.append((1, self._scan))
        weights = np.array([w for w, _ in choices])
        return choices[int(self.rng.choice(len(choices), p=weights / weights.sum()))][1](axes, depth - 1)

    def _leaf(self, axes: tuple[Var, ...]) -> Expr:
        kind = self.rng.random()
        if kind < 0.1:
            return const(float(self.rng.integers(-8, 9)) / 4)
        if kind < 0.2 and axes:
            return cast(index(self._pick(axes)), dt.f32) * 0.125
        return self._read(self._pick(self.tensors), axes)

    def _binary(self, axes: tuple[Var, ...], depth: int) -> Expr:
        return op(self._pick(BINARY), self._value(axes, depth), self._value(axes, depth - 1))

    def _unary(self, axes: tuple[Var, ...], depth: int) -> Expr:
        return op(self._pick(UNARY), self._value(axes, depth))

    def _round(self, axes: tuple[Var, ...], depth: int) -> Expr:
        return cast(cast(self._value(axes, depth), self._pick(self.options.dtypes)), dt.f32)

    def _selection(self, axes: tuple[Var, ...], depth: int) -> Expr:
        return where(self._condition(axes), self._value(axes, depth), self._value(axes, depth - 1))

    def _condition(self, axes: tuple[Var, ...]) -> Expr:
        if axes and self.rng.random() < 0.7:
            other = index(self._pick(axes)) if self.rng.random() < 0.4 else int(self.rng.integers(0, 6))
            return op(self._pick(("lt", "ge", "eq", "ne")), index(self._pick(axes)), other)
        return op("gt", self._leaf(axes), 0.0)

    def _reduction(self, axes: tuple[Var, ...], depth: int) -> Expr:
        self.bound += 1
        new = [Var("kpq"[self.bound - 1], self._extent(axes)) for _ in range(1 if self.rng.random() < 0.8 else 2)]
        inner = self._value((*axes, *new), depth)
        self.bound -= 1
        carrier = self._pick((SUM, SUM, SUM, MAX, MIN, LOGSUMEXP, MOMENTS, ARGMAX, ARGMIN, PROD, ANY, ALL))
        if carrier in (ARGMAX, ARGMIN):
            out = int(self.rng.integers(2))
            position = as_term(new[0])
            for a in new[1:]:
                position = position * a.extent + a
            return cast(reduce(carrier, (inner, index(position)), tuple(new), out), dt.f32)
        if carrier in (ANY, ALL):
            return cast(reduce(carrier, (op("gt", inner, 0.0),), tuple(new)), dt.f32)
        if carrier is PROD:
            inner = op("tanh", inner) * 1.5
        return reduce(carrier, (inner,), tuple(new), int(self.rng.integers(2)) if carrier is MOMENTS else 0)

    def _extent(self, axes: tuple[Var, ...]) -> Term:
        return self._pick(self._pick([t for t in self.tensors if t.shape]).shape)

    def _scan(self, axes: tuple[Var, ...], depth: int) -> Expr:
        at = self._pick(axes)
        self.bound += 1
        k = Var("s", at.extent)
        inner = self._value((*(a for a in axes if a is not at), k), depth)
        self.bound -= 1
        exclusive, reverse = bool(self.rng.integers(2)), bool(self.rng.integers(2))
        carrier = self._pick((SUM, SUM, MAX, LOGSUMEXP))
        if carrier is not SUM:
            exclusive = False  # the identity of max is minus infinity
        return scan(carrier, (inner,), k, as_term(at), exclusive=exclusive, reverse=reverse)

    # -- reads, in bounds by construction ------------------------------------------------------------------------
    def _read(self, t: Tensor, axes: tuple[Var, ...]) -> Expr:
        guards: list[Expr] = []
        where_ = tuple(self._index(size, axes, guards) for size in t.shape)
        value: Expr = read(t, where_)
        if t.dtype is not dt.f32 and self.rng.random() < 0.3:
            value = cast(value, dt.f32)
        for g in guards:
            value = where(g, value, const(0.5, value.dtype))
        return value

    def _index(self, size: Term, axes: tuple[Var, ...], guards: list[Expr]) -> Any:
        fitting = [a for a in axes if a.extent == size]
        kind = self.rng.random()
        if fitting and kind < 0.6:
            return as_term(self._pick(fitting))
        if fitting and kind < 0.7:
            return size - 1 - self._pick(fitting)
        if axes and kind < 0.8 and self.options.stencils:
            shifted = as_term(self._pick(axes)) * int(self.rng.integers(1, 3)) + int(self.rng.integers(-2, 3))
            guards.append(op("and", op("ge", index(shifted), 0), op("lt", index(shifted), index(size))))
            return shifted
        if axes and kind < 0.9:
            return (as_term(self._pick(axes)) + int(self.rng.integers(0, 4))) % size
        if self.indices and kind < 0.97:
            t = self._pick(self.indices)
            raw = cast(read(t, tuple(self._index(s, axes, guards) for s in t.shape)), dt.i64)
            return op("min", op("max", raw, const(0, dt.i64)), index(size - 1))
        return 0
