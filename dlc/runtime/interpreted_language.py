"""Triton's interpreter, mended where it differs from a GPU, with every memory access checked.

Runs only in the child process of :mod:`dlc.runtime.triton_run`, because it replaces parts of Triton. What it mends:
bf16 and fp8 arithmetic (the original works on raw bits), rounding to bf16 and fp8 (the original truncates), fused
multiply-add (the original rounds twice), tf32 products (the original ignores the precision), masked-off lanes (the
original reads zero, whatever a scalar load says), and reductions with a combine function of one's own (the original
goes element by element).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import triton.language as tl
import triton.runtime.interpreter as interpreter
from numpy.typing import NDArray
from triton._C.libtriton import interpreter as native
from triton._C.libtriton import ir
from triton.runtime.interpreter import TensorHandle

from codegen.micro.maths_numpy import NumpyMath
from dlc.runtime.interpreted_memory import Memory

Array = NDArray[Any]
LOW = {tl.bfloat16: ml_dtypes.bfloat16, tl.float8e5: ml_dtypes.float8_e5m2, tl.float8e4nv: ml_dtypes.float8_e4m3fn}
_SATURATES = {tl.float8e5: 57344.0, tl.float8e4nv: 448.0}  # GPU conversions clamp; ml_dtypes overflows to inf or nan


def widen(handle: TensorHandle) -> Array:
    """The values of a handle as an array numpy can compute with."""
    low = LOW.get(handle.dtype.scalar)
    return handle.data if low is None else np.ascontiguousarray(handle.data).view(low).astype(np.float32)


def narrow(values: Array, dtype: Any) -> TensorHandle:
    """A handle of ``dtype`` from computed values, rounded to nearest even."""
    low = LOW.get(dtype)
    if low is None:
        return TensorHandle(values.astype(interpreter._get_np_dtype(dtype), copy=False), dtype)
    if values.dtype == bool:  # a comparison: Triton takes the type from its own tables
        return TensorHandle(values, tl.int1)
    limit = _SATURATES.get(dtype)
    values = values if limit is None else np.clip(values, -limit, limit)
    return TensorHandle(values.astype(low).view(interpreter._get_np_dtype(dtype)), dtype)


class CheckedBuilder(interpreter.InterpreterBuilder):
    """The interpreter's operations, with memory checked and narrow floats computed as a GPU does."""

    memory: Memory

    def create_masked_load(self, ptrs: TensorHandle, mask: TensorHandle, other: TensorHandle | None, *_: Any, **__: Any) -> TensorHandle:
        """Load the lanes that are in bounds; the rest, and masked lanes without ``other``, hold garbage."""
        dtype = ptrs.get_element_ty()
        kind = interpreter._get_np_dtype(dtype)
        filler = (np.full(ptrs.data.shape, _garbage(kind), kind) if other is None
                  else np.broadcast_to(other.data, ptrs.data.shape).astype(kind))
        active = np.broadcast_to(mask.data, ptrs.data.shape)
        good = self.memory.access(ptrs.data, kind.itemsize, active, "load")
        return TensorHandle(native.load(ptrs.data, good, np.ascontiguousarray(filler), kind), dtype)

    def create_masked_store(self, ptrs: TensorHandle, value: TensorHandle, mask: TensorHandle, *_: Any) -> None:
        """Store the lanes that are in bounds."""
        kind = interpreter._get_np_dtype(ptrs.get_element_ty())
        active = np.broadcast_to(mask.data, ptrs.data.shape)
        good = self.memory.access(ptrs.data, kind.itemsize, active, "store")
        # A histogram or comparison may hand over a wider array than the pointer's type: the store would spill over.
        native.store(ptrs.data, np.ascontiguousarray(np.broadcast_to(value.data, ptrs.data.shape).astype(kind, copy=False)), good)

    def create_atomic_rmw(self, rmwOp: Any, ptr: TensorHandle, val: TensorHandle, mask: TensorHandle, sem: Any, scope: Any) -> TensorHandle:
        """An atomic update of the lanes that are in bounds."""
        good = self._atomic(ptr, np.broadcast_to(mask.data, ptr.data.shape), sem)
        result: TensorHandle = super().create_atomic_rmw(rmwOp, ptr, val, TensorHandle(good, tl.int1), sem, scope)
        return result

    def create_atomic_cas(self, ptr: TensorHandle, cmp: TensorHandle, val: TensorHandle, sem: Any, scope: Any) -> TensorHandle:
        """Compare and swap; a stray lane stops the run, since it cannot be masked."""
        if not self._atomic(ptr, np.ones(ptr.data.shape, bool), sem).all():
            raise IndexError("atomic_cas out of bounds")
        result: TensorHandle = super().create_atomic_cas(ptr, cmp, val, sem, scope)
        return result

    def _atomic(self, ptr: TensorHandle, active: NDArray[np.bool_], sem: Any) -> NDArray[np.bool_]:
        if sem != ir.MEM_SEMANTIC.RELAXED:
            self.memory.synchronise()
        size = max(1, ptr.get_element_ty().primitive_bitwidth // 8)
        return self.memory.access(ptr.data, size, active, "atomic")

    def cast_impl(self, src: TensorHandle, dst_type: Any) -> TensorHandle:
        """A conversion between dtypes."""
        return narrow(widen(src), dst_type.scalar)

    def create_fp_to_fp(self, src: TensorHandle, dst_type: Any, rounding_mode: Any) -> TensorHandle:
        """A conversion between floats, to nearest even unless truncation is asked for by name."""
        if rounding_mode == ir.ROUNDING_MODE.RTZ:
            result: TensorHandle = super().create_fp_to_fp(src, dst_type, rounding_mode)
            return result
        return self.cast_impl(src, dst_type)

    def binary_op(self, lhs: TensorHandle, rhs: TensorHandle, op: Callable[..., Array]) -> TensorHandle:
        """An elementwise operation of two operands."""
        if lhs.data.dtype == np.bool_ and op in (np.bitwise_and, np.bitwise_or, np.bitwise_xor):
            return TensorHandle(op(lhs.data, rhs.data.astype(bool)), tl.int1)  # "all ones" comes as an integer
        if lhs.dtype.scalar not in LOW:
            result: TensorHandle = super().binary_op(lhs, rhs, op)
            # The original gives a comparison the dtype of what was compared, to which a scalar would be converted when repeated.
            return TensorHandle(result.data, tl.int1) if result.data.dtype == np.bool_ else result
        return narrow(op(widen(lhs), widen(rhs)), lhs.dtype.scalar)

    def unary_op(self, arg: TensorHandle, op: Callable[..., Array]) -> TensorHandle:
        """An elementwise operation of one operand."""
        return narrow(op(widen(arg)), arg.dtype.scalar)

    def ternary_op(self, lhs: TensorHandle, rhs: TensorHandle, other: TensorHandle, op: Callable[..., Array]) -> TensorHandle:
        """An elementwise operation of three operands; a selection moves bits and needs no arithmetic."""
        if op is np.where or other.dtype.scalar not in LOW:
            result: TensorHandle = super().ternary_op(lhs, rhs, other, op)
            return result
        return narrow(op(widen(lhs), widen(rhs), widen(other)), other.dtype.scalar)

    def create_fma(self, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
        """The value of x * y + z, rounded once."""
        with np.errstate(all="ignore"):
            wide = [v if v.dtype == np.float64 else v.astype(np.float32) for v in map(widen, (x, y, z))]
            return narrow(NumpyMath().fma(*wide), z.dtype.scalar)

    def create_rsqrt(self, arg: TensorHandle) -> TensorHandle:
        """1 / sqrt(x)."""
        return self.unary_op(arg, lambda v: (1 / np.sqrt(v)).astype(v.dtype))

    def create_dot(self, a: TensorHandle, b: TensorHandle, d: TensorHandle, input_precision: Any,
                   max_num_imprecise_acc: Any) -> TensorHandle:
        """The product a @ b + d accumulated in the type of d; tf32 drops the bits the tensor core drops."""
        left, right = widen(a), widen(b)
        if input_precision == ir.INPUT_PRECISION.TF32 and left.dtype == np.float32 and a.dtype.scalar not in LOW:
            left, right = _tf32(left), _tf32(right)
        return narrow(np.matmul(left, right, dtype=d.data.dtype) + d.data, d.dtype.scalar)


def _garbage(kind: np.dtype[Any]) -> Any:
    """What an undefined lane holds: not a number, or a number nobody would expect."""
    return np.nan if kind.kind == "f" else True if kind.kind == "b" else kind.type(-1 if kind.kind == "i" else ~kind.type(0))


def _tf32(values: Array) -> Array:
    bits = np.ascontiguousarray(values).view(np.uint32)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def _tree_reduce(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """A reduction with any combine function: halves combined pairwise, whole tensors at a time."""
    flat = self.axis is None
    axis = 0 if flat else self.axis
    parts = [_Part(t.handle.data.reshape(-1) if flat else np.moveaxis(t.handle.data, axis, 0), t.dtype) for t in inputs]
    while (length := parts[0].data.shape[0]) > 1:
        half = length // 2
        both = [p.tensor(slice(0, half)) for p in parts] + [p.tensor(slice(half, length)) for p in parts]
        parts = [_Part(m, p.dtype) for m, p in zip(_combine(self, both), parts, strict=True)]
    results = [np.moveaxis(p.data, 0, axis) if self.keep_dims and not flat else p.data[0] for p in parts]
    if flat and self.keep_dims:
        results = [r.reshape((1,) * inputs[0].handle.data.ndim) for r in results]
    return [self.to_tensor(r, t.dtype) for r, t in zip(results, inputs, strict=True)]


def _doubling_scan(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """A scan with any combine function, in log steps over whole tensors."""
    parts = [_Part(np.moveaxis(t.handle.data, self.axis, 0), t.dtype) for t in inputs]
    step = 1
    while step < parts[0].data.shape[0]:
        # Triton's shapes are powers of two, so whole tensors are combined and the rows without a partner kept.
        earlier = [_Part(np.roll(p.data, step, 0), p.dtype) for p in parts]
        merged = _combine(self, [p.tensor() for p in earlier + parts])
        parts = [_Part(np.concatenate([p.data[:step], m[step:]]), p.dtype) for m, p in zip(merged, parts, strict=True)]
        step *= 2
    return [self.to_tensor(np.moveaxis(p.data, 0, self.axis), t.dtype) for p, t in zip(parts, inputs, strict=True)]


def _combine(self: Any, tensors: list[Any]) -> list[Array]:
    got = self.combine_fn.fn(*tensors)
    shape = tensors[0].handle.data.shape
    return [np.broadcast_to(g.handle.data, shape) for g in (got if isinstance(got, tuple) else (got,))]


class _Part:
    """An array with its Triton dtype, cut along the leading axis."""

    def __init__(self, data: Array, dtype: Any) -> None:
        self.data, self.dtype = data, dtype

    def tensor(self, rows: slice = slice(None)) -> Any:
        data = np.ascontiguousarray(self.data[rows])
        return tl.core.tensor(TensorHandle(data, self.dtype.scalar), tl.block_type(self.dtype.scalar, list(data.shape)))


def _to_tensor(self: Any, values: Any, dtype: Any) -> Any:
    """A reduction's result in its dtype; integers wrap around, as they do on a GPU."""
    data = np.atleast_1d(np.asarray(values)).astype(interpreter._get_np_dtype(dtype))
    kind = tl.block_type(dtype, list(data.shape)) if np.ndim(values) else dtype
    return tl.core.tensor(TensorHandle(data, dtype.scalar), kind)


def _in_float32(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Let a reduction or scan see narrow floats as float32 and round its results back."""

    def run(self: Any, inputs: tuple[Any, ...]) -> Any:
        narrowed = [t.dtype.scalar in LOW for t in inputs]
        wide = tuple(self.to_tensor(widen(t.handle), tl.float32) if low else t for t, low in zip(inputs, narrowed, strict=True))
        got = apply(self, wide)
        if not any(narrowed):
            return got
        results = got if isinstance(got, (list, tuple)) else [got]
        return [self.to_tensor(narrow(r.handle.data, t.dtype.scalar).data, t.dtype) if low else r
                for r, t, low in zip(results, inputs, narrowed, strict=False)]

    return run


class _Present(tl.core.tensor):
    """A number that counts as given when it is zero."""

    def __bool__(self) -> bool:
        return True


def _load(ptr: Any, mask: Any, other: Any, *policy: Any) -> Any:
    """A load; the interpreter takes a scalar ``other`` that is zero for one that is missing, a compiled kernel does not."""
    semantic = interpreter.interpreter_semantic
    if other is not None and not ptr.type.is_block():
        kind = ptr.type.scalar.element_ty
        kind = tl.int8 if kind == tl.int1 else kind
        other = _Present(semantic.cast(other, kind).handle, kind)
    return type(semantic).load(semantic, ptr, mask, other, *policy)


def install(memory: Memory) -> CheckedBuilder:
    """Put the mended operations in place of Triton's; returns the builder every kernel of this process uses."""
    builder = interpreter.interpreter_builder
    if not isinstance(builder, CheckedBuilder):
        builder.__class__ = CheckedBuilder
        interpreter.interpreter_semantic.load = _load
        interpreter.ReduceScanOpInterface.to_tensor = _to_tensor
        for family, generic, vectorised in (
            (interpreter.ReduceOps, "generic_reduce", _tree_reduce),
            (interpreter.ScanOps, "generic_scan", _doubling_scan),
        ):
            setattr(family, generic, vectorised)
            family.apply_impl = _in_float32(family.apply_impl)
    builder.memory = memory
    memory.where = _kernel_line
    return builder


def _kernel_line() -> str:
    """The line of the kernel's source being executed."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<dlc_"):
            return f", line {frame.f_lineno}"
        frame = frame.f_back
    return ""
