"""What happens to a kernel between its schedule and its source, for each target, in one place.

A nest is lowered to a tile program, the passes of its target run in the order given here, and the verifier has the last word before
anything is emitted: every access in bounds, parallel points apart. With ``every=True`` the verifier also runs between the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from codegen.lower import lower as _lower
from codegen.passes.hoist import hoist
from codegen.passes.serialize import serialize
from codegen.passes.simplify import simplify
from codegen.target import Target
from codegen.tile.ir import TileProgram
from codegen.tile.races import UndecidedRace
from codegen.tile.verify import verify
from dsl.dim import Term
from dsl.expr import Tensor
from dsl.nest import Nest


@dataclass(frozen=True)
class Pass:
    """One step: a function from tile program to tile program, and why it stands where it does."""

    name: str
    run: Callable[[TileProgram], TileProgram]
    because: str


_SIMPLIFY = Pass("simplify", simplify,
                 "stages lowered into one place read the same elements, and hoisting puts equal values side by side")

CPU: tuple[Pass, ...] = (
    Pass("hoist", hoist,
         "a row's division or square root would be made again for every vector of the row, and LLVM is not asked to look for it"),
    _SIMPLIFY,
)
GPU: tuple[Pass, ...] = (
    Pass("hoist", hoist,
         "Triton moves arithmetic out of loops, but no loads: a row's scale would be read again in every step of a product"),
    _SIMPLIFY,
)


@dataclass(frozen=True)
class Made:
    """A tile program ready to be emitted.

    Attributes:
        program: verified.
        seconds: time of each step by name, in order; zero without a clock.
        notes: what a user should know of: phases that run serially because nobody could prove their points apart.
    """

    program: TileProgram
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def passes_of(target: Target) -> tuple[Pass, ...]:
    """The passes of a target, in order."""
    return CPU if target.kind == "cpu" else GPU


def make_tile(nest: Nest, strides: Mapping[Tensor, tuple[Term, ...]], name: str, target: Target, *, every: bool = False,
              clock: Callable[[], float] = float) -> Made:
    """Lower a scheduled nest, run the target's passes, verify.

    Args:
        nest: every stage a root or attached.
        strides: elements between neighbours of inputs and outputs; row-major where missing.
        name: the kernel's.
        target: whose passes to run.
        every: verify after every pass, not only at the end.
        clock: seconds since some moment, to measure each step.

    Raises:
        BoundsError: an access can leave its buffer; the message has a witness.
        RaceError: two parallel points touch one element; the message names them.
    """
    seconds: dict[str, float] = {}
    start = clock()

    def done(step: str) -> None:
        nonlocal start
        now = clock()
        seconds[step], start = now - start, now

    program = _lower(nest, dict(strides), name, mask_private=target.kind != "cpu")
    done("lower")
    for p in passes_of(target):
        if every:
            _verified(program)
            done(f"verify before {p.name}")
        program = p.run(program)
        done(p.name)
    program, notes = _verified(program)
    done("verify")
    return Made(program, seconds, notes)


def _verified(program: TileProgram) -> tuple[TileProgram, tuple[str, ...]]:
    """The program with what the verifier cannot decide made serial, and a note for each such phase."""
    notes: list[str] = []
    while True:
        try:
            verify(program)
        except UndecidedRace as e:
            parallel = {p.name for p in program.phases if p.grid}
            if e.phase not in parallel:
                raise
            notes.append(f"{e.phase} of {program.name} runs serially: {e.title}, and nothing shows that they do not")
            program = serialize(program, e.phase)
            continue
        return program, tuple(notes)
