"""Triton source text to machine code for any named GPU, with or without that GPU present.

``compile_triton`` works in this process; ``compile_many`` in child processes, where a crash or a hang of one
candidate costs that candidate alone.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib
import linecache
import os
import re
import subprocess
import tempfile
import threading
import types
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen.artifact import Arg, TritonKernel
from dlc.lazy import lazy
from dlc.runtime.child import Child
from dsl.dtype import Dtype
from dsl.errors import ArgumentError, DlcError, InternalError, TargetError

if TYPE_CHECKING:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import CompiledKernel
    from triton.runtime.jit import JITFunction

triton, nvidia_compiler, jit = lazy("triton"), lazy("triton.backends.nvidia.compiler"), lazy("triton.runtime.jit")
backend_compiler, triton_compiler = lazy("triton.backends.compiler"), lazy("triton.compiler")

TRITON_TYPE = {
    "bool": "i1",
    "u8": "u8",
    "u32": "u32",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "f8e4m3": "fp8e4nv",
    "f8e5m2": "fp8e5",
    "f16": "fp16",
    "bf16": "bf16",
    "f32": "fp32",
    "f64": "fp64",
}


@dataclass(frozen=True)
class GpuBinary:
    """One compiled kernel: machine code, every intermediate text, and what a launch needs to know."""

    name: str
    target: str
    code: bytes  # cubin or hsaco
    ttir: str
    ttgir: str
    ptx: str  # empty on AMD
    amdgcn: str  # empty on NVIDIA
    shared: int  # dynamic shared memory in bytes
    num_warps: int
    warp_size: int
    scratch_bytes: int  # global scratch each program needs (tensor descriptors)
    tensor_columns: int  # of tensor memory (sm_100)
    fp_fusion: bool

    @property
    def vendor(self) -> str:
        """``cuda`` or ``hip``."""
        return "cuda" if self.ptx else "hip"

    @property
    def threads(self) -> int:
        """Threads of one program; more than warps x width when Triton specialises warps."""
        found = re.search(r"\.reqntid\s+(\d+)", self.ptx)
        return int(found.group(1)) if found else self.num_warps * self.warp_size

    @functools.cached_property
    def sass(self) -> str:
        """NVIDIA machine code with its control words, as ``cuobjdump -sass`` prints it; empty on AMD."""
        return nvidia_tool("cuobjdump", "-sass", code=self.code) if self.vendor == "cuda" else ""


def gpu_target(name: str) -> GPUTarget:
    """Triton's target record for ``sm_90``, ``gfx942`` and their like."""
    if found := re.fullmatch(r"sm_(\d+)a?", name):
        return backend_compiler.GPUTarget("cuda", int(found.group(1)), 32)
    if re.fullmatch(r"gfx\d+[0-9a-f]{2}", name):
        return backend_compiler.GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)
    raise TargetError(f"unknown GPU target {name!r}", remedy="a name such as sm_80, sm_90, sm_100 or gfx942")


def compile_triton(kernel: TritonKernel, target: str) -> GpuBinary:
    """Compile for the named GPU. Raises TargetError when the kernel cannot fit it, InternalError when it is malformed."""
    return _binary(compile_handle(kernel, target), target, kernel.fp_fusion)


def _binary(compiled: CompiledKernel, target: str, fp_fusion: bool) -> GpuBinary:
    asm, meta = compiled.asm, compiled.metadata
    return GpuBinary(
        name=compiled.name,
        target=target,
        code=compiled.kernel,
        ttir=str(asm["ttir"]),
        ttgir=str(asm["ttgir"]),
        ptx=asm.get("ptx", ""),
        amdgcn=asm.get("amdgcn", ""),
        shared=meta.shared,
        num_warps=meta.num_warps,
        warp_size=gpu_target(target).warp_size,
        scratch_bytes=getattr(meta, "global_scratch_size", 0) or 0,
        tensor_columns=getattr(meta, "tmem_size", 0) or 0,
        fp_fusion=fp_fusion,
    )


