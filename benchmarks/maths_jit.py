"""The functions of codegen.micro.maths compiled for this machine as loops over arrays, to be checked and timed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import llvmlite.binding as llvm  # noqa: TID251 (a benchmark, not the compiler: it runs what it measures)
import numpy as np
from llvmlite import ir

from codegen.emit.llvm_builder import Builder, vector
from codegen.emit.llvm_math import emit
from codegen.emit.llvm_types import PTR
from codegen.micro.maths import arity

_ELEMENT = {"f32": ir.FloatType(), "f64": ir.DoubleType()}
_NUMPY = {"f32": np.float32, "f64": np.float64}


@dataclass(frozen=True)
class Loop:
    """One compiled loop; `step` elements are done per iteration, and lengths must be its multiples."""

    name: str
    dtype: str
    step: int
    assembly: str
    function: Callable[..., None]
    engine: Any

    def bind(self, out: np.ndarray, *inputs: np.ndarray) -> Callable[[], None]:
        """A call on contiguous arrays whose length is a multiple of step, with as little overhead as ctypes allows."""
        return partial(self.function, *(array.ctypes.data for array in inputs), out.ctypes.data, out.size)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Apply to arrays of any equal length."""
        size = inputs[0].size
        padded = [np.resize(x.astype(_NUMPY[self.dtype], copy=False), -(-size // self.step) * self.step) for x in inputs]
        out = np.empty_like(padded[0])
        self.bind(out, *padded)()
        return out[:size]


def aligned(size: int, dtype: str) -> np.ndarray:
    """An uninitialised array that begins on a cache line, as torch's do."""
    kind = np.dtype(_NUMPY[dtype])
    raw = np.empty(size * kind.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * kind.itemsize].view(kind)


@cache
def compile_loop(name: str, dtype: str, lanes: int = 16, unroll: int = 2) -> Loop:
    """Compile one function; f64 has half the lanes of f32 for the same vector width."""
    module = ir.Module(name)
    _write_loop(module, name, dtype, lanes, unroll)
    machine = _machine()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    assembly = machine.emit_assembly(parsed)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (arity(name) + 1), ctypes.c_int64)
    return Loop(name, dtype, lanes * unroll, assembly, prototype(engine.get_function_address("loop")), engine)


@cache
def _start_llvm() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine() -> Any:
    """A fresh one each time: an engine takes ownership of the machine it is given."""
    _start_llvm()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3)


def _write_loop(module: ir.Module, name: str, dtype: str, lanes: int, unroll: int) -> None:
    element, index = _ELEMENT[dtype], ir.IntType(64)
    inputs = arity(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR] * (inputs + 1) + [index]), "loop")
    for argument in function.args[:-1]:
        argument.add_attribute("noalias")
    builder = Builder(function.append_basic_block("entry"))
    body, done = function.append_basic_block("body"), function.append_basic_block("done")
    start, size = builder.block, function.args[-1]
    builder.cbranch(builder.icmp_signed(">", size, index(0)), body, done)
    builder.position_at_end(body)
    at = builder.phi(index)
    at.add_incoming(index(0), start)
    places = [builder.add(at, index(lanes * k)) for k in range(unroll)]
    loaded = [[builder.load(builder.gep(p, [place], source_etype=element), align=4, typ=vector(element, lanes))
               for p in function.args[:inputs]] for place in places]
    results = [emit(builder, name, values) for values in loaded]
    for place, result in zip(places, results):
        builder.store(result, builder.gep(function.args[inputs], [place], source_etype=element), align=4)
    following = builder.add(at, index(lanes * unroll))
    at.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, size), body, done)
    builder.position_at_end(done)
    builder.ret_void()
