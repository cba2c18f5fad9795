"""The kernels derived from a kernel: its backwards, its forward derivative, its form over a batch, and what is kept between them.

A call that autograd follows runs the forward with what its backward wants of it as further results: row maxima and sums, products of
matrices. :mod:`dsl.derivative.saving` decides by bytes, for sizes rounded up to powers of two, or the kernel's ``save`` says. A kernel
that is reproducible runs as it does without gradients, so nothing but its results is kept unless its ``save`` says so. Gradients of
gradients are taken of the backward that computes everything again from the inputs, since what was kept is no input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from dlc.lazy import lazy
from dsl.bind import bind_sizes
from dsl.errors import ArgumentError
from dsl.program import Program

if TYPE_CHECKING:
    from dsl import batching, derivative
    from dsl.derivative import SavePlan
else:
    batching, derivative = lazy("dsl.batching"), lazy("dsl.derivative")

Source = tuple[str, int]  # ("input" or "result", its position)


class Derivable(Protocol):
    """A kernel, as far as its derivatives need it."""

    reproducible: bool
    save: tuple[str, ...] | None

    @property
    def program(self) -> Program:
        """The definition."""

    @property
    def scheduled(self) -> bool:
        """Whether its schedule was chosen for just this program."""

    def __call__(self, *args: Any) -> Any:
        """The results."""


@dataclass(frozen=True)
class Back:
    """A backward.

    Attributes:
        kernel: takes values of the forward, then the gradients of some results.
        sources: where those values are from.
    """

    kernel: Any
    sources: tuple[Source, ...]

    def __call__(self, values: Callable[[Source], torch.Tensor], cotangents: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The gradients."""
        grads = self.kernel(*map(values, self.sources), *cotangents)
        return [grads] if self.kernel.program.single else grads


