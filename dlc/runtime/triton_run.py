"""Run a Triton artifact: checked, without a GPU, under Triton's interpreter; or for real, on a GPU.

``interpret`` judges the emitted text: every access against its tensor, every output element written, no conflict
between programs. It says nothing of Triton's lowering (``dlc.emulate`` does) nor of speed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from codegen.artifact import Arg, TritonArtifact, TritonKernel
from dlc.runtime.child import Child
from dlc.runtime.interpreted_memory import Buffer, Memory
from dlc.runtime.triton_compile import compile_handle, load_module, triton_type
from dsl.dtype import Dtype
from dsl.errors import ArgumentError, InternalError, LaunchError, TargetError

Array = NDArray[Any]
NUMPY = {
    "bool": np.dtype(bool),
    "f8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    **{name: np.dtype(full) for name, full in {"u8": "u1", "u32": "u4", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8"}.items()},
    **{name: np.dtype(full) for name, full in {"f16": "f2", "f32": "f4", "f64": "f8"}.items()},
}


@dataclass(frozen=True)
class InterpretReport:
    """What a checked run left: tensors after the last kernel, and everything wrong on the way."""

    outputs: dict[str, Array] = field(hash=False)  # tensors some kernel writes
    findings: tuple[str, ...]
    programs: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was seen."""
        return not self.findings


@dataclass(frozen=True)
class _Request:
    kernels: tuple[tuple[TritonKernel, tuple[int, int, int]], ...]
    buffers: tuple[dict[str, Any], ...]
    scalars: dict[str, int | float]


def interpret(
    artifact: TritonArtifact | TritonKernel,
    tensors: Mapping[str, Any],
    sizes: Mapping[str, int | float] | None = None,
    timeout: float = 120.0,
) -> InterpretReport:
    """Run every kernel under the checked interpreter, in a child process kept for the next call.

    Args:
        artifact: what the emitter made.
        tensors: numpy arrays or torch tensors by argument name, outputs too (their contents are not read). Views keep
            their strides: touching the gaps is an error. They are left as they are.
        sizes: every scalar argument, and every name the grid and workspace formulas use.
        timeout: seconds until LaunchError.
    """
    artifact = artifact if isinstance(artifact, TritonArtifact) else TritonArtifact((artifact,))
    sizes = dict(sizes or {})
    whole = {name: int(value) for name, value in sizes.items() if not isinstance(value, float)}
    pointers, arrays = artifact.pointers(), {name: to_numpy(value) for name, value in tensors.items()}
    for space in artifact.workspaces:
        blank = np.zeros if space.zero else np.empty
        arrays[space.name] = blank(space.shape_of(whole), NUMPY[space.dtype.name])
    if missing := sorted(set(pointers) - set(arrays)):
        raise ArgumentError(f"no tensor given for {', '.join(missing)}")
    zeroed = {space.name for space in artifact.workspaces if space.zero}
    scratch = {space.name for space in artifact.workspaces}
    parts = {name: _export(arrays[name], arg, name in zeroed, name in scratch) for name, arg in pointers.items()}
    request = _Request(tuple((k, k.grid_of(whole)) for k in artifact.kernels), tuple(parts.values()), sizes)
    started = time.perf_counter()
    reply = _interpreter().call(request, timeout)
    written = [name for name, arg in pointers.items() if arg.access != "r" and name not in scratch]
    outputs = {name: _import(reply["raw"][name], arrays[name]) for name in written}
    findings = tuple(reply["findings"]) + _unwritten(reply["defined"], parts, [n for n in written if pointers[n].access == "w"])
    return InterpretReport(outputs, findings, reply["programs"], time.perf_counter() - started)


@functools.cache
def _interpreter() -> Child:
    # The interpreter decides at import, by environment, how Triton's own library is decorated. In this process that
    # would end compiling for GPUs, so it lives in its own.
    return Child("dlc.runtime.triton_run:_interpret_request", {"TRITON_INTERPRET": "1"})


def to_numpy(value: Any) -> Array:
    """A numpy view of an array or torch tensor (bf16 and fp8 as ml_dtypes), copied only from a GPU."""
    if isinstance(value, np.ndarray):
        return value
    tensor = value.detach().cpu()
    name = str(tensor.dtype).removeprefix("torch.")
    low = {"bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2"}.get(name)
    if low is None:
        return np.asarray(tensor.numpy())
    import torch  # noqa: PLC0415  # only someone who has a torch tensor comes here

    bits = torch.int16 if low == "bf16" else torch.uint8
    return np.asarray(tensor.view(bits).numpy()).view(NUMPY[low])


