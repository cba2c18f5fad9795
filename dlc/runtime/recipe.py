"""All that calling a compiled CPU kernel needs, as plain data: what goes to disk beside the machine code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from codegen.artifact import Formula, formula
from dsl.dim import Term, Var, as_term, product
from dsl.errors import InternalError
from dsl.loc import Loc
from dsl.program import Program

if TYPE_CHECKING:
    from codegen.emit.llvm import CpuModule
    from codegen.tile.ir import TileProgram

Shape = tuple[int, ...]
Formulas = tuple[Formula, ...]


@dataclass(frozen=True)
class Recipe:
    """How to call one compiled kernel.

    Shapes, strides and bytes are numbers, or formulas over the names in ``sizes`` where the kernel serves many sizes.

    Attributes:
        name: the kernel's name.
        single: whether a call returns one tensor rather than a tuple.
        entry: the function's name in the object code.
        inputs: (parameter, dtype, shape, strides) of each; strides in elements. A size is bound by the first entry that is its bare name.
        outputs: (dtype, shape) of each.
        workspaces: bytes of each buffer that lives for one call.
        scratch: bytes private to each thread.
        sizes: names of the integers that the code takes after its pointers.
        solved: (size, input, dimension, rest, factor) of each that no entry is equal to: it is (that entry - rest) // factor.
        in_place: (input, output) by their numbers, such that the output may be written over the input.
        place: file, line and function of the definition.
    """

    name: str
    single: bool
    entry: str
    inputs: tuple[tuple[str, str, Formulas, Formulas], ...]
    outputs: tuple[tuple[str, Formulas], ...]
    workspaces: Formulas = ()
    scratch: Formula = 0
    sizes: tuple[str, ...] = ()
    in_place: tuple[tuple[int, int], ...] = ()
    place: tuple[str, int, str] = field(default=("", 0, ""), compare=False)
    solved: tuple[tuple[str, int, int, Formula, int], ...] = ()

    @property
    def loc(self) -> Loc:
        """Where the kernel is defined."""
        return Loc(*self.place)

    @property
    def bound(self) -> tuple[str, ...]:
        """The names of sizes that the inputs determine, in the order in which they meet them."""
        found = (e for _, _, shape, strides in self.inputs for e in (*shape, *strides) if isinstance(e, str) and e.isidentifier())
        return tuple(dict.fromkeys((*found, *(name for name, *_ in self.solved))))

    def to_json(self) -> str:
        """As text; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Recipe:
        """The recipe that :meth:`to_json` wrote.

        Raises:
            ValueError: it is not one.
        """
        try:
            return Recipe(**{name: _tuples(value) for name, value in json.loads(text).items()})
        except (TypeError, AttributeError) as e:
            raise ValueError(f"not a recipe: {e}") from e


def recipe(program: Program, strides: Sequence[Sequence[Term]], tile: TileProgram, module: CpuModule,
           in_place: tuple[tuple[int, int], ...]) -> Recipe:
    """The recipe of a compiled program.

    Args:
        program: with the sizes it was compiled for; some may be symbolic.
        strides: of each input, in elements.
        tile: its tile program.
        module: its code.
        in_place: see :class:`Recipe`.

    Raises:
        InternalError: a symbolic size that no entry of a shape or stride determines.
    """
    names: dict[Var, str] = {}
    for t, own in zip(program.inputs, strides):
        for term in (*t.shape, *own):
            for v in sorted(term.vars, key=lambda v: v.uid):
                names.setdefault(v, f"n{len(names)}")
    names |= {v: f"n{len(names) + k}" for k, v in enumerate(v for v in tile.sizes if v not in names)}
    made = Recipe(
        program.name, program.single, module.entry,
        tuple((t.name, t.dtype.name, _formulas(t.shape, names), _formulas(own, names)) for t, own in zip(program.inputs, strides)),
        tuple((t.dtype.name, _formulas(t.shape, names)) for t in program.outputs),
        tuple(formula(product(b.shape) * b.dtype.itemsize, names) for b in module.workspaces), formula(module.scratch, names),
        tuple(names[v] for v in tile.sizes), in_place, place_of(program), _solved(program, strides, names))
    if unknown := set(names.values()) - set(made.bound):
        raise InternalError(f"{program.name} has sizes that its arguments do not show", f"{[v for v, n in names.items() if n in unknown]}",
                            loc=program.loc)
    return made


def _solved(program: Program, strides: Sequence[Sequence[Term]],
            names: Mapping[Var, str]) -> tuple[tuple[str, int, int, Formula, int], ...]:
    """How sizes follow that no entry of a shape or stride is equal to: each from an entry that is affine in it, the others being known."""
    entries = [(n, d, size) for n, t in enumerate(program.inputs) for d, size in enumerate(t.shape)]
    known = {v for terms in ([size for _, _, size in entries], *strides) for t in terms for v in t.vars if as_term(v) == t}
    found: list[tuple[str, int, int, Formula, int]] = []
    for n, d, size in entries:
        unknown = [v for v in size.vars if v not in known]
        factor = size.coef(unknown[0]) if len(unknown) == 1 else None
        if factor:
            rest = size - as_term(unknown[0]) * factor
            found.append((names[unknown[0]], n, d, formula(rest, names), factor))
            known.add(unknown[0])
    return tuple(found)


def contiguous(shape: Sequence[int]) -> Shape:
    """The strides of a tensor without gaps."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def known(entries: Formulas) -> Shape | None:
    """Entries that are all numbers; None where one is a formula."""
    numbers = tuple(e for e in entries if isinstance(e, int))
    return numbers if len(numbers) == len(entries) else None


def place_of(program: Program) -> tuple[str, int, str]:
    """Where a program is defined, as plain data."""
    loc = program.loc
    return (loc.file, loc.line, loc.function) if loc is not None else ("", 0, "")


def _formulas(terms: Sequence[Term], names: Mapping[Var, str]) -> Formulas:
    return tuple(formula(t, names) for t in terms)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
