"""Loops that do one thing as fast as the processor can: multiply-adds in registers, or moving memory.

Written as LLVM IR because nothing else promises that the loop stays what it is. Each compiles in some milliseconds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from dlc.runtime.tiles import tiles_granted

PROBED_DTYPES = ("f32", "f64", "bf16")
_TYPES = {"f32": ("float", 4), "f64": ("double", 8)}
_UNROLL = 8
_KEEP: list[Any] = []  # an engine owns the code that its functions run


@dataclass(frozen=True)
class FmaProbe:
    """``run(n)`` performs ``n * flops`` operations on values that never leave the registers."""

    run: Callable[[int], Any]
    flops: int
    instruction: str


@dataclass(frozen=True)
class MemoryProbe:
    """``run(source, target, bytes, repeats)`` walks the buffers ``repeats`` times; ``moved`` bytes for each byte of size.

    Sizes are multiples of ``step`` bytes, addresses of 64.
    """

    run: Callable[[int, int, int, int], Any]
    moved: int
    step: int


@cache
def host_features() -> frozenset[str]:
    """The instruction-set extensions of this processor, by LLVM's names."""
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


@cache
def vector_bytes() -> int:
    """The widest vector register of this processor."""
    features = host_features()
    return 64 if "avx512f" in features else 32 if "avx" in features else 16


@cache
def fma_probe(dtype: str) -> FmaProbe:
    """The fastest multiply-add of this processor for a dtype of :data:`PROBED_DTYPES`.

    Products of bf16 accumulate in f32; a processor without instructions for them computes in f32 altogether.
    """
    if dtype == "bf16":
        return _bf16_probe()
    return _vector_fma(dtype)


def _vector_fma(dtype: str) -> FmaProbe:
    scalar, size = _TYPES[dtype]
    lanes = vector_bytes() // size
    vector = f"<{lanes} x {scalar}>"
    name = f"llvm.fma.v{lanes}f{8 * size}"
    # Enough independent chains to hide the latency on two ports, few enough to stay in registers beside the operands.
    chains = 24 if vector_bytes() == 64 or "neon" in host_features() else 12
    step = f"{{new}} = call {vector} @{name}({vector} {{old}}, {vector} %b, {vector} %a)"
    operands = [_splat("a", lanes, scalar, "0.5"), _splat("b", lanes, scalar, "0.5")]
    declaration = f"declare {vector} @{name}({vector}, {vector}, {vector})"
    run = _function(_register_loop(chains, vector, step, operands, declaration), [ctypes.c_int64, ctypes.c_void_p])
    return FmaProbe(_with_sink(run), 2 * lanes * chains, f"fma {vector}")


def _bf16_probe() -> FmaProbe:
    features = host_features()
    if "amx-bf16" in features and (probe := _amx_probe()) is not None:
        return probe
    if "avx512bf16" in features:
        return _dot_bf16_probe()
    return _vector_fma("f32")


def _dot_bf16_probe() -> FmaProbe:
    acc, pair, chains = "<16 x float>", "<32 x bfloat>", 24
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    step = f"{{new}} = call {acc} @{name}({acc} {{old}}, {pair} %a, {pair} %b)"
    operands = [_splat("a", 32, "bfloat", "0xR3F00"), _splat("b", 32, "bfloat", "0xR3F00")]
    declaration = f"declare {acc} @{name}({acc}, {pair}, {pair})"
    run = _function(_register_loop(chains, acc, step, operands, declaration), [ctypes.c_int64, ctypes.c_void_p])
    return FmaProbe(_with_sink(run), 64 * chains, "vdpbf16ps zmm")


def _amx_probe() -> FmaProbe | None:
    """Products of 16x32 by 32x16 tiles into four accumulators; None when the system does not grant the tiles."""
    if not tiles_granted():
        return None
    products = "\n".join(f"  call void @llvm.x86.tdpbf16ps(i8 {acc}, i8 {4 + acc // 2}, i8 {6 + acc % 2})" for acc in (0, 1, 2, 3) * 4)
    zeros = "\n".join(f"  call void @llvm.x86.tilezero(i8 {tile})" for tile in range(8))
    config = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])
    text = f"""
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tilezero(i8 immarg)
declare void @llvm.x86.tdpbf16ps(i8 immarg, i8 immarg, i8 immarg)
@config = private constant [64 x i8] [{", ".join(f"i8 {byte}" for byte in config)}], align 64
define void @probe(i64 %n) "target-features"="+amx-tile,+amx-bf16" {{
entry:
  call void @llvm.x86.ldtilecfg(ptr @config)
{zeros}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{products}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  call void @llvm.x86.tilerelease()
  ret void
}}"""
    return FmaProbe(_function(text, [ctypes.c_int64]), 16 * 2 * 16 * 16 * 32, "tdpbf16ps")