def _span(array: Array) -> tuple[int, NDArray[np.bool_]]:
    """Bytes from the first element to the last, and which of them are elements."""
    if any(stride < 0 for stride in array.strides):
        raise ArgumentError("a tensor with a negative stride cannot be passed to a kernel")
    size = array.itemsize
    total = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) + size if array.size else 0
    own = np.zeros(total, bool)
    if array.size:
        np.lib.stride_tricks.as_strided(own, (*array.shape, size), (*array.strides, 1))[...] = True
    return total, own


def _strided(raw: NDArray[np.uint8], like: Array) -> Array:
    return np.lib.stride_tricks.as_strided(raw.view(), (*like.shape, like.itemsize), (*like.strides, 1))


def _export(array: Array, arg: Arg, zeroed: bool, scratch: bool) -> dict[str, Any]:
    """A tensor in the form that crosses to the child: bytes, ownership, and which bytes have a value."""
    if array.dtype != NUMPY[arg.dtype.name]:
        raise ArgumentError(f"tensor {arg.name!r} has dtype {array.dtype}, the kernel expects {arg.dtype}")
    total, own = _span(array)
    blank = (arg.access == "w" or scratch) and not zeroed
    raw = np.full(total, 0xFF, np.uint8)  # not a number in every float dtype
    if not blank and array.size:
        _strided(raw, array)[...] = np.ascontiguousarray(array)[..., None].view(np.uint8).reshape(*array.shape, array.itemsize)
    return {"name": arg.name, "raw": raw, "own": own, "writable": arg.access != "r", "defined": np.full(total, not blank)}


def _import(raw: NDArray[np.uint8], like: Array) -> Array:
    """The tensor's elements out of its bytes, contiguous."""
    return np.ascontiguousarray(_strided(raw, like)).view(like.dtype)[..., 0] if like.size else like.copy()


def _unwritten(defined: dict[str, NDArray[np.bool_]], parts: dict[str, dict[str, Any]], outputs: list[str]) -> tuple[str, ...]:
    holes = {name: np.flatnonzero(parts[name]["own"] & ~defined[name]) for name in outputs}
    return tuple(f"output {n!r} is not fully written: {h.size} bytes missing, the first at byte {h[0]}" for n, h in holes.items() if h.size)


def _interpret_request(request: _Request) -> dict[str, Any]:
    """In the child: run the kernels, return bytes and findings."""
    from dlc.runtime.interpreted_language import install  # noqa: PLC0415  # it replaces parts of Triton, so only here

    memory = Memory([Buffer(**facts) for facts in request.buffers])
    builder = install(memory)
    for kernel, grid in request.kernels:
        memory.begin_launch()
        with np.errstate(all="ignore"):
            _interpret_kernel(kernel, grid, memory, builder, request.scalars)
    return {
        "raw": {b.name: b.store.copy() for b in memory.buffers},
        "defined": {b.name: b.defined for b in memory.buffers},
        "findings": list(memory.findings),
        "programs": sum(x * y * z for _, (x, y, z) in request.kernels),
    }


def _interpret_kernel(
    kernel: TritonKernel, grid: tuple[int, int, int], memory: Memory, builder: Any, scalars: Mapping[str, int | float]
) -> None:
    import triton.runtime.interpreter as interpreter  # noqa: PLC0415  # costs a quarter second that launch() need not pay

    jitted = getattr(load_module(kernel.source), kernel.name)
    bases = {b.name: b.base for b in memory.buffers}
    values = {a.name: _value(a, bases[a.name] if a.is_pointer else scalars[a.name]) for a in kernel.args} | kernel.constexprs
    function, scope = jitted.rewrite(), interpreter._patch_lang(jitted.fn)
    if set(values) != set(inspect.signature(jitted.fn).parameters):
        raise InternalError(f"kernel {kernel.name!r} declares other arguments than its source", str(sorted(values)))
    builder.set_grid_dim(*grid)
    try:
        for memory.program, (z, y, x) in enumerate(np.ndindex(grid[::-1])):
            builder.set_grid_idx(x, y, z)
            function(**values)
    except Exception as error:
        where = f"program {memory.program}{memory.where()}"
        raise InternalError(f"kernel {kernel.name!r} fails under the interpreter, {where}", f"{type(error).__name__}: {error}") from error
    finally:
        scope.restore()


