"""One operation at certain shapes and dtypes: its program, what each definition costs, and its backward."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dlc.lazy import lazy
from dsl.algebra import reads, substitute, walk
from dsl.carrier import SUM
from dsl.cost import flops
from dsl.dim import as_term, product
from dsl.dtype import Dtype
from dsl.expr import Compute, Input, Reduce, Scan, Tensor, index
from dsl.loc import here
from dsl.ops.dispatch import build
from dsl.program import Program

if TYPE_CHECKING:
    from dsl import derivative
else:
    derivative = lazy("dsl.derivative")

_uids = itertools.count()
_specs: dict[tuple[tuple[int, ...], str], Spec] = {}

Kind = Literal["map", "reduce", "contraction", "alias"]


class Spec:
    """A shape and a dtype; equal ones are one object."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Dtype) -> None:
        self.shape, self.dtype = shape, dtype

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def spec_of(shape: Sequence[int], dtype: Dtype) -> Spec:
    """The one spec of a shape and a dtype."""
    key = (tuple(shape), dtype.name)
    found = _specs.get(key)
    if found is None:
        found = _specs[key] = Spec(key[0], dtype)
    return found


class Source(NamedTuple):
    """What an input of a definition or of a backward is: the template's n-th input, its n-th definition, or the cotangent of one."""

    kind: Literal["input", "definition", "cotangent"]
    number: int


@dataclass(frozen=True)
class Gradient:
    """A backward: a template, where its inputs come from, and the inputs whose gradients its results are."""

    template: Template
    sources: tuple[Source, ...]


