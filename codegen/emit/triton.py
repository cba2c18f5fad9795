"""Tile program to Triton source text: one ``@triton.jit`` kernel per phase, and the facts needed to launch them.

The grid is one-dimensional and taken apart in the kernel; with ``phase.group`` the programs walk the last two axes in groups of
rows, so that neighbours share operands in cache. Tiles, terms and masks: triton_terms.py; operations: triton_ops.py; products:
triton_dot.py; reductions: triton_carriers.py; pointwise operations: triton_maths.py and triton_helpers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codegen.artifact import Arg, TritonArtifact, TritonKernel, Workspace, formula
from codegen.emit.triton_axes import axis_order
from codegen.emit.triton_helpers import Helpers
from codegen.emit.triton_ops import Ops
from codegen.emit.writer import Lines, Names, atom
from codegen.tile.ir import (
    Buffer,
    Check,
    For,
    If,
    Iota,
    Load,
    Phase,
    Predicate,
    Prefetch,
    Seek,
    Slot,
    Store,
    TileOp,
    TileProgram,
    Value,
    walk_ops,
)
from dsl.dim import Term, Var, as_term, product
from dsl.dtype import i32, i64

_HEAD = "import triton\nimport triton.language as tl\n"
_RESERVED = ("triton", "tl", "range", "float", "min", "max", "pid", "tile", "bool", "int")
_INT32 = 1 << 31


@dataclass(frozen=True)
class TritonOptions:
    """What the caller knows that the program does not say.

    Attributes:
        wide: 64-bit index arithmetic; needed when :func:`needs_wide` says so for the sizes at hand.
        alignment: bytes that divide a buffer's address, by name; 16 when missing.
        multiples: a divisor of a run-time size, by variable.
        mathematics: what the kernel computes, for the comment on top.
        fp_fusion: a product and a sum may become one operation, rounded once.
    """

    wide: bool = False
    alignment: Mapping[str, int] = field(default_factory=dict)
    multiples: Mapping[Var, int] = field(default_factory=dict)
    mathematics: str = ""
    fp_fusion: bool = True


def emit_triton(program: TileProgram, options: TritonOptions | None = None) -> TritonArtifact:
    """The Triton text of a verified program, and how to launch it.

    Raises:
        TargetError: a tile extent that is no power of two, or an operation no GPU has.
    """
    options = options or TritonOptions()
    wide = options.wide or _statically_wide(program)
    sizes = size_names(program)
    buffers = buffer_names(program)
    names = Names((*_RESERVED, *sizes.values(), *buffers.values(), error_name(program)))
    kernels = tuple(_Kernel(program, phase, options, wide, names.fresh(_label(program, phase))).build() for phase in program.phases)
    spaces = [Workspace(buffers[b], b.dtype, (formula(_span(b), sizes),)) for b in program.buffers if b.scope == "workspace"]
    for phase in program.phases:
        points = product(n for _, n in phase.grid)
        spaces += [Workspace(buffers[b], b.dtype, (formula(points, sizes), formula(_span(b), sizes))) for b in phase.scratch]
    error = error_name(program) if _checks(program) else ""
    return TritonArtifact(kernels, tuple(spaces), error)


def size_names(program: TileProgram) -> dict[Var, str]:
    """The argument name of every run-time integer: its own, made an identifier and unique."""
    names = Names((*_RESERVED, *(b.name for b in program.buffers)))
    return {v: names.fresh(v.name) for v in program.sizes}


def buffer_names(program: TileProgram) -> dict[Buffer, str]:
    """The argument name of every buffer, scratch included: its own, made an identifier and unique."""
    names = Names((*_RESERVED, *size_names(program).values()))
    return {b: names.fresh(b.name) for b in (*program.buffers, *(b for p in program.phases for b in p.scratch))}


def error_name(program: TileProgram) -> str:
    """The name of the i32 tensor of one zero that receives the code of a failed run-time check."""
    return Names((*_RESERVED, *buffer_names(program).values(), *size_names(program).values())).fresh("error")


def needs_wide(program: TileProgram, sizes: Mapping[Var, int]) -> bool:
    """Whether some index, or some offset into a buffer, does not fit 32 bits for these sizes."""
    return any(int(t.eval(sizes)) >= _INT32 for b in program.buffers for t in (_span(b), *b.shape))


def _statically_wide(program: TileProgram) -> bool:
    reach = [_span(b) for b in program.buffers] + [n for b in program.buffers for n in b.shape]
    reach += [n for p in program.phases for _, n in p.grid]
    reach += [op.hi for p in program.phases for op in walk_ops(p.body) if isinstance(op, (For, Seek))]
    return any(t.is_const and t.const >= _INT32 for t in reach)


def _span(b: Buffer) -> Term:
    return sum(((n - 1) * s for n, s in zip(b.shape, b.strides)), as_term(1))


def _checks(program: TileProgram) -> bool:
    return any(isinstance(op, Check) for p in program.phases for op in walk_ops(p.body))


def _label(program: TileProgram, phase: Phase) -> str:
    return program.name if len(program.phases) == 1 else f"{program.name}_{phase.name}"


# -- one kernel ----------------------------------------------------------------------------------------------------
class _Kernel:
    """One phase."""

    def __init__(self, program: TileProgram, phase: Phase, options: TritonOptions, wide: bool, name: str) -> None:
        self.program, self.phase, self.options, self.wide, self.name = program, phase, options, wide, name
        self.size_names, self.buffer_names = size_names(program), buffer_names(program)
        names = Names((*_RESERVED, *self.size_names.values(), *self.buffer_names.values(), error_name(program), name))
        self.helpers = Helpers()
        bound = {*program.sizes, *(v for v, _ in phase.grid), *(op.var for op in walk_ops(phase.body) if isinstance(op, (For, Seek)))}
        self.ops = Ops(names, self.helpers, axis_order(phase.body, bound))
        self.ops.scalars = dict(self.size_names)
        self.ops.pointers = dict(self.buffer_names)
        self.ops.error, self.ops.wide = error_name(program), wide

    def build(self) -> TritonKernel:
        """The kernel's text and launch facts."""
        self._program_ids()
        self._scratch()
        self.ops.prepare(self.phase.body)
        self.ops.write(self.phase.body)
        args = self._args()
        kernel = Lines()
        kernel.nest(f"def {self.name}({', '.join(a.name for a in args)}):", self.ops.block)
        helpers = "".join(f"\n\n{source}" for source in self.helpers.sources.values())
        source = f"{self._header()}{_HEAD}{helpers}\n\n@triton.jit\n" + "\n".join(kernel.lines) + "\n"
        points = formula(product(n for _, n in self.phase.grid), self.size_names)
        fusion = self.options.fp_fusion and self.helpers.fusion_safe
        return TritonKernel(self.name, source, args, {}, (points,), self.phase.warps, self.phase.stages, fp_fusion=fusion)

    def _header(self) -> str:
        lines = [f"# {line}".rstrip() for line in self.options.mathematics.splitlines()]
        return "".join(f"{line}\n" for line in lines)

    def _program_ids(self) -> None:
        """Grid variables from the program id, innermost last."""
        used = {v for op in walk_ops(self.phase.body) for v in _vars(op)}
        grid = list(self.phase.grid)
        if not used & {v for v, _ in grid} and not self.phase.scratch:
            return
        self.ops.block.add("pid = tl.program_id(0)" + (".to(tl.int64)" if self.wide or self.phase.scratch else ""))
        rest = "pid"
        if self.phase.group and len(grid) >= 2:
            rest = self._grouped(grid[-2:], outermost=len(grid) == 2)
            grid = grid[:-2]
        for n in reversed(range(len(grid))):
            v, extent = grid[n]
            if n == 0:
                self._let(v, rest)
            else:
                self._let(v, f"{rest} % {self._extent(v, extent)}")
                rest = f"{rest} // {self._extent(v, extent)}"

    def _let(self, v: Var, text: str) -> None:
        self.ops.scalars[v] = self.ops.names.fresh(v.name)
        self.ops.block.add(f"{self.ops.scalars[v]} = {text}")

    def _extent(self, v: Var, n: Term) -> str:
        """The text of a grid extent, named unless it is a number or a size."""
        text = self.ops.scalar(n)
        if n.is_const or text.isidentifier():
            return text
        known = self.ops.block.find(("extent", v))
        if known is None:
            known = self.ops.block.known["extent", v] = self.ops.names.fresh(f"num_{v.name}")
            self.ops.block.add(f"{known} = {text}")
        return known

    def _grouped(self, last: list[tuple[Var, Term]], outermost: bool) -> str:
        """Walk ``group`` rows of programs column by column; returns what is left of the program id."""
        ops, group = self.ops, self.phase.group
        rows, columns = (self._extent(v, n) for v, n in last)
        ops.block.add(f"# groups of {group} rows of programs, each walked column by column")
        if not outermost:
            ops.block.add(f"tile = pid % ({rows} * {columns})")
        tile = "pid" if outermost else "tile"
        first, height = ops.names.fresh("first"), ops.names.fresh("height")
        ops.block.add(f"{first} = {tile} // ({group} * {columns}) * {group}", f"{height} = tl.minimum({rows} - {first}, {group})")
        place = f"{tile} % ({group} * {columns})"
        self._let(last[0][0], f"{first} + {place} % {height}")
        self._let(last[1][0], f"{place} // {height}")
        return "" if outermost else f"pid // ({rows} * {columns})"

    def _scratch(self) -> None:
        """Each program has its own part of a scratch buffer."""
        for b in self.phase.scratch:
            self.ops.pointers[b] = self.ops.names.fresh(f"my_{b.name}")
            self.ops.block.add(f"{self.ops.pointers[b]} = {self.buffer_names[b]} + pid * {atom(self.ops.scalar(_span(b)))}")

    def _args(self) -> tuple[Arg, ...]:
        touched: dict[Buffer, str] = {}
        for op in walk_ops(self.phase.body):
            if isinstance(op, (Load, Store)):
                before, kind = touched.get(op.buffer, ""), "r" if isinstance(op, Load) else "w"
                touched[op.buffer] = before if before and before != "r" else "rw" if before + kind == "rw" else kind
        every = [b for b in (*self.program.buffers, *self.phase.scratch) if b in touched]
        pointers = [Arg.pointer(self.buffer_names[b], b.dtype, touched[b], self.options.alignment.get(b.name, 16)) for b in every]
        if any(isinstance(op, Check) for op in walk_ops(self.phase.body)):
            pointers.append(Arg.pointer(error_name(self.program), i32, "rw", 4))
        text = "\n".join(self.ops.block.lines)
        used = [v for v in self.program.sizes if _occurs(self.size_names[v], text)]
        dtype = i64 if self.wide else i32
        return (*pointers, *(Arg.scalar(self.size_names[v], dtype, self.options.multiples.get(v, 1)) for v in used))


def _occurs(name: str, text: str) -> bool:
    """Whether an identifier occurs outside comments."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return name in set("".join(c if c.isalnum() or c == "_" else " " for c in code).split())


def _vars(op: TileOp) -> set[Var]:
    """The variables in an operation's own terms."""
    slots: tuple[Slot, ...] = ()
    if isinstance(op, (Load, Store)):
        slots = (*op.indices, *op.mask)
    elif isinstance(op, Iota):
        slots = (op.term,)
    elif isinstance(op, (Predicate, If)):
        slots = op.terms
    elif isinstance(op, (For, Seek)):
        slots = (op.lo, op.hi)
    elif isinstance(op, Check):
        slots = (op.size, *op.mask)
    elif isinstance(op, Prefetch):
        slots = op.indices
    return {v for s in slots if not isinstance(s, Value) for v in s.vars}