def _value(arg: Arg, value: int | float) -> Any:
    """An argument as the interpreter holds it, of the declared type whatever its value."""
    import triton.language as tl  # noqa: PLC0415  # see above
    from triton.runtime.interpreter import TensorHandle  # noqa: PLC0415  # see above

    name = triton_type(arg.dtype)
    kind = tl.str_to_ty(f"*{name}" if arg.is_pointer else name, None)
    data = np.array([value], np.uint64 if arg.is_pointer else NUMPY[arg.dtype.name])
    return tl.tensor(TensorHandle(data, kind), kind)


def launch(artifact: TritonArtifact | TritonKernel, tensors: Mapping[str, Any], sizes: Mapping[str, int | float] | None = None) -> None:
    """Run every kernel on the GPU that holds the tensors, on its current stream, without waiting for it.

    Args:
        artifact: what the emitter made.
        tensors: torch tensors by argument name, all on one GPU; outputs are written in place.
        sizes: every scalar argument, and every name the grid and workspace formulas use.
    """
    import torch  # noqa: PLC0415  # two seconds that interpret() need not pay

    artifact = artifact if isinstance(artifact, TritonArtifact) else TritonArtifact((artifact,))
    sizes = dict(sizes or {})
    whole = {name: int(value) for name, value in sizes.items() if not isinstance(value, float)}
    devices = {tensor.device for tensor in tensors.values()}
    if len(devices) != 1 or next(iter(devices)).type != "cuda":
        raise ArgumentError(f"the tensors of one launch must be on one GPU, got {sorted(map(str, devices))}")
    device = devices.pop()
    with torch.cuda.device(device):
        make = {True: torch.zeros, False: torch.empty}
        spaces = {s.name: make[s.zero](s.shape_of(whole), dtype=_torch_dtype(s.dtype), device=device) for s in artifact.workspaces}
        values = {**tensors, **spaces, **sizes}
        stream = torch.cuda.current_stream(device).cuda_stream
        for kernel in artifact.kernels:
            _launch_kernel(kernel, values, kernel.grid_of(whole), stream, device)


def _launch_kernel(kernel: TritonKernel, values: Mapping[str, Any], grid: tuple[int, int, int], stream: int, device: Any) -> None:
    if 0 in grid:
        return
    kernel = _honest(kernel, values)
    compiled = _loaded(kernel, device)
    if getattr(compiled.metadata, "global_scratch_size", 0):
        _provide_scratch()
    named = {a.name: values[a.name] for a in kernel.args} | kernel.constexprs
    try:
        compiled[grid](*(named[name] for name in compiled.src.fn.arg_names), stream=stream)
    except Exception as error:
        raise LaunchError(f"kernel {kernel.name!r} was refused by {device}", f"{type(error).__name__}: {error}") from error


def _honest(kernel: TritonKernel, values: Mapping[str, Any]) -> TritonKernel:
    """The kernel without the promises these arguments do not keep: a wide load at an odd address is a fault."""
    checked = []
    for arg in kernel.args:
        value = values[arg.name].data_ptr() if arg.is_pointer else values[arg.name]
        kept = not arg.dtype.is_int and not arg.is_pointer or value % arg.multiple == 0
        checked.append(arg if kept else dataclasses.replace(arg, multiple=1))
    return kernel if tuple(checked) == kernel.args else dataclasses.replace(kernel, args=tuple(checked))


_COMPILED: dict[tuple[str, str], Any] = {}


def _loaded(kernel: TritonKernel, device: Any) -> Any:
    """The kernel compiled and loaded on this very device. Losing a race compiles twice and keeps one."""
    key = (kernel.key, str(device))
    if key not in _COMPILED:
        _COMPILED[key] = compile_handle(kernel, device_target(device))
    return _COMPILED[key]


def _provide_scratch() -> None:
    """Kernels that build tensor descriptors ask Triton for global memory at launch; torch's allocator serves it.

    Set before each such launch, because Triton keeps its allocator in the context of one thread.
    """
    import torch  # noqa: PLC0415  # here and below: only a launch has to import it
    import triton  # noqa: PLC0415  # as torch

    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device="cuda"))


def device_target(device: Any) -> str:
    """The compile target of a torch device: ``sm_90`` on an H100, ``gfx942`` on an MI300X."""
    import torch  # noqa: PLC0415  # see above

    if not torch.cuda.is_available():
        raise TargetError("no GPU is present", remedy="interpret() or dlc.emulate run a kernel without one")
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _torch_dtype(dtype: Dtype) -> Any:
    import torch  # noqa: PLC0415  # see above

    names = {"f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2", "bf16": "bfloat16", "bool": "bool"}
    plain = {"f": "float", "i": "int", "u": "uint"}
    return getattr(torch, names.get(dtype.name) or plain[dtype.name[0]] + dtype.name[1:])
