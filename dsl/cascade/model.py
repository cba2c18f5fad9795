"""What a derivation says: reductions, the states of one pass that gives them all, and what was refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsl.algebra import substitute_values
from dsl.carrier import Carrier
from dsl.cascade.factored import total
from dsl.dim import Var
from dsl.dtype import Dtype
from dsl.expr import Compute, Expr, Read, Tensor, index
from dsl.loc import Loc


def ids(parts: Iterable[object]) -> tuple[int, ...]:
    """Identities: expressions are equal when they are the same node, and ``==`` on them makes a comparison."""
    return tuple(id(x) for x in parts)


@dataclass(frozen=True, eq=False)
class Weight:
    """``base(data + earlier)``: the exponential by which partial results at different earlier results differ.

    ``strict`` is False for a logarithm of sums, where an infinite earlier result means an infinite sum and not NaN.
    """

    base: str
    data_parts: tuple[Expr, ...]
    earlier_parts: tuple[Expr, ...]
    strict: bool = True

    def key(self) -> tuple[object, ...]:
        """What makes two weights the same."""
        return (self.base, ids(self.data_parts), ids(self.earlier_parts), self.strict)

    @property
    def data(self) -> Expr:
        """The part of the exponent free of earlier results."""
        return total(self.data_parts, self.earlier_parts[0].dtype)

    @property
    def earlier(self) -> Expr:
        """The part of the exponent that is earlier results."""
        return total(self.earlier_parts, self.earlier_parts[0].dtype)


@dataclass(frozen=True, eq=False)
class Accumulator:
    """One state of the pass.

    Attributes:
        name: unique in its cascade.
        carrier: how elements are combined.
        inputs: the carrier's inputs of one element, free of earlier results; a weighted sum multiplies the first by the weight.
        extra: axes it has besides the rows.
        state: a placeholder over rows and extra axes for each component of the carrier's state.
        weight: of a weighted sum.
        inside, rounding: a factor of the weight, and the low dtype the two are rounded to.
        guards: conditions outside of which a weighted element is zero.
        centred: multiplies the element by ``data + earlier`` of another weight.
        permit: how the weight, or what is centred, may be multiplied, an operation of :data:`dsl.opset.PRECISIONS`; empty for exactly.
        loc: where the user wrote the reduction.
    """

    name: str
    carrier: Carrier
    inputs: tuple[Expr, ...]
    extra: tuple[Var, ...]
    state: tuple[Tensor, ...]
    weight: Weight | None = None
    inside: Expr | None = None
    rounding: Dtype | None = None
    guards: tuple[Expr, ...] = ()
    centred: Weight | None = None
    permit: str = ""
    loc: Loc | None = None

    def read(self, rows: tuple[Var, ...], component: int = 0) -> Expr:
        """The state at the canonical point."""
        return self.state[component].read(*(index(v) for v in (*rows, *self.extra)))

    def key(self) -> tuple[object, ...]:
        """What makes two accumulators the same."""
        weights = tuple(w.key() if w is not None else None for w in (self.weight, self.centred))
        return (self.carrier, ids(self.inputs), self.extra, weights, ids((self.inside,)), self.rounding, ids(self.guards),
                self.permit)


@dataclass(frozen=True)
class Component:
    """One reduction of the user's and how the pass gives it.

    Attributes:
        tensor: its definition.
        stage: the stage it is in.
        axes: for each axis of the tensor, the row or extra axis it is.
        element: the carrier's inputs over rows, extra axes and the cascade's axes, as defined.
        value: the result, over reads of accumulators' states and of earlier components.
        form: ``independent``, ``deferred``, ``rolling`` or ``moments``.
        used: names of its accumulators.
        earlier: the earlier results that its elements read.
    """

    tensor: Compute
    stage: str
    axes: tuple[Var, ...]
    element: tuple[Expr, ...]
    value: Expr
    form: str
    used: tuple[str, ...]
    earlier: tuple[Read, ...] = ()

    def read(self) -> Expr:
        """A read of the tensor at the canonical point."""
        return self.tensor.read(*(index(v) for v in self.axes))


@dataclass(frozen=True)
class Cascade:
    """Reductions over one box of axes that one pass computes.

    Attributes:
        rows: axes they share.
        axes: what is reduced.
        components: the reductions, earlier ones first.
        accumulators: the states of the pass, in the order in which they must be brought up to date.
        folded: whether its elements are made of reductions that have an element for every row and every point of the axes: a matrix that
            one loop over blocks of the axes need not keep.
    """

    rows: tuple[Var, ...]
    axes: tuple[Var, ...]
    components: tuple[Component, ...] = ()
    accumulators: tuple[Accumulator, ...] = ()
    folded: bool = False

    @property
    def chained(self) -> bool:
        """Whether some component depends on another: without that several passes only share their reads."""
        return any(c.form != "independent" for c in self.components)

    def resolve(self, e: Expr) -> Expr:
        """An expression of earlier components as one of accumulator states."""
        known: dict[Expr, Expr] = {}
        for c in self.components:
            known[c.read()] = substitute_values(c.value, known)
        return substitute_values(e, known)


@dataclass(frozen=True)
class Refusal:
    """A reduction that needs a pass of its own although it reads earlier results over the same axis, and why."""

    tensor: Compute
    stage: str
    earlier: tuple[Read, ...]
    reason: str


@dataclass(frozen=True)
class Derivation:
    """What was found in a nest."""

    cascades: tuple[Cascade, ...]
    refusals: tuple[Refusal, ...]
