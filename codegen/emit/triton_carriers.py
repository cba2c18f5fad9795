"""Reductions and scans: Triton's own for plain sums and integer extremes, a generated combine function for every other carrier."""

from __future__ import annotations

import re

from codegen.emit.triton_helpers import Helpers
from codegen.emit.triton_maths import Operand, convert, pointwise
from codegen.emit.writer import atom
from dsl.carrier import ALL, ANY, MAX, MIN, SUM, Carrier
from dsl.dtype import Dtype
from dsl.errors import InternalError, TargetError
from dsl.opset import result_dtype


class TextAlgebra:
    """The :class:`dsl.carrier.Algebra` whose values are Triton expressions, one statement each."""

    def __init__(self, helpers: Helpers) -> None:
        self.helpers = helpers
        self.lines: list[str] = []

    def _let(self, text: str, dtype: Dtype) -> Operand:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return Operand(name, dtype)

    def op(self, name: str, *args: Operand) -> Operand:
        """A pointwise operation with the opset's promotion."""
        rule = result_dtype(name, [a.dtype for a in args])
        if isinstance(rule, str):
            raise InternalError(rule)
        return self._let(pointwise(name, [self.cast(a, rule[0]) for a in args], rule[1], self.helpers), rule[1])

    def const(self, value: float, dtype: Dtype) -> Operand:
        """A literal."""
        return Operand.const(value, dtype)

    def where(self, cond: Operand, a: Operand, b: Operand) -> Operand:
        """Selection."""
        return self._let(pointwise("where", [cond, a, b], a.dtype, self.helpers), a.dtype)

    def cast(self, x: Operand, dtype: Dtype) -> Operand:
        """Conversion."""
        return x if x.dtype == dtype else self._let(convert(x, dtype, self.helpers), dtype)

    def dtype(self, x: Operand) -> Dtype:
        """The dtype of a value."""
        return x.dtype


def combine_function(carrier: Carrier, dtypes: tuple[Dtype, ...], helpers: Helpers, swapped: bool = False) -> str:
    """The name of a function of two states, first all of ``a``'s components, then ``b``'s; ``swapped`` when ``b`` comes first in order."""
    label = re.sub(r"\W+", "_", carrier.name).strip("_")
    name = f"_combine_{label}_{'_'.join(d.name for d in dtypes)}" + ("_swapped" if swapped else "")
    if name not in helpers.sources:
        algebra = TextAlgebra(helpers)
        a, b = (tuple(Operand(f"{side}{n}", d) for n, d in enumerate(dtypes)) for side in "ab")
        results = carrier.combine(algebra, b, a) if swapped else carrier.combine(algebra, a, b)
        params = ", ".join(x.text for x in (*a, *b))
        body = "".join(f"    {line}\n" for line in algebra.lines)
        helpers.add(name, f"def {name}({params}):\n{body}    return {', '.join(r.typed for r in results)}\n")
    return name


def reduction(carrier: Carrier, states: tuple[str, ...], dtypes: tuple[Dtype, ...], axis: int, helpers: Helpers) -> str:
    """The states reduced along one dimension: a tensor, or a tuple of them for several states."""
    if not carrier.commutative:
        reason = "a GPU reduces a tile in an order of its own"
        raise TargetError(f"the reduction `{carrier}` is not commutative", reason, "run its axis serially")
    d = dtypes[0]
    if len(states) == 1:
        (x,) = states
        if carrier == SUM and (d.is_float or d.bits >= 32):
            return f"tl.sum({x}, axis={axis})"
        if carrier in (MAX, MIN) and d.is_int and d.bits >= 32:
            return f"tl.{carrier.name}({x}, axis={axis})"
        if carrier in (ANY, ALL):
            return f"(tl.{'max' if carrier == ANY else 'min'}({atom(x)}.to(tl.int32), axis={axis}) != 0)"
    text = states[0] if len(states) == 1 else f"({', '.join(states)})"
    return f"tl.reduce({text}, {axis}, {combine_function(carrier, dtypes, helpers)})"


def prefix(carrier: Carrier, states: tuple[str, ...], dtypes: tuple[Dtype, ...], axis: int, reverse: bool, helpers: Helpers) -> str:
    """The inclusive prefix combination along one dimension."""
    text = states[0] if len(states) == 1 else f"({', '.join(states)})"
    back = ", reverse=True" if reverse else ""
    return f"tl.associative_scan({text}, {axis}, {combine_function(carrier, dtypes, helpers, swapped=reverse)}{back})"