def compile_function(
    fn: Any, args: Sequence[Any], constants: Mapping[str, Any], target: str, **options: Any
) -> tuple[GpuBinary, list[str], list[int]]:
    """Compile a ``@triton.jit`` function that is not ours for some arguments, specialised as Triton does at a launch.

    Args:
        fn: the function.
        args: arrays and numbers, in the order of the parameters that are not in ``constants``.
        constants: compile-time constants by parameter.
        target: the GPU.
        options: ``num_warps``, ``num_stages`` and their like.

    Returns:
        The binary, the parameters' names, and which of ``args`` the compiled kernel takes: a number 1 becomes a constant.
    """
    if not isinstance(fn, jit.JITFunction):
        raise ArgumentError(f"{getattr(fn, '__name__', fn)} is not a Triton kernel", "it is not decorated by @triton.jit",
                            "pass the decorated function")
    names = [n for n in fn.arg_names if n not in constants]
    if len(names) != len(args):
        raise ArgumentError(f"{fn.__name__} takes {', '.join(names)}", f"{len(args)} arguments were given",
                            "give compile-time constants by name, everything else in order")
    fixed = dict(constants) | {n: 1 for n, a in zip(names, args) if isinstance(a, int) and not isinstance(a, bool) and a == 1}
    kept = [k for k, n in enumerate(names) if n not in fixed]
    types_of = {n: _type_of(a) for n, a in zip(names, args)} | dict.fromkeys(fixed, "constexpr")
    aligned = [n for n, a in zip(names, args) if n not in fixed and (hasattr(a, "dtype") or (isinstance(a, int) and a % 16 == 0))]
    attributes = {(fn.arg_names.index(n),): [["tt.divisibility", 16]] for n in aligned}
    source = triton_compiler.ASTSource(fn=fn, signature={n: types_of[n] for n in fn.arg_names}, constexprs=fixed, attrs=attributes)
    try:
        return _binary(triton.compile(source, target=gpu_target(target), options=options), target, True), names, kept
    except Exception as error:
        raise TargetError(f"Triton cannot compile {fn.__name__} for {target}", str(error)) from error


_SCALARS: tuple[tuple[type, str], ...] = ((bool, "i1"), (int, "i32"), (float, "fp32"))


def _type_of(value: Any) -> str:
    """Triton's name of an argument's type."""
    if hasattr(value, "dtype") and getattr(value, "shape", None) is not None:
        name = str(value.dtype)
        short = {"bool": "bool", "bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2"}
        known = short.get(name) or name.replace("float", "f").replace("uint", "u").replace("int", "i")
        return "*" + TRITON_TYPE[known]
    number: Any = value
    for kind, name in _SCALARS:
        if isinstance(value, kind):
            return "i64" if name == "i32" and abs(number) >= 1 << 31 else name
    raise ArgumentError(f"a Triton kernel takes no {type(value).__name__}", remedy="tensors, arrays, numbers")


def compile_handle(kernel: TritonKernel, target: str) -> CompiledKernel:
    """Triton's own compiled object, which can launch itself where the GPU is present."""
    function = jit_function(kernel)
    source = triton_compiler.ASTSource(
        fn=function, signature=_signature(kernel, function), constexprs=kernel.constexprs, attrs=_attributes(kernel, function)
    )
    _stand_in_between()
    _QUIET.on = True
    try:
        return triton.compile(source, target=gpu_target(target), options=_options(kernel))
    except DlcError:
        raise
    except Exception as error:
        raise _diagnose(error, kernel, target) from error
    finally:
        _QUIET.on = False


def jit_function(kernel: TritonKernel) -> JITFunction[Any]:
    """The kernel's function object, decorated for compilation."""
    function = load_module(kernel.source).__dict__.get(kernel.name)
    if function is None:
        raise InternalError(f"the emitted module defines no function {kernel.name!r}", kernel.source)
    if not isinstance(function, jit.JITFunction):
        raise TargetError("Triton is in interpreter mode in this process", "TRITON_INTERPRET is set", "unset it to compile for a GPU")
    return function


def load_module(source: str) -> types.ModuleType:
    """The module made from ``source``; the same object for the same text."""
    with _MODULES_LOCK:  # Triton's caches hang on the function object, so one text must give one object
        name = f"dlc_{hashlib.sha256(source.encode()).hexdigest()[:20]}"
        if name not in _MODULES:
            _MODULES[name] = _execute(name, source)
        return _MODULES[name]


_MODULES: dict[str, types.ModuleType] = {}
_MODULES_LOCK = threading.Lock()


def _execute(name: str, source: str) -> types.ModuleType:
    # triton.jit reads the source back through inspect. A linecache entry without a time stamp serves it for the
    # life of the process, so that no file is left on disk and no two processes can meet over one.
    file = f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = types.ModuleType(name)
    module.__file__ = file
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except Exception as error:
        raise InternalError("the emitted Triton module does not load", f"{type(error).__name__}: {error}\n{source}") from error
    return module


def triton_type(dtype: Dtype) -> str:
    """Triton's name of a dtype."""
    return TRITON_TYPE[dtype.name]


def _signature(kernel: TritonKernel, function: JITFunction[Any]) -> dict[str, str]:
    types_of = {a.name: ("*" if a.is_pointer else "") + triton_type(a.dtype) for a in kernel.args}
    types_of |= dict.fromkeys(kernel.constexprs, "constexpr")
    if set(types_of) != set(function.arg_names):
        raise InternalError(
            f"kernel {kernel.name!r} declares other arguments than its source", f"{sorted(types_of)}\n{sorted(function.arg_names)}"
        )
    return {name: types_of[name] for name in function.arg_names}


