"""The dtypes, their facts, and the promotion table (torch's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsl.errors import DtypeError

_RANK = {"bool": 0, "int": 1, "float": 2}


@dataclass(frozen=True, eq=False)
class Dtype:
    """A scalar type. ``f32[M, K]`` makes the tensor annotation used in kernel signatures. There is one of each name."""

    name: str
    kind: str  # "bool", "int" or "float"
    bits: int
    signed: bool = True
    mantissa: int = 0  # explicit mantissa bits of a float

    def __getitem__(self, shape: Any) -> TensorType:
        """``f32[M, K]``: the type of a two-dimensional tensor."""
        return TensorType(self, shape if isinstance(shape, tuple) else (shape,))

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return by_name, (self.name,)

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return max(self.bits // 8, 1)

    @property
    def is_float(self) -> bool:
        """True for every floating-point dtype."""
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        """True for integers, False for bool."""
        return self.kind == "int"

    @property
    def is_low(self) -> bool:
        """True for floats narrower than 32 bits: held in f32 between operations."""
        return self.kind == "float" and self.bits < 32

    @property
    def held(self) -> Dtype:
        """The dtype in which values of this dtype are computed and held between operations."""
        return f32 if self.is_low else self

    @property
    def accumulator(self) -> Dtype:
        """The dtype in which a sum of this dtype is accumulated."""
        return self.held if self.is_float else i64


@dataclass(frozen=True)
class TensorType:
    """A dtype with a shape; entries of ``shape`` are ints or symbolic dims."""

    dtype: Dtype
    shape: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


bool_ = Dtype("bool", "bool", 8, False)
u8 = Dtype("u8", "int", 8, False)
u32 = Dtype("u32", "int", 32, False)
i8 = Dtype("i8", "int", 8)
i16 = Dtype("i16", "int", 16)
i32 = Dtype("i32", "int", 32)
i64 = Dtype("i64", "int", 64)
f8e4m3 = Dtype("f8e4m3", "float", 8, True, 3)
f8e5m2 = Dtype("f8e5m2", "float", 8, True, 2)
f16 = Dtype("f16", "float", 16, True, 10)
bf16 = Dtype("bf16", "float", 16, True, 7)
f32 = Dtype("f32", "float", 32, True, 23)
f64 = Dtype("f64", "float", 64, True, 52)

ALL = {d.name: d for d in (bool_, u8, u32, i8, i16, i32, i64, f8e4m3, f8e5m2, f16, bf16, f32, f64)}


def by_name(name: str) -> Dtype:
    """The dtype called ``name``; raises DtypeError with the list of names otherwise."""
    if name not in ALL:
        raise DtypeError(f"unknown dtype {name!r}", remedy="one of " + ", ".join(ALL))
    return ALL[name]


def of_python(value: bool | int | float) -> Dtype:
    """The dtype a Python number takes when nothing else decides it: bool, i64 or f32."""
    return bool_ if isinstance(value, bool) else i64 if isinstance(value, int) else f32


def promote(a: Dtype, b: Dtype) -> Dtype:
    """The common dtype of two tensors' elements, as ``torch.promote_types``."""
    if a is b or a == b:
        return a
    if a.kind != b.kind:
        return a if _RANK[a.kind] > _RANK[b.kind] else b
    if a.is_float:
        return (f16 if {a, b} == {f8e4m3, f8e5m2} else f32) if a.bits == b.bits else (a if a.bits > b.bits else b)
    if a.signed == b.signed:
        return a if a.bits > b.bits else b
    wide, narrow = (a, b) if a.bits > b.bits else (b, a)
    if a.bits != b.bits and wide.signed:
        return wide
    bits = 2 * max(a.bits, b.bits) if a.bits == b.bits else 2 * wide.bits
    return {16: i16, 32: i32}.get(bits, i64)


def promote_scalar(tensor: Dtype, value: bool | int | float) -> Dtype:
    """The dtype of ``tensor op value`` for a Python number: the tensor's unless the number's kind ranks higher."""
    other = of_python(value)
    return tensor if _RANK[other.kind] <= _RANK[tensor.kind] else other
