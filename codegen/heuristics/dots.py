"""Which dot instruction a product is made of, and its terms in the order that the instruction wants."""

from __future__ import annotations

from dataclasses import dataclass, replace

from codegen.analysis.access import product_factors, product_reads, size
from codegen.analysis.product import held, operand_dtype
from codegen.heuristics.decisions import Setting
from codegen.heuristics.packing import contiguous_dimension, dimension, separable
from codegen.heuristics.product import Product
from codegen.micro.instructions import DotInstruction, exact_instructions
from codegen.target.model import Target
from dsl.dim import Var
from dsl.dtype import i32
from dsl.expr import Read
from dsl.nest import Nest
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.placement import compute_inline
from dsl.primitives.reduction import adds_within, finish_apart, pad_terms

_FEW = 4  # rows, and terms of a tile's lane, with which loading tiles still pays


@dataclass(frozen=True)
class Dots:
    """An instruction, and the reduction axis whose terms it adds up.

    Attributes:
        steps: how many of the instruction's steps are used: fewer for a short sum.
    """

    instruction: DotInstruction
    axis: Var
    steps: int

    @property
    def terms(self) -> int:
        """Terms that lie side by side for each lane."""
        return self.instruction.terms

    @property
    def depth(self) -> int:
        """Terms of one instruction."""
        return self.steps * self.terms


def choose_dots(p: Product, anchor: str, setting: Setting) -> Dots | None:
    """The instruction that does most at a time, among those of the target that fit the product; none also for a choice of none.

    Packing must be able to bring the terms together: the axis is an index of both factors by itself, and memory is contiguous along it
    or along the axis of the register tile.
    """
    if p.lanes is None or p.rows is None or p.row is None or p.stage.body.data[0].name not in ("sum", "sum.partial"):
        return None
    axis = _terms(p, ((p.lanes, p.lane), (p.rows, p.row)), setting)
    if axis is None:
        return None
    found = {d.name: d for d in _able(p, setting.target) if _fits(d, p, axis, setting)}
    if not found:
        return None
    name = setting.choose(f"{anchor}.instruction", next(iter(found)), ("", *found))
    return Dots(found[name], axis, min(found[name].steps, -(-size(axis.extent) // found[name].terms))) if name else None


def multiplied_by_dots(p: Product, target: Target) -> bool:
    """Whether some instruction of a target multiplies the product's factors, if their sizes suit it."""
    return bool(_able(p, target))


def _able(p: Product, target: Target) -> tuple[DotInstruction, ...]:
    """The target's instructions that compute the product exactly as its accumulator would, or as it permits; none for other pairs."""
    if product_reads(p.stage.body.args[0]) is None:
        return ()
    a, b = product_factors(p.stage.body.args[0])
    results = [p.accumulator, *([i32] if adds_within(p.stage.body, i32) else [])]
    if held(a).is_float or held(b).is_float:
        return exact_instructions(target.dot_sets, (operand_dtype(a, b),), results)
    return exact_instructions(target.dot_sets, (held(a), held(b)), results)


def sums_apart(nest: Nest, anchor: str, p: Product, dots: Dots, apart: bool) -> tuple[Nest, Product]:
    """The product with its sums in the instruction's dtype, in a stage of their own where that is another, or ``apart`` says so."""
    heavy, result = p.stage.name, dots.instruction.result
    if p.accumulator == result and not apart:
        return nest, p
    nest, sums = finish_apart(nest, heavy, "", result.name if p.accumulator != result else "")
    nest = nest if anchor == heavy else compute_inline(nest, heavy)
    return nest, replace(p, stage=nest[sums])


def _terms(p: Product, sides: tuple[tuple[Read, Var], ...], setting: Setting) -> Var | None:
    if not all(separable(r, v) for r, v in sides):
        return None
    for axis in p.stage.bound:
        near = [(contiguous_dimension(r, setting.strides), r, v) for r, v in sides if separable(r, axis)]
        if len(near) == 2 and all(n in (None, dimension(r, v), dimension(r, axis)) for n, r, v in near):
            return axis
    return None


def _fits(d: DotInstruction, p: Product, axis: Var, setting: Setting) -> bool:
    """Whether there is enough to do for an instruction, and, on vectors, whether it is as wide as the lanes will be."""
    if d.tiled:
        return min(p.lines, size(axis.extent) // d.terms, p.columns) >= _FEW
    width = setting.target.vector_bits // d.result.bits
    while width > 4 and width // 2 >= p.columns:
        width //= 2
    return d.lanes == width and size(axis.extent) >= d.terms


def pad_product(nest: Nest, p: Product, dots: Dots, multiple: int, setting: Setting) -> tuple[Nest, Product, Dots, Setting]:
    """The product with a number of terms that is a multiple of ``multiple``: what packing reads past the end is zero."""
    extent, heavy = dots.axis.extent, p.stage.name
    if extent is not None and extent.is_const and extent.const % multiple == 0:
        return nest, p, dots, setting
    at = p.stage.bound.index(dots.axis)
    nest = pad_terms(nest, heavy, p.stage.axis_names()[dots.axis], multiple)
    sides = product_reads(nest[heavy].body.args[0])
    assert sides is not None and p.lanes is not None and p.rows is not None
    lanes, rows = sorted(sides, key=lambda r: p.lane not in r.free)
    lie = {new.tensor: setting.strides[old.tensor] for new, old in ((lanes, p.lanes), (rows, p.rows)) if old.tensor in setting.strides}
    return (nest, replace(p, stage=nest[heavy], lanes=lanes, rows=rows), replace(dots, axis=nest[heavy].bound[at]),
            replace(setting, strides={**setting.strides, **lie}))


def contract(nest: Nest, heavy: str, dots: Dots) -> Nest:
    """The terms of an instruction as the innermost axes of the tile: by a dot, step by step and side by side."""
    s = nest[heavy]
    name = s.axis_names()[dots.axis]
    loop = next(x for x in (name, f"{name}.r") if x in s.order)
    inner = [f"{loop}.i"]
    nest = split(nest, heavy, loop, dots.depth)
    if dots.steps > 1:
        nest = split(nest, heavy, inner[0], dots.terms)
        inner = [f"{loop}.i.o", f"{loop}.i.i"]
    for x in inner:
        nest = set_role(nest, heavy, x, "dot")
    return reorder(nest, heavy, [*(x for x in nest[heavy].order if x not in inner), *inner])
