"""Buffers as flat numpy memory with poison, bounds and a record of who touched what: the tile interpreter's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from codegen.tile.ir import Buffer
from dsl.dim import Var
from dsl.dtype import Dtype, bf16, bool_, f8e4m3, f8e5m2, f16, f32, f64, i8, i16, i32, i64, u8, u32
from dsl.errors import BoundsError, InternalError

Array = Any
NUMPY: dict[Dtype, Any] = {
    bool_: np.bool_, u8: np.uint8, u32: np.uint32, i8: np.int8, i16: np.int16, i32: np.int32, i64: np.int64, f16: np.float16,
    f32: np.float32, f64: np.float64, bf16: ml_dtypes.bfloat16, f8e4m3: ml_dtypes.float8_e4m3fn, f8e5m2: ml_dtypes.float8_e5m2,
}
_NOBODY = -1


def poison(dtype: Dtype) -> Any:
    """What memory holds before it is written: NaN, an odd integer, or True."""
    if dtype.is_float:
        return float("nan")
    return True if dtype is bool_ else 0x5B if dtype.bits == 8 else 0x5BAD if dtype.bits == 16 else 0x5BADF00D


class Memory:
    """One buffer's elements, flat. Inputs may be given in their shape or as the flat memory their strides refer to."""

    def __init__(self, buffer: Buffer, env: Mapping[Var, int], given: Array | None) -> None:
        self.buffer = buffer
        self.shape = tuple(int(s.eval(env)) for s in buffer.shape)
        self.strides = tuple(int(s.eval(env)) for s in buffer.strides)
        span = 0 if 0 in self.shape else 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        self.flat = self._flat(given, span)
        self.writer = np.full(len(self.flat), _NOBODY, np.int64)
        self.reader = np.full(len(self.flat), _NOBODY, np.int64)
        self.tracked = buffer.scope in ("output", "workspace")

    def _flat(self, given: Array | None, span: int) -> Array:
        kind = NUMPY[self.buffer.dtype]
        if given is None:
            return np.full(span, poison(self.buffer.dtype)).astype(kind)
        array = np.asarray(given)
        if array.dtype != kind:
            array = array.view(kind) if array.dtype.itemsize == np.dtype(kind).itemsize else array.astype(kind)
        if array.shape != self.shape:
            if array.ndim != 1 or len(array) < span:
                raise InternalError(f"{self.buffer.name} is {self.shape} with strides {self.strides}, and the array given is {array.shape}")
            return array
        flat = np.full(span, poison(self.buffer.dtype)).astype(kind)
        flat[self._every_address()] = array
        return flat

    def _every_address(self) -> Array:
        steps = [np.arange(n).reshape([-1 if k == d else 1 for k in range(len(self.shape))]) * s
                 for d, (n, s) in enumerate(zip(self.shape, self.strides))]
        return np.broadcast_to(sum(steps, np.zeros((), np.int64)), self.shape)

    def start_phase(self) -> None:
        """Forget who touched what: phases run one after another."""
        if self.tracked:
            self.writer[:] = _NOBODY
            self.reader[:] = _NOBODY

    def logical(self) -> Array:
        """A dense copy in the buffer's shape."""
        return self.flat[self._every_address()] if 0 not in self.shape else np.empty(self.shape, self.flat.dtype)

    def addresses(self, places: list[Array], count: int) -> Array:
        """Flat positions of ``count`` elements, each index checked against its dimension."""
        for d, (place, n) in enumerate(zip(places, self.shape)):
            bad = (place < 0) | (place >= n)
            if bad.any():
                at = tuple(int(p[bad][0]) for p in places)
                raise BoundsError(f"{self.buffer.name}{list(at)} is outside {self.buffer.name} of shape {list(self.shape)}",
                                  f"index {at[d]} of dimension {d} must be in [0, {n})")
        return sum((p * s for p, s in zip(places, self.strides)), np.zeros(count, np.int64))

    def read(self, places: list[Array], count: int, point: int) -> Array:
        """The ``count`` elements at ``places`` for grid point ``point``."""
        where = self.addresses(places, count)
        if self.tracked:
            self._refuse(self.writer[where], point, "reads an element that another grid point of the same phase writes")
            self.reader[where] = point
        return self.flat[where]

    def write(self, places: list[Array], values: Array, point: int) -> None:
        """Write the elements at ``places`` for grid point ``point``."""
        where = self.addresses(places, len(values))
        if self.buffer.scope == "input":
            raise InternalError(f"store to the input {self.buffer.name}")
        if len(np.unique(where)) != where.size:
            raise InternalError(f"one store writes an element of {self.buffer.name} twice")
        if self.tracked:
            self._refuse(self.writer[where], point, "writes an element that another grid point of the same phase writes")
            self._refuse(self.reader[where], point, "writes an element that another grid point of the same phase reads")
            self.writer[where] = point
        self.flat[where] = values

    def _refuse(self, owners: Array, point: int, what: str) -> None:
        if ((owners != _NOBODY) & (owners != point)).any():
            raise InternalError(f"race on {self.buffer.name}: a grid point {what}")
