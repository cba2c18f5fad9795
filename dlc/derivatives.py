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
            saved: tuple[str, ...] = ()
            kept: list[Source] = [("input", n) for n in range(len(tensors))] if plain else []
            if not plain and any(t.dtype.is_float for t in self.kernel.program.outputs):  # integers have no gradient
                saved = self.saved(mine, [tuple(t.shape) for t in tensors])
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
        single: whether the user gets a tensor rather than a tuple.
        silent: what is computed that has no gradient, by number: integers, and what is saved.
    """

    def __init__(self, derived: Derivatives, wanted: tuple[int, ...], saved: tuple[str, ...], kept: tuple[Source, ...]) -> None:
        self.derived, self.wanted, self.saved = derived, wanted, saved
        self.forward = derived.forward(saved, wanted) if saved else None
        program = derived.kernel.program
        made = (self.forward or derived.kernel).program.outputs
        self.results, self.single = len(program.outputs), program.single
        self.silent = tuple(n for n, t in enumerate(made) if n >= self.results or not t.dtype.is_float)
        self._kept = kept
        self._known: dict[tuple[tuple[bool, ...], tuple[bool, ...], bool], _Gradients] = {}

    def run(self, launcher: Callable[..., tuple[torch.Tensor, ...]] | None, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The results, and what is saved.

        Args:
            launcher: runs the kernel as it is, where it is known.
            tensors: the arguments.
        """
        if self.forward is None:
            if launcher is not None:
                return launcher(tensors)
            kernel, single = self.derived.kernel, self.single
        else:
            kernel, single = self.forward, self.forward.program.single
        found = kernel(*tensors)
        return (found,) if single else tuple(found)

    def keep(self, tensors: Sequence[torch.Tensor], made: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What is held for the backward."""
        return [tensors[n] if kind == "input" else made[n] for kind, n in self._kept]

    def gradients(self, needed: tuple[bool, ...], cotangents: Sequence[torch.Tensor | None],
                  held: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
        """The gradients of the inputs that need one, from the results that have one; where none has, neither do they.

        Args:
            needed: of each input, whether.
            cotangents: of each result, and of what is saved.
            held: what :meth:`keep` gave.
        """
        key = needed, tuple([g is not None for g in cotangents[:self.results]]), torch.is_grad_enabled()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._gradients(*key)
        if known.kernel is None:
            return (None,) * len(needed)
        found = known.kernel(*[held[n] for n in known.read], *[cotangents[n] for n in known.given])
        grads = (found,) if known.single else found
        return [None if n is None else grads[n] for n in known.places]

    def _gradients(self, needed: tuple[bool, ...], there: tuple[bool, ...], again: bool) -> _Gradients:
        """How they are computed: with the backward that begins with the inputs where others than expected, or its own, may be wanted."""
        wanted, given = (tuple(n for n, yes in enumerate(flags) if yes) for flags in (needed, there))
        if not wanted or not given:
            return _Gradients(None)
        back = self.derived.back(wanted, given, self.saved if wanted == self.wanted and not again else ())
        places = tuple(wanted.index(n) if yes else None for n, yes in enumerate(needed))
        return _Gradients(back.kernel, tuple(self._kept.index(s) for s in back.sources), given, places, back.kernel.program.single)


@dataclass(frozen=True)
class _Gradients:
    """How gradients are computed.

    Attributes:
        kernel: the backward; None where there is nothing to compute.
        read: what it reads of what is held, before the gradients of the results.
        given: which results have a gradient.
        places: for each input, which result of the backward is its gradient.
        single: whether the backward gives a tensor rather than a tuple.
    """

    kernel: Any
    read: tuple[int, ...] = ()
    given: tuple[int, ...] = ()
    places: tuple[int | None, ...] = ()
    single: bool = False