@cache
def memory_probe(kind: str, streaming: bool = False) -> MemoryProbe:
    """A loop that reads, writes or copies.

    Args:
        kind: "read", "write" or "copy". A copy moves two bytes for each byte of its size.
        streaming: stores bypass the caches, as they should where the target does not fit.
    """
    width = vector_bytes()
    vector = f"<{width // 4} x i32>"
    hint = ", !nontemporal !0" if streaming else ""
    body: list[str] = []
    for n in range(_UNROLL):
        body.append(f"  %o{n} = add i64 %i, {n * width}")
        if kind != "write":
            body.append(f"  %s{n} = getelementptr i8, ptr %source, i64 %o{n}")
            body.append(f"  %v{n} = load {vector}, ptr %s{n}, align {width}")
        if kind != "read":
            body.append(f"  %t{n} = getelementptr i8, ptr %target, i64 %o{n}")
            body.append(f"  store {vector} {'%fill' if kind == 'write' else f'%v{n}'}, ptr %t{n}, align {width}{hint}")
        if kind == "read":
            body.append(f"  %n{n} = add {vector} %a{n}, %v{n}")
    run = _function(_memory_loop(body, vector, width, kind == "read"), [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2)
    return MemoryProbe(run, 2 if kind == "copy" else 1, _UNROLL * width)


def _memory_loop(body: list[str], vector: str, width: int, sums: bool) -> str:
    """Two nested loops around ``body``; a read keeps sums, so that no load is idle, and returns one lane of them."""
    outer_sums = "\n".join(f"  %b{n} = phi {vector} [ zeroinitializer, %entry ], [ %n{n}, %after ]" for n in range(_UNROLL)) if sums else ""
    inner_sums = "\n".join(f"  %a{n} = phi {vector} [ %b{n}, %outer ], [ %n{n}, %inner ]" for n in range(_UNROLL)) if sums else ""
    folded = [f"  %f0 = add {vector} %n0, %n1"] + [f"  %f{n - 1} = add {vector} %f{n - 2}, %n{n}" for n in range(2, _UNROLL)]
    total = "\n".join(folded) + f"\n  %total = extractelement {vector} %f{_UNROLL - 2}, i32 0" if sums else "  %total = add i32 0, 0"
    lines = "\n".join(body)
    return f"""
define i32 @probe(ptr %source, ptr %target, i64 %bytes, i64 %repeats) {{
entry:
  br label %outer
outer:
  %r = phi i64 [ 0, %entry ], [ %r1, %after ]
{outer_sums}
  %lane = trunc i64 %r to i32
  %first = insertelement {vector} poison, i32 %lane, i32 0
  %fill = shufflevector {vector} %first, {vector} poison, <{width // 4} x i32> zeroinitializer
  br label %inner
inner:
  %i = phi i64 [ 0, %outer ], [ %i1, %inner ]
{inner_sums}
{lines}
  %i1 = add i64 %i, {_UNROLL * width}
  %more = icmp ult i64 %i1, %bytes
  br i1 %more, label %inner, label %after
after:
  %r1 = add i64 %r, 1
  %again = icmp ult i64 %r1, %repeats
  br i1 %again, label %outer, label %done
done:
{total}
  ret i32 %total
}}
!0 = !{{i32 1}}
"""


def _register_loop(chains: int, vector: str, step: str, operands: list[str], declaration: str) -> str:
    """A loop of independent chains; their sum is stored, so that none of them is idle."""
    phis = "\n".join(f"  %c{n} = phi {vector} [ zeroinitializer, %entry ], [ %d{n}, %loop ]" for n in range(chains))
    steps = "\n".join("  " + step.format(new=f"%d{n}", old=f"%c{n}") for n in range(chains))
    sums = "\n".join(f"  %s{n} = fadd {vector} {f'%s{n - 1}' if n > 1 else '%d0'}, %d{n}" for n in range(1, chains))
    lines = "\n".join(operands)
    return f"""
{declaration}
define void @probe(i64 %n, ptr %sink) {{
entry:
{lines}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{sums}
  store {vector} %s{chains - 1}, ptr %sink, align 64
  ret void
}}
"""


def _splat(name: str, lanes: int, scalar: str, value: str) -> str:
    """A vector of one value that the optimiser cannot see through: it passes through memory."""
    return f"""  %{name}.slot = alloca {scalar}
  store volatile {scalar} {value}, ptr %{name}.slot
  %{name}.one = load volatile {scalar}, ptr %{name}.slot
  %{name}.lane = insertelement <{lanes} x {scalar}> poison, {scalar} %{name}.one, i32 0
  %{name} = shufflevector <{lanes} x {scalar}> %{name}.lane, <{lanes} x {scalar}> poison, <{lanes} x i32> zeroinitializer"""


def _with_sink(run: Callable[[int, int], Any]) -> Callable[[int], Any]:
    """Gives each call a place of its own for the result, for threads run at once."""

    def call(n: int) -> None:
        block = ctypes.create_string_buffer(128)
        run(n, (ctypes.addressof(block) + 63) & ~63)

    return call


def _function(text: str, arguments: list[Any]) -> Callable[..., Any]:
    """Compiles the function ``probe`` for this processor. The call releases the interpreter lock."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    module = llvm.parse_assembly(text)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _KEEP.append(engine)
    return ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("probe"))
