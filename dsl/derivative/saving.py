"""Save or recompute: which forward definitions the backward reads from memory, decided by bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsl.algebra import inputs_and_computes, reads
from dsl.cost import bytes_moved, flops
from dsl.derivative.reverse import asides, vjp
from dsl.derivative.signature import own_outputs
from dsl.derivative.split import split_program
from dsl.dim import Var, product
from dsl.expr import Compute, Input, Reduce, Tensor
from dsl.program import Program

FLOPS_PER_BYTE = 16.0
"""Recomputing is cheaper below this many operations per byte that saving would keep: roughly what a core does while it moves one."""
PASS_PER_BYTE = 16.0
"""A reduction is saved from this many bytes that it reads for each that saving would keep, however few its operations: it is a pass of its
own over them, before the backward can begin."""
LARGEST_SHARE = 2.0
"""Nothing larger than this many times all inputs and outputs together is saved: attention scores of some length are recomputed, as the
forward would not store them otherwise; the hidden layer of a network, four times as wide as the others, is saved."""
GUESS = 1024
"""The value of a symbolic size that is not given."""


@dataclass(frozen=True)
class Choice:
    """One candidate: what saving ``tensor`` costs in bytes, and recomputing it in operations and, for a reduction, in bytes read."""

    tensor: Compute
    bytes: int
    flops: int
    save: bool
    reads: int = 0

    def __str__(self) -> str:
        verb = "save     " if self.save else "recompute"
        text = f"{verb} {self.tensor.name}: {self.bytes} bytes against {self.flops} flops ({self.flops / max(self.bytes, 1):.1f} per byte)"
        return text + (f" and a pass over {self.reads} bytes" if self.reads else "")


@dataclass(frozen=True)
class SavePlan:
    """What the forward keeps for the backward, with the figures that decided."""

    choices: tuple[Choice, ...]

    @property
    def saved(self) -> tuple[Compute, ...]:
        """The definitions to save, of ``split_program(program)``."""
        return tuple(c.tensor for c in self.choices if c.save)

    def __str__(self) -> str:
        kept = [c for c in self.choices if c.save]
        again = [c for c in self.choices if not c.save]
        total = f"saved {sum(c.bytes for c in kept)} bytes; recomputed {sum(c.flops for c in again)} flops"
        return "\n".join([*map(str, self.choices), total])


def choose_saved(program: Program, sizes: Mapping[Var, int] | None = None, wrt: Sequence[str] | None = None) -> tuple[Compute, ...]:
    """The definitions worth saving; pass them to ``forward_with_saves`` and ``vjp``. See :func:`plan_saved`."""
    return plan_saved(program, sizes, wrt).saved


def plan_saved(program: Program, sizes: Mapping[Var, int] | None = None, wrt: Sequence[str] | None = None) -> SavePlan:
    """Decide for each forward definition that the backward needs, in dependence order, whether to save it.

    Saved is what takes at least ``FLOPS_PER_BYTE`` operations per byte to compute again from inputs and what is saved already,
    or, of a reduction, ``PASS_PER_BYTE`` bytes read, and is not out of proportion to the inputs and outputs: row maxima and sums,
    means, products of matrices. Everything pointwise and cheap is computed again, except that a result, which is there anyway, is
    read where that is no more to read than what it is made of: the exponential of an exponential's derivative.

    Args:
        program: the forward.
        sizes: values of the symbolic sizes, ``GUESS`` where missing.
        wrt: the inputs whose gradients are wanted.
    """
    form = split_program(program)
    sized = form.specialize({v: (sizes or {}).get(v, GUESS) for v in form.dims})
    original = dict(zip(sized.computes, form.computes))
    needed = set(inputs_and_computes(vjp(form, wrt).outputs)[1])
    limit = LARGEST_SHARE * bytes_moved(sized)
    kept: dict[Tensor, Tensor] = {}
    choices = []
    for c, known in original.items():
        if known not in needed:
            continue
        work = flops(Program(c.name, (), tuple(own_outputs([c], [c.name], kept)), True))
        size = _bytes(c)
        source = sum(_bytes(t) for t in {r.tensor for r in reads(c.body)}) if isinstance(c.body, Reduce) else 0
        save = (work >= FLOPS_PER_BYTE * size or source >= PASS_PER_BYTE * size) and size <= limit
        if save:
            kept[c] = Input(c.name, c.shape, c.dtype, c.loc)
        choices.append(Choice(known, size, work, save, source))
    return SavePlan(tuple(_unread(_results([*choices, *_byproducts(form, sized, wrt)], form, wrt, sized), form, wrt)))


def _bytes(t: Tensor) -> int:
    return product(t.shape).const * t.dtype.itemsize


def _byproducts(form: Program, sized: Program, wrt: Sequence[str] | None) -> list[Choice]:
    """What the gradients need besides and a pass of the forward finds on its way.

    It is saved where that is less to write and to read again than what it is made of.
    """
    out = []
    for c, known in zip(asides(sized, wrt), asides(form, wrt)):
        read = {r.tensor for r in reads(c.body)}
        passes = [y for y in sized.computes if isinstance(y.body, Reduce) and read <= {r.tensor for r in reads(y.body)}]
        size, source = _bytes(c), sum(_bytes(t) for t in read)
        out.append(Choice(known, size, flops(Program(c.name, (), (c,), True)), bool(passes) and 2 * size <= source))
    return out


def _results(choices: Sequence[Choice], form: Program, wrt: Sequence[str] | None, sized: Program) -> list[Choice]:
    """With the results saved too, where the backward then reads no more than before."""
    more = [replace(c, save=c.save or c.tensor in form.outputs) for c in choices]
    sizes = {t.name: _bytes(t) for t in (*sized.inputs, *sized.computes)}

    def read(some: Sequence[Choice]) -> int:
        return sum(sizes.get(t.name, 0) for t in vjp(form, wrt, [c.tensor for c in some if c.save]).inputs)

    return more if more != list(choices) and read(more) <= read(choices) else list(choices)


def _unread(choices: Sequence[Choice], form: Program, wrt: Sequence[str] | None) -> list[Choice]:
    """Without what nothing needs any more once the others are saved."""
    kept = [c.tensor for c in choices if c.save]
    backward = vjp(form, wrt, kept)
    names = {t.name for t in backward.inputs} | {c.name for c in backward.computes}
    return [c for c in choices if c.tensor.name in names]