class Derivatives:
    """What is derived from one kernel, made when it is first needed.

    Args:
        kernel: what is differentiated.
        make: from a program to its kernel.
    """

    def __init__(self, kernel: Derivable, make: Callable[[Program], Any]) -> None:
        self.kernel, self._make = kernel, make
        self._backs: dict[Any, Back] = {}
        self._forwards: dict[Any, Any] = {}
        self._pushed: dict[tuple[int, ...], tuple[Any, tuple[int, ...]]] = {}
        self._batched: dict[tuple[bool, ...], Any] = {}
        self._followed: dict[Any, Followed] = {}

    def _kernel(self, program: Program) -> Any:
        made = self._make(program)
        made.reproducible = self.kernel.reproducible
        return made

    def back(self, wanted: tuple[int, ...], given: tuple[int, ...] | None = None, saved: tuple[str, ...] = ()) -> Back:
        """The backward for the inputs at some positions, from the gradients of the results at others (all of floats when None)."""
        key = wanted, given, saved
        if key not in self._backs:
            program = self.kernel.program
            form = derivative.split_program(program)
            part = form
            if given is not None and len(given) < sum(t.dtype.is_float for t in form.outputs):
                outputs = tuple(form.outputs[n] for n in given)
                part = Program(form.name, form.inputs, outputs, len(outputs) == 1, form.loc)
            names = tuple(program.inputs[n].name for n in wanted)
            there = {c.name for c in part.computes}
            there |= {c.name for c in derivative.asides(part, names)} if not there.issuperset(saved) else set()
            made = derivative.vjp(part, names, [name for name in saved if name in there])
            seeds = sum(t.dtype.is_float for t in part.outputs)
            places = self._places(saved)
            self._backs[key] = Back(self._kernel(made), tuple(places[t.name] for t in made.inputs[:len(made.inputs) - seeds]))
        return self._backs[key]

    def _places(self, saved: tuple[str, ...]) -> dict[str, Source]:
        """Where a backward finds the inputs, and what was saved."""
        form = derivative.split_program(self.kernel.program)
        names = [t.name for t in form.outputs]
        results = [*names, *(name for name in saved if name not in names)]
        return {**{name: ("result", results.index(name)) for name in saved},
                **{t.name: ("input", n) for n, t in enumerate(self.kernel.program.inputs)}}

    def forward(self, saved: tuple[str, ...], wanted: tuple[int, ...]) -> Any:
        """The kernel that also returns what is saved for the gradients of some inputs and is no result; None where that is nothing."""
        key = saved, wanted
        if key not in self._forwards:
            program = self.kernel.program
            whole = derivative.forward_with_saves(program, saved, tuple(program.inputs[n].name for n in wanted))
            self._forwards[key] = self._kernel(whole) if len(whole.outputs) > len(program.outputs) else None
        return self._forwards[key]

    def pushforward(self, moving: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """The forward derivative along the inputs at some positions, and the positions of those it reads before their tangents."""
        if moving not in self._pushed:
            program = self.kernel.program
            made = derivative.jvp(program, tuple(program.inputs[n].name for n in moving))
            names = [t.name for t in program.inputs]
            self._pushed[moving] = self._kernel(made), tuple(names.index(t.name) for t in made.inputs[:len(made.inputs) - len(moving)])
        return self._pushed[moving]

    def batched(self, mapped: tuple[bool, ...]) -> Any:
        """The kernel over a new first axis of some inputs."""
        if mapped not in self._batched:
            self._batched[mapped] = self._kernel(batching.batched(self.kernel.program, mapped))
        return self._batched[mapped]

    def plan(self, wanted: tuple[int, ...], shapes: Sequence[Sequence[int]]) -> SavePlan:
        """What calls with arguments of these shapes keep for the gradients of the inputs at some positions, and why."""
        program = self.kernel.program
        sizes = {v: 1 << (n - 1).bit_length() if n else 0 for v, n in bind_sizes(program, shapes).items()}
        return derivative.plan_saved(program, sizes, tuple(program.inputs[n].name for n in wanted))

    def saved(self, wanted: tuple[int, ...], shapes: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """The names of what is kept.

        Raises:
            ArgumentError: the kernel's ``save`` names no definition.
        """
        given = self.kernel.save
        if given is not None:
            names = [c.name for c in derivative.split_program(self.kernel.program).computes]
            for name in given:
                if name not in names:
                    raise ArgumentError(f"{self.kernel.program.name} has no definition `{name}` to save", f"it has {', '.join(names)}",
                                        loc=self.kernel.program.loc)
            return tuple(given)
        if any(0 in shape for shape in shapes):
            return ()
        found = tuple(c.name for c in self.plan(wanted, shapes).saved)
        if self.kernel.scheduled or self.kernel.reproducible:  # the schedule, and the bits, are those of the forward as it is
            results = {t.name for t in derivative.split_program(self.kernel.program).outputs}
            return tuple(name for name in found if name in results)
        return found

    def follow(self, tensors: Sequence[torch.Tensor], wanted: tuple[int, ...] | None = None) -> Followed:
        """How autograd follows a call with these arguments.

        Args:
            tensors: of the call.
            wanted: the positions of the inputs whose gradients will be asked for where only torch.func knows; nothing is kept then.
        """
        plain = wanted is not None
        mine = wanted if wanted is not None else tuple([n for n, t in enumerate(tensors) if t.requires_grad])
        key = mine, plain, self.kernel.save, tuple([n.bit_length() for t in tensors for n in t.shape])
        known = self._followed.get(key)
        if known is None:
            saved = () if plain else self.saved(mine, [tuple(t.shape) for t in tensors])
            kept = [("input", n) for n in range(len(tensors))]
            if not plain:
                kept = sorted({s for way in ((), saved) for s in self.back(mine, None, way).sources})
            known = self._followed[key] = Followed(self, mine, saved, tuple(kept))
        return known


class Followed:
    """A call that autograd follows: what it runs, what it keeps, and what its backward runs.

    Args:
        derived: of which kernel.
        wanted: the positions of the inputs whose gradients may be asked for.
        saved: the names of what is kept besides inputs.
        kept: the inputs and results that are held for the backward.

    Attributes:
        results: how many results the user sees; what is saved comes after them.
    """

    def __init__(self, derived: Derivatives, wanted: tuple[int, ...], saved: tuple[str, ...], kept: tuple[Source, ...]) -> None:
        self.derived, self.wanted, self.saved = derived, wanted, saved
        self.forward = derived.forward(saved, wanted) if saved else None
        self.results = len(derived.kernel.program.outputs)
        self.kept = kept

    def run(self, launcher: Callable[..., Any] | None, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The results, and what is saved.

        Args:
            launcher: runs the kernel as it is, where it is known.
            tensors: the arguments.
        """
        if self.forward is None and launcher is not None:
            return launcher(tensors)
        kernel = self.forward or self.derived.kernel
        found = kernel(*tensors)
        return [found] if kernel.program.single else found

    def back(self, wanted: tuple[int, ...], given: tuple[int, ...]) -> Back:
        """The backward; the one that begins with the inputs where its gradients may be wanted, or others than were expected are."""
        saved = self.saved if wanted == self.wanted and not torch.is_grad_enabled() else ()
        return self.derived.back(wanted, given, saved)
