"""Expression + schedule -> tile program."""

from __future__ import annotations

from codegen.lower.context import Context, InMemory
from codegen.lower.loops import emit_attached, emit_stage
from codegen.tile.ir import Block, Buffer, Builder, Phase, TileProgram
from codegen.tile.layout import contiguous
from dsl.dim import Term, Var, as_term
from dsl.expr import Tensor
from dsl.nest import GRID_ROLES, Nest, Stage
from dsl.placing import place_anew

__all__ = ["emit_attached", "lower"]


def permuted(s: Stage) -> tuple[Term, ...]:
    """Strides of a root stage's buffer whose layout is a permutation of its axes."""
    assert s.layout is not None
    order = [next(n for n, a in enumerate(s.axes) if t == as_term(a)) for t in s.layout]
    packed = contiguous(tuple(s.tensors[0].shape[n] for n in order))
    return tuple(packed[order.index(n)] for n in range(len(order)))


def lower(nest: Nest, strides: dict[Tensor, tuple[Term, ...]] | None = None, name: str = "", mask_private: bool = False) -> TileProgram:
    """Lower a scheduled nest.

    Args:
        nest: the schedule; every stage is a root or attached.
        strides: elements between neighbours of each input and output; row-major when missing.
        name: the kernel's name; the program's when empty.
        mask_private: whether reads of private memory leave out the elements past the end of a reduction, which nothing has written. What is
            read there is never used; without the mask a read is cheaper on a CPU, with it no undefined memory is read.
    """
    strides = strides or {}
    program = nest.program
    names: set[str] = set()
    buffers: list[Buffer] = []
    bindings: dict[Tensor, InMemory] = {}

    def declare(t: Tensor, scope: str, label: str) -> None:
        unique, n = label, 1
        while unique in names:
            unique, n = f"{label}_{n}", n + 1
        names.add(unique)
        s = nest.producer(t)
        steps = strides.get(t) or (permuted(s) if s is not None and s.layout is not None and scope == "workspace" else contiguous(t.shape))
        b = Buffer(unique, t.dtype, t.shape, steps, scope)
        buffers.append(b)
        bindings[t] = InMemory(b)

    for i in program.inputs:
        declare(i, "input", i.name)
    for o in program.outputs:
        declare(o, "output", o.name)
    for t in (t for s in nest.stages if s.attach is None or s.beside for t in s.tensors if t not in program.outputs):
        declare(t, "workspace", t.name)
    run_time = {v for b in buffers for t in (*b.shape, *b.strides) for v in t.vars} - set(program.dims)
    sizes = (*program.dims, *sorted(run_time, key=lambda v: v.uid))
    placed = place_anew(nest)
    phases: list[Phase] = []
    checks: list[str] = []
    lanes: set[Var] = set()
    tile: set[Var] = set()
    for s in nest.stages:
        if s.attach is None:
            p = placed[s.name]
            grid = tuple((x.var, x.extent) for x in p.loops if x.role in GRID_ROLES)
            body = Block()
            cx = Context(nest, placed, Builder(body, tile), bindings=dict(bindings), checks=checks, lanes=lanes, names=names,
                         mask_private=mask_private)
            emit_stage(cx, s)
            n = s.notes
            phases.append(Phase(s.name, grid, body, tuple(cx.scratch), bool(n.get("serial")), int(n.get("warps", 4)),
                                int(n.get("stages", 2)), int(n.get("group", 0)), s.tensors[0].loc))
    return TileProgram(name or program.name, tuple(buffers), sizes, tuple(phases), frozenset(lanes), tuple(checks))