def _attributes(kernel: TritonKernel, function: JITFunction[Any]) -> dict[tuple[int], list[list[Any]]]:
    """Triton knows one promise only: divisible by 16."""
    promised = [a for a in kernel.args if _divisible(a)]
    return {(function.arg_names.index(a.name),): [["tt.divisibility", 16]] for a in promised}


def _divisible(arg: Arg) -> bool:
    return arg.multiple % 16 == 0 and (arg.is_pointer or arg.dtype.is_int)


def _options(kernel: TritonKernel) -> dict[str, Any]:
    options: dict[str, Any] = {"num_warps": kernel.num_warps, "num_stages": kernel.num_stages, "num_ctas": kernel.num_ctas}
    options["enable_fp_fusion"] = kernel.fp_fusion
    if kernel.max_registers is not None:
        options["maxnreg"] = kernel.max_registers
    return options | dict(kernel.options)


def _diagnose(error: Exception, kernel: TritonKernel, target: str) -> DlcError:
    """Whose fault a failed compilation is: the target's limits, or ours."""
    text = str(error)
    limits = (
        "uses too much shared data",
        "out of resource",
        "not supported on",
        "requires NVIDIA SM",
        "not supported in this architecture",
    )
    if "not supported in this architecture" in text:
        missing = re.search(r"type (\w+) not supported", text)
        reason = f"it has no instructions for {missing.group(1)}" if missing else text
        return TargetError(f"kernel {kernel.name!r} cannot be compiled for {target}", reason,
                           "convert to a wider dtype, or name a newer target")
    if any(words in text for words in limits):
        return TargetError(f"kernel {kernel.name!r} does not fit {target}", text, "smaller tiles or fewer stages")
    return InternalError(f"Triton cannot compile kernel {kernel.name!r} for {target}", f"{type(error).__name__}: {text}")


_QUIET = threading.local()


def _print(*args: Any, **kwargs: Any) -> None:
    # Triton prints the whole PTX when ptxas refuses it. The error we raise carries ptxas' own words.
    if not getattr(_QUIET, "on", False):
        builtins.print(*args, **kwargs)  # noqa: T201  # it was Triton's call, we stand in between


@functools.cache
def _stand_in_between() -> None:
    importlib.import_module("triton.backends.nvidia.compiler").__dict__["print"] = _print


def assembler(target: str) -> str:
    """The name of the ptxas that Triton assembles for ``target`` with: the wheel has an older and a newer one."""
    chosen = nvidia_compiler.get_ptxas(int(target.removeprefix("sm_"))).path
    return next(name for name in ("ptxas", "ptxas_blackwell") if getattr(triton.knobs.nvidia, name).path == chosen)


def nvidia_tool(name: str, *args: str, code: bytes, merge: bool = False) -> str:
    """What a tool of the Triton wheel (ptxas, cuobjdump, nvdisasm) prints about ``code``, given to it as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel")
        with open(path, "wb") as file:
            file.write(code)
        tool = getattr(triton.knobs.nvidia, name).path
        done = subprocess.run([tool, *args, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"{name} failed with status {done.returncode}", done.stderr or done.stdout)
    return done.stdout + (done.stderr if merge else "")


def compile_many(
    kernels: Sequence[TritonKernel], target: str, workers: int | None = None, timeout: float = 60.0
) -> list[GpuBinary | DlcError]:
    """Compile each kernel in a child process; the result of one that fails, crashes or hangs is the error, not raised."""
    with CompilePool(target, workers or min(len(kernels), os.cpu_count() or 1) or 1, timeout) as pool:
        return list(pool.map(kernels))


class CompilePool:
    """Child processes that compile for one target; usable over many calls of :meth:`map`."""

    def __init__(self, target: str, workers: int, timeout: float = 60.0) -> None:
        gpu_target(target)
        self.target, self.timeout = target, timeout
        self._children = [Child("dlc.runtime.triton_compile:_compile_request") for _ in range(workers)]
        self._free = list(self._children)
        self._threads = ThreadPoolExecutor(workers)

    def map(self, kernels: Iterable[TritonKernel]) -> Iterable[GpuBinary | DlcError]:
        """Results in the order of ``kernels``, each as soon as it and those before it are done."""
        return self._threads.map(self._one, kernels)

    def _one(self, kernel: TritonKernel) -> GpuBinary | DlcError:
        child = self._free.pop()  # there are as many children as threads; list operations are atomic
        try:
            result: GpuBinary = child.call((kernel, self.target), self.timeout)
            return result
        except DlcError as error:
            return error
        finally:
            self._free.append(child)

    def close(self) -> None:
        """End every child."""
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.close()

    def __enter__(self) -> CompilePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _compile_request(request: tuple[TritonKernel, str]) -> GpuBinary:
    return compile_triton(*request)
