"""Tile program -> LLVM IR text for a CPU.

The tile is a register tile already (the schedule saw to it), so this emitter only spells it out: every coordinate of an
unrolled axis is a register, the lane axis a vector, a loop with carried tiles a loop with phis. LLVM does what it is good
at: addressing, scheduling, allocation of registers. No fast-math flag is ever set.

The entry point is ``i32 NAME(ptr args, ptr scratch, i64 threads)``; ``args`` holds the buffers' addresses in the order of
``TileProgram.buffers``, then the sizes as i64. It returns 0, or the code of the run-time check that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_grid import CONTEXT, TAKEN
from codegen.emit.llvm_phase import PhaseEmitter, scratch_bytes
from codegen.emit.llvm_types import I32, I64, PTR, alloca, intrinsic
from codegen.tile.ir import Buffer, TileProgram
from dsl.dim import ZERO, Term, tmax

_STACK_LIMIT = 64 * 1024


@dataclass(frozen=True)
class CpuModule:
    """LLVM IR with what a launcher must know.

    Attributes:
        text: the module; ``entry`` the function to call.
        workspaces: the buffers the caller allocates, after inputs and outputs in ``args``.
        scratch: bytes of private memory per thread, a term over the program's sizes; thread ``t`` uses ``scratch + t * bytes``.
    """

    text: str
    entry: str
    workspaces: tuple[Buffer, ...]
    scratch: Term


def emit_llvm(program: TileProgram, triple: str, vector_bits: int, features: tuple[str, ...] = (), places: bool = False,
              modelled: tuple[str, ...] = ()) -> CpuModule:
    """The module of a program for a machine with vectors of ``vector_bits`` and the instruction sets ``features``.

    Dot instructions of the sets ``modelled`` are used as if the machine had them, and spelled out in those that it has.

    With ``places`` it is made for reading: comments cite the user's line wherever it changes. Without, it does not depend on where the
    kernel is written, so that machine code is found again by the text.
    """
    module = ir.Module(name=program.name)
    module.triple = triple
    needed = reduce(tmax, (sum((scratch_bytes(b) for b in p.scratch), ZERO) for p in program.phases), ZERO)
    scratch = ZERO if needed.is_const and needed.const <= _STACK_LIMIT else needed
    bodies = [PhaseEmitter(module, program, p, vector_bits, features, scratch, places, modelled).emit()
              for p in program.phases]
    _entry(module, program, bodies)
    workspaces = tuple(b for b in program.buffers if b.scope == "workspace")
    return CpuModule(str(module), program.name, workspaces, scratch)


def _entry(module: ir.Module, program: TileProgram, bodies: list[ir.Function]) -> None:
    """Run the phases in order, each on the OpenMP pool unless it is serial."""
    fn = ir.Function(module, ir.FunctionType(I32, [PTR, PTR, I64]), program.name)
    b = Builder(fn.append_basic_block("entry"))
    cx = alloca(b, CONTEXT)
    for n, v in enumerate((fn.args[0], fn.args[1], I32(0))):
        b.store(v, b.gep(cx, [I32(0), I32(n)], source_etype=CONTEXT))
    fork = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, PTR, I32, I32]), "GOMP_parallel")
    for phase, body in zip(program.phases, bodies):
        b.store(I64(0), b.gep(cx, [I32(0), I32(TAKEN)], source_etype=CONTEXT))
        if phase.serial or not phase.grid:
            b.call(body, [cx, I64(0), I64(1)])
            continue
        worker = _worker(module, body)
        with b.if_else(b.icmp_signed(">", fn.args[2], I64(1))) as (many, one):
            with many:
                b.call(fork, [worker, cx, b.trunc(fn.args[2], I32), I32(0)])
            with one:
                b.call(body, [cx, I64(0), I64(1)])
    b.ret(b.load(b.gep(cx, [I32(0), I32(2)], source_etype=CONTEXT), typ=I32))


def _worker(module: ir.Module, body: ir.Function) -> ir.Function:
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR]), body.name + ".worker")
    fn.linkage = "internal"
    b = Builder(fn.append_basic_block("entry"))
    who, many = (b.sext(intrinsic(b, f"omp_get_{n}", I32, []), I64) for n in ("thread_num", "num_threads"))
    b.call(body, [fn.args[0], who, many])
    b.ret_void()
    return fn