class Template:
    """An operation at fixed shapes.

    Args:
        program: its meaning; all sizes are numbers.
        results: for each result, the number of the output that it is, or ``-1 - n`` where it is the n-th input as it stands.
        single: whether there is one result rather than a tuple.
        reproducible: whether kernels that it becomes a part of keep one order of every sum.

    Attributes:
        name: of the operation.
        inputs: the specs of the inputs.
        definitions: every definition of the program in split form (``dsl.derivative.split``); a backward may refer to any of them.
        specs: of each definition.
        results: for each result, the number of its definition, or ``-1 - n``.
        differentiable: whether any result is of a float dtype.
        uid: a number of its own.
    """

    def __init__(self, program: Program, results: Sequence[int] | None = None, single: bool = True, reproducible: bool = False) -> None:
        self.name, self.reproducible = program.name, reproducible
        self.form = derivative.split_program(program)
        self.definitions: tuple[Compute, ...] = tuple(self.form.computes)
        numbers: dict[Tensor, int] = {c: n for n, c in enumerate(self.definitions)}
        places = range(len(program.outputs)) if results is None else results
        self.results = tuple(numbers[self.form.outputs[n]] if n >= 0 else n for n in places)
        self.single = single
        self.inputs = tuple(_spec(t) for t in self.form.inputs)
        self.specs = tuple(_spec(c) for c in self.definitions)
        self.differentiable = any(n < 0 or self.specs[n].dtype.is_float for n in self.results)
        self.uid = next(_uids)
        self._gradients: dict[tuple[tuple[int, ...], tuple[int, ...]], Gradient] = {}

    @cached_property
    def numbers(self) -> dict[Tensor, Source]:
        """Every tensor of the program -> which input or definition it is."""
        found: dict[Tensor, Source] = {t: Source("input", n) for n, t in enumerate(self.form.inputs)}
        return found | {c: Source("definition", n) for n, c in enumerate(self.definitions)}

    @cached_property
    def sources(self) -> tuple[tuple[Source, ...], ...]:
        """For each definition, what it reads."""
        return tuple(tuple(dict.fromkeys(self.numbers[r.tensor] for r in reads(c.body))) for c in self.definitions)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Of each definition.

        ``map`` has no reduction, ``contraction`` is a sum of products, ``reduce`` is any other reduction or scan, and ``alias`` holds
        the elements of other memory in their order, so that nothing is computed.
        """
        return tuple(_kind(c) for c in self.definitions)

    @cached_property
    def work(self) -> tuple[float, ...]:
        """For each definition, operations per element without those of what it reads."""
        return tuple(_work(c) for c in self.definitions)

    def gradient(self, wanted: tuple[int, ...], given: tuple[int, ...]) -> Gradient:
        """The backward: gradients of the inputs numbered ``wanted`` from cotangents of the definitions numbered ``given``.

        Raises:
            DerivativeError: the operation has no derivative.
        """
        key = (wanted, given)
        if key not in self._gradients:
            self._gradients[key] = self._derive(wanted, given)
        return self._gradients[key]

    def _derive(self, wanted: tuple[int, ...], given: tuple[int, ...]) -> Gradient:
        outputs = tuple(self.definitions[n] for n in given)
        part = Program(self.name, self.form.inputs, outputs, len(outputs) == 1, self.form.loc)
        names = tuple(self.form.inputs[n].name for n in wanted)
        chosen = derivative.choose_saved(part, wrt=names) if any(k != "map" for k in self.kinds) else ()
        saved = [c for c in chosen if c in part.computes]
        program = derivative.vjp(part, names, saved)
        inputs = {t.name: Source("input", n) for n, t in enumerate(self.form.inputs)}
        kept = {c.name: Source("definition", n) for n, c in enumerate(self.definitions)}
        own = program.inputs[:len(program.inputs) - len(given)]
        sources = (*((inputs.get(t.name) or kept[t.name]) for t in own), *(Source("cotangent", n) for n in given))
        return Gradient(Template(program, single=False, reproducible=self.reproducible), sources)


class Reshape(Template):
    """The same elements in row-major order under another shape: the same memory, so it is never part of a kernel."""

    def __init__(self, source: Spec, shape: tuple[int, ...]) -> None:
        x = Input("x", tuple(as_term(n) for n in source.shape), source.dtype, here())
        made = build("reshape", shape, lambda *at: x.read(*_unravel(_ravel(at, shape), source.shape)))
        super().__init__(Program("reshape", (x,), (made,), True, here()))
        self.source = source

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """One alias."""
        return ("alias",)

    def gradient(self, wanted: tuple[int, ...], given: tuple[int, ...]) -> Gradient:
        """The cotangent under the shape of the input."""
        return Gradient(Reshape.of(self.specs[0], self.source.shape), (Source("cotangent", given[0]),))

    @staticmethod
    def of(source: Spec, shape: tuple[int, ...]) -> Reshape:
        """The one template of this kind."""
        key = (source, shape)
        if key not in _reshapes:
            _reshapes[key] = Reshape(source, shape)
        return _reshapes[key]


_reshapes: dict[tuple[Spec, tuple[int, ...]], Reshape] = {}


def _ravel(at: Sequence[Any], shape: Sequence[int]) -> Any:
    """The position of an element in row-major order."""
    place: Any = index(0)
    for i, n in zip(at, shape):
        place = place * n + i
    return place


def _unravel(place: Any, shape: Sequence[int]) -> list[Any]:
    """The indices of the element at a position."""
    out: list[Any] = []
    for n in reversed(shape):
        out.append(place % n if n > 1 else index(0))
        place = place // n if n > 1 else place
    return out[::-1]


def _spec(t: Tensor) -> Spec:
    return spec_of([int(s) for s in t.shape], t.dtype)


def _kind(c: Compute) -> Kind:
    heavy = [e for e in walk(c.body) if isinstance(e, (Reduce, Scan))]
    if not heavy:
        return "map"
    return "contraction" if any(isinstance(e, Reduce) and e.carrier == SUM and _reuses(c, e) for e in heavy) else "reduce"


def _reuses(c: Compute, e: Reduce) -> bool:
    """Whether at least two operands are read again and again along some axis of the result, as the factors of a matrix product are."""
    long = [a for a in c.axes if a.extent is not None and a.extent != 1]
    return sum(any(a not in r.free for a in long) for r in reads(e.args[0]) if r.free & set(e.axes)) > 1


def _work(c: Compute) -> float:
    points = product(c.shape).const
    if not points:
        return 0.0
    given = {r.tensor: Input(r.tensor.name, r.tensor.shape, r.tensor.dtype, r.tensor.loc) for r in reads(c.body)}
    alone = Compute(c.name, c.axes, substitute(c.body, {}, given), c.loc, c.dtype)
    return flops(Program(c.name, (), (alone,))) / points
