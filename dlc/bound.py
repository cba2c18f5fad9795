"""Kernels with constant arguments: weights are packed once, and again when somebody changed them.

A product copies the factor that lies along its vector lanes into panels while it runs, or reads it as it lies where the rows are too few
to repay the copy. A weight that does not change is kept in panels instead (``codegen/heuristics/panels.py``): the copy is made once, and
products of few rows read memory in the order in which they need it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from dlc.calling import canonical_strides
from dlc.compiler import nominal
from dlc.lazy import lazy
from dlc.runtime.arguments import as_tensor
from dlc.runtime.device import host_target
from dsl.bind import bind_sizes
from dsl.dim import Term, Var, as_term
from dsl.errors import ArgumentError, ShapeError
from dsl.expr import Input, Tensor
from dsl.program import Program

if TYPE_CHECKING:
    from codegen.heuristics import panels
    from codegen.heuristics.panels import Panels
    from codegen.tile import layout
    from dsl import stages
else:
    panels, layout, stages = lazy("codegen.heuristics.panels"), lazy("codegen.tile.layout"), lazy("dsl.stages")


class Bindable(Protocol):
    """A kernel, as far as this module needs to know."""

    reproducible: bool

    @property
    def program(self) -> Program:
        """The definition."""

    @property
    def free_schedule(self) -> bool:
        """Whether the heuristics make its schedule."""

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """The results."""


@dataclass
class Constant:
    """A constant argument.

    Attributes:
        given: the user's tensor.
        place: which parameter it is.
        panels: how it is kept; None where it is read as it lies.
        packed: the panels; None before they are made.
        seen: address and version of the tensor when they were made.
    """

    given: torch.Tensor
    place: int
    panels: Panels | None = None
    pack: Any = None
    packed: torch.Tensor | None = None
    seen: tuple[int, int] = field(default=(0, -1))

    @property
    def bytes(self) -> int:
        """Of the panels, made or not."""
        if self.panels is None:
            return 0
        n = self.given.shape[self.panels.axis]
        return self.given.numel() // max(n, 1) * (-(-n // self.panels.width) * self.panels.width) * self.given.element_size()


class Bound:
    """A kernel with some of its arguments given once and for all: call it with the others.

    A change of a constant through torch (an optimiser's step, ``copy_``) is noticed by its version, and it is packed again. What torch
    does not count (``.data``, numpy over the same memory) is not noticed: call :meth:`refresh`.

    Args:
        kernel: the kernel.
        constants: parameter -> tensor on the CPU.
        make: makes a kernel of a program.
    """

    def __init__(self, kernel: Bindable, constants: Mapping[str, Any], make: Callable[[Program], Any]) -> None:
        self.kernel = kernel
        self._lock = threading.Lock()
        self._enough: dict[Any, bool] = {}
        inputs = kernel.program.inputs
        self.constants = {name: Constant(_constant(name, value, kernel.program), _place(name, kernel.program))
                          for name, value in constants.items()}
        self._free = [n for n, t in enumerate(inputs) if t.name not in self.constants]
        self._names = [inputs[n].name for n in self._free]
        found = self._find()
        special = kernel.program.specialize(self._sizes)
        for p in found:
            own = self.constants[p.name]
            own.panels, own.pack = p, make(panels.packer(special.inputs[own.place], p))
        self._inner = kernel
        if found:
            self._inner = make(panels.in_panels(special, found))
            self._inner.reproducible = kernel.reproducible
        self._packed = [c for c in self.constants.values() if c.panels is not None]
        self._given = [c.given for c in self.constants.values()]
        self._full: list[Any] = [None] * len(inputs)
        for c in self.constants.values():
            self._full[c.place] = c.given

    def _find(self) -> list[Panels]:
        """What to keep in panels, judged with every other size as large."""
        program = self.kernel.program
        self._sizes = _sizes(program, self.constants)
        if not self.kernel.free_schedule or any(0 in c.given.shape for c in self.constants.values()):
            return []
        nest = stages.build_nest(program.specialize(self._sizes))
        strides: dict[Tensor, tuple[Term, ...]] = {
            t: layout.stride_terms(t.name, t.shape, c.given.shape, canonical_strides(c.given))
            for t in nest.program.inputs for name, c in self.constants.items() if t.name == name and t.ndim == c.given.dim()}
        target = nominal(host_target()) if self.kernel.reproducible else host_target()
        return panels.find_panels(nest, {t.name for t in strides}, target, strides)

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """The results for the arguments that are not constant, in their order or by name.

        Raises:
            UserError: as in a call of the kernel.
        """
        if named or len(args) != len(self._free):
            args = self._positional(args, named)
        full = self._full.copy()
        for n, a in zip(self._free, args):
            full[n] = a
        if not self._packed or self._elsewhere(args) or not self._many(args, full):
            return self.kernel(*full) if out is None else self.kernel(*full, out=out)
        for c in self._packed:
            t = c.given
            if c.seen != (t.data_ptr(), t._version):
                self._pack(c)
            full[c.place] = c.packed
        return self._inner(*full) if out is None else self._inner(*full, out=out)

    @property
    def packed(self) -> dict[str, int]:
        """Bytes of the panels that are kept now, by parameter."""
        return {name: c.bytes for name, c in self.constants.items() if c.packed is not None}

    def refresh(self) -> None:
        """Pack anew at the next call."""
        for c in self._packed:
            c.seen = (0, -1)

    def free(self) -> int:
        """Give the panels' memory back; the next call packs again. Returns how many bytes that were."""
        with self._lock:
            total = sum(self.packed.values())
            for c in self._packed:
                c.packed, c.seen = None, (0, -1)
        return total

    def explain(self) -> str:
        """How each constant is kept, and the bytes that takes beside the tensor itself."""
        lines = []
        for name, c in self.constants.items():
            declared = self.kernel.program.inputs[c.place]
            shape = f"{declared.dtype}[{', '.join(map(str, c.given.shape))}]"
            if c.panels is None:
                lines.append(f"{name}: {shape}, read as it lies")
            else:
                lines.append(f"{name}: {shape}, in panels of {c.panels.width} along dimension {c.panels.axis}, {c.bytes} bytes"
                             f"{'' if c.packed is not None else ' when first called'}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.kernel.program.name} of {', '.join(self._names) or 'nothing'}>\n{self.explain()}"

    def _pack(self, c: Constant) -> None:
        with self._lock, torch.no_grad():
            seen = (c.given.data_ptr(), c.given._version)
            given = c.given.detach()
            if c.packed is None:
                c.packed = c.pack(given)
            elif c.seen != seen:
                c.pack(given, out=c.packed)
            c.seen = seen

    def _elsewhere(self, args: tuple[Any, ...]) -> bool:
        """Whether the kernel itself must be called: gradients are wanted, or the others are on a GPU."""
        followed = torch.is_grad_enabled()
        for a in args:
            if isinstance(a, torch.Tensor) and (not a.is_cpu or followed and a.requires_grad):
                return True
        return followed and any([t.requires_grad for t in self._given])

    def _many(self, args: tuple[Any, ...], full: Sequence[Any]) -> bool:
        """Whether the products have enough rows for panels; known by the shapes of what is not constant."""
        shapes = tuple([getattr(a, "shape", None) for a in args])
        known = self._enough.get(shapes)
        if known is None:
            sizes = bind_sizes(self.kernel.program, [getattr(a, "shape", ()) for a in full])
            known = self._enough[shapes] = all(c.panels is None or c.panels.rows.eval(sizes) >= c.panels.fewest for c in self._packed)
        return known

    def _positional(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        name = self.kernel.program.name
        if wrong := next((n for n in named if n in self.constants or n not in self._names or self._names.index(n) < len(args)), None):
            problem = "is constant" if wrong in self.constants else "is given twice" if wrong in self._names else "is not a parameter"
            raise ArgumentError(f"`{wrong}` {problem} of {name}", f"left to give are {', '.join(self._names)}", loc=self.kernel.program.loc)
        missing = [n for n in self._names[len(args):] if n not in named]
        if missing or len(args) > len(self._names):
            problem = f"without `{missing[0]}`" if missing else f"with {len(args)} arguments"
            raise ArgumentError(f"{name} is called {problem}", f"left to give are {', '.join(self._names) or 'none'}",
                                loc=self.kernel.program.loc)
        return (*args, *(named[n] for n in self._names[len(args):]))


def _place(name: str, program: Program) -> int:
    names = [t.name for t in program.inputs]
    if name not in names:
        raise ArgumentError(f"`{name}` is not a parameter of {program.name}", f"its parameters are {', '.join(names)}", loc=program.loc)
    return names.index(name)


def _constant(name: str, value: Any, program: Program) -> torch.Tensor:
    """A constant, checked: only tensors of torch's count their changes."""
    declared: Input = program.inputs[_place(name, program)]
    if not isinstance(value, torch.Tensor):
        raise ArgumentError(f"`{name}` of {program.name} is bound to a {type(value).__name__}", "only torch's tensors say when they change",
                            "pass a torch tensor: torch.from_numpy shares an array's memory", program.loc)
    if not value.is_cpu:
        raise ArgumentError(f"`{name}` of {program.name} is bound to a tensor on {value.device}", "constants are packed for CPUs",
                            "call the kernel itself there", program.loc)
    if value.is_inference():
        raise ArgumentError(f"`{name}` of {program.name} is bound to an inference tensor", "it does not count its changes",
                            "clone it outside of torch.inference_mode()", program.loc)
    if value.dim() != declared.ndim:
        raise ShapeError(f"`{name}` has {value.dim()} dimensions, its declaration {declared.ndim}", f"it is declared {declared}",
                         loc=declared.loc)
    as_tensor(value, declared)
    return value


def _sizes(program: Program, constants: Mapping[str, Constant]) -> dict[Var, int]:
    """The sizes that the constants determine."""
    found: dict[Var, int] = {}
    for c in constants.values():
        declared = program.inputs[c.place]
        for size, got in zip(declared.shape, c.given.shape):
            (v,) = size.vars if len(size.vars) == 1 else (None,)
            if v is not None and size == as_term(v) and found.setdefault(v, got) != got:
                raise ShapeError(f"the constants of {program.name} disagree about {v.name}",
                                 f"it is {found[v]} in one and {got} in `{declared.name}`", loc=declared.loc)
    return found
