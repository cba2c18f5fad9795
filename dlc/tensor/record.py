"""From a call of an operation on tensors to a node of the lazy graph.

The call is traced once for each combination of shapes and constants.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dlc.tape import Edge, Spec, Template, Value, apply
from dsl.bind import bind_sizes
from dsl.check import prove_bounds, verify
from dsl.dim import Var, as_term
from dsl.dtype import Dtype
from dsl.errors import ArgumentError
from dsl.expr import Compute, Expr, Input, Tensor, index
from dsl.loc import here
from dsl.program import Program, compute, defining

Result = tuple[Value, Edge | None]
Layout = tuple[type, list[Any]] | None  # how the results are given: in a tuple or list, possibly of others; None for one alone
_templates: dict[Any, Template] = {}
_layouts: dict[Any, Layout] = {}
_MOST = 1 << 16


class Recorder:
    """Collects what a call consists of: the arrays in it, and a key for everything else."""

    __slots__ = ("edges", "key", "values")

    def __init__(self, function: Any) -> None:
        self.key: list[Any] = [function]
        self.values: list[Value] = []
        self.edges: list[Edge | None] = []

    def array(self, value: Value, edge: Edge | None) -> None:
        """An array argument."""
        self.key.append(value.spec)
        self.values.append(value)
        self.edges.append(edge)

    def constant(self, a: Any) -> None:
        """Any other argument.

        Raises:
            ArgumentError: it cannot be part of a definition.
        """
        if isinstance(a, float):
            self.key.append(("float", repr(a)))
        elif isinstance(a, (bool, int, str, Dtype, type(None), type(Ellipsis))):
            self.key.append((type(a), a))
        elif isinstance(a, slice):
            self.key.append(("slice", a.start, a.stop, a.step))
        elif callable(a):
            self.key.append(a)
        else:
            raise ArgumentError(f"a {type(a).__name__} in a call of {getattr(self.key[0], '__name__', 'an operation')}",
                                remedy="tensors, arrays, numbers, texts, dtypes, slices and lists of them are possible")

    def finish(self, make: Callable[[], tuple[Template, Layout]]) -> tuple[list[Result], Layout]:
        """Record the application; ``make`` traces the call when it is new."""
        key = tuple(self.key)
        template = _templates.get(key)
        if template is None:
            if len(_templates) >= _MOST:
                _templates.clear()
            template, _layouts[key] = make()
            _templates[key] = template
        return apply(template, self.values, self.edges), _layouts[key]


def trace_call(function: Callable[..., Any], specs: Sequence[Spec], call: Callable[[Iterator[Input]], Any]) -> tuple[Template, Layout]:
    """The template of a call.

    Args:
        function: the operation.
        specs: of the arrays among the arguments.
        call: makes the call with symbolic arrays in their place.

    Returns:
        The template, and how its results are given.
    """
    names = _names(function, len(specs))
    inputs = tuple(Input(name, tuple(as_term(n) for n in s.shape), s.dtype, here()) for name, s in zip(names, specs))
    with defining():
        result = call(iter(inputs))
    outputs: list[Compute] = []
    places: list[int] = []
    layout = _flatten(result, inputs, outputs, places)
    program = Program(getattr(function, "__name__", "operation"), inputs, tuple(outputs), len(outputs) == 1, here())
    verify(program)
    prove_bounds(program)
    return Template(program, places, layout is None), layout


def trace_kernel(program: Program, specs: Sequence[Spec], reproducible: bool) -> tuple[Template, Layout]:
    """The template of a kernel the user wrote, at some shapes.

    Raises:
        UserError: the shapes do not fit the declaration, or an access is out of bounds.
    """
    special = program.specialize(bind_sizes(program, [s.shape for s in specs]))
    prove_bounds(special)
    layout: Layout = None if program.single else (tuple, [None] * len(program.outputs))
    return Template(special, single=program.single, reproducible=reproducible), layout


def _flatten(result: Any, inputs: Sequence[Input], outputs: list[Compute], places: list[int]) -> Layout:
    """Collect the results of a call, in order; returns how they are given."""
    if isinstance(result, (tuple, list)):
        return type(result), [_flatten(r, inputs, outputs, places) for r in result]
    places.append(_place(result, inputs, outputs))
    return None


def _names(function: Callable[..., Any], count: int) -> list[str]:
    """Names for the inputs: those of the parameters where they are plain, so that messages speak the user's words."""
    parameters = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return (parameters if len(parameters) >= count else [f"x{n}" for n in range(count)])[:count]


def _place(result: Any, inputs: Sequence[Input], outputs: list[Compute]) -> int:
    """The number of the output that a result is, or ``-1 - n`` for the n-th input as it stands."""
    if isinstance(result, Input):
        return -1 - inputs.index(result)
    if isinstance(result, Expr):
        result = compute((), lambda: result, "element")
    if not isinstance(result, Tensor):
        raise ArgumentError(f"the operation gave a {type(result).__name__}, not a tensor")
    if any(result is o for o in outputs):
        axes = tuple(Var(f"i{n}", s) for n, s in enumerate(result.shape))
        result = Compute(result.name, axes, result.read(*(index(a) for a in axes)), result.loc, result.dtype)
    outputs.append(result)
    return len(outputs) - 1
