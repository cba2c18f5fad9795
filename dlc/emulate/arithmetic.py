"""Integer and float arithmetic, comparison and selection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlc.emulate.block import Block
from dlc.emulate.decode import Bools, Decoder, Step, has, operation, unknown
from dlc.emulate.formats import NARROW, PACKED, dtype_of, flush, fma, halves, join, round_to, width
from dlc.emulate.ptx import Instruction
from dlc.emulate.report import Array

Function = Callable[..., Array]


def elementwise(instruction: Instruction, decoder: Decoder, function: Function, kind: str, sources: tuple[str, ...]) -> Step:
    """A step that applies ``function`` to sources of one type: packed and narrow floats in float32, rounded once."""
    write = decoder.write(instruction.args[0])
    reads = [decoder.read(s, f"b{8 * width(kind)}" if kind in PACKED else kind) for s in sources]
    if kind in PACKED:
        apply = _packed(function, PACKED[kind])
    elif kind in NARROW or kind == "f16":
        apply = _narrow(function, kind)
    else:
        apply = _flushing(function) if has(instruction, "ftz") and kind == "f32" else function
    if has(instruction, "sat") and kind[0] in "fb":
        apply = _saturating(apply)

    def step(block: Block, active: Bools) -> None:
        write(block, apply(*(read(block) for read in reads)), active)

    return step


def _narrow(function: Function, kind: str) -> Function:
    return lambda *values: round_to(function(*(v.astype(np.float32) for v in values)), kind)


def _packed(function: Function, kind: str) -> Function:
    floats = kind[0] not in "su"
    whole = _narrow(function, kind) if floats else function

    def apply(*values: Array) -> Array:
        pairs = [halves(v, kind) for v in values]
        return join(whole(*(p[0] for p in pairs)), whole(*(p[1] for p in pairs)))

    return apply


def _flushing(function: Function) -> Function:
    return lambda *values: flush(function(*(flush(v) for v in values)))


def _saturating(function: Function) -> Function:
    return lambda *values: np.clip(np.nan_to_num(function(*values), nan=0.0), 0, 1)


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return x / y
    safe = np.where(y == 0, 1, y).astype(x.dtype)
    return np.where(y == 0, x.dtype.type(-1 if x.dtype.kind == "i" else ~x.dtype.type(0)), (x - np.fmod(x, safe)) // safe).astype(x.dtype)


def _remainder(x: Array, y: Array) -> Array:
    return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y).astype(x.dtype))).astype(x.dtype)


def _larger(x: Array, y: Array) -> Array:
    return np.fmax(x, y) if x.dtype.kind == "f" else np.maximum(x, y)


def _smaller(x: Array, y: Array) -> Array:
    return np.fmin(x, y) if x.dtype.kind == "f" else np.minimum(x, y)


_BINARY: dict[str, Function] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
    "div": _divide,
    "rem": _remainder,
    "max": _larger,
    "min": _smaller,
    "copysign": lambda x, y: np.copysign(y, x),
}


@operation(*_BINARY)
def decode_binary(instruction: Instruction, decoder: Decoder) -> Step:
    """Two operands of one type."""
    if {"cc"} & set(instruction.parts):
        raise unknown(instruction)
    function = _BINARY[instruction.parts[0]]
    if has(instruction, "NaN"):
        function = np.maximum if instruction.parts[0] == "max" else np.minimum
    return elementwise(instruction, decoder, function, instruction.parts[-1], instruction.args[1:3])


def _bits_of_each(values: Array) -> Array:
    return np.unpackbits(values[..., None].view(np.uint8), axis=-1, bitorder="little")


def _leading_zeros(x: Array) -> Array:
    size = x.dtype.itemsize * 8
    bits = _bits_of_each(x)[..., ::-1]
    return np.where(bits.any(-1), bits.argmax(-1), size).astype(np.uint32)


def _reversed(x: Array) -> Array:
    return np.packbits(_bits_of_each(x)[..., ::-1], axis=-1, bitorder="little").view(x.dtype)[..., 0]


_UNARY: dict[str, Function] = {
    "neg": lambda x: -x,
    "abs": np.abs,
    "not": lambda x: ~x,
    "ex2": np.exp2,
    "lg2": np.log2,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: (1 / np.sqrt(x.astype(np.float64))).astype(x.dtype),
    "rcp": lambda x: (1 / x).astype(x.dtype),
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "popc": lambda x: _bits_of_each(x).sum(-1).astype(np.uint32),
    "clz": _leading_zeros,
    "brev": _reversed,
}


@operation(*_UNARY)
def decode_unary(instruction: Instruction, decoder: Decoder) -> Step:
    """One operand. Approximations are computed as accurately as numpy does."""
    return elementwise(instruction, decoder, _UNARY[instruction.parts[0]], instruction.parts[-1], instruction.args[1:2])


@operation("bfind")
def decode_bfind(instruction: Instruction, decoder: Decoder) -> Step:
    """Position of the highest bit that differs from the sign."""
    kind = instruction.parts[-1]
    size = 8 * width(kind)
    shift = has(instruction, "shiftamt")

    def function(x: Array) -> Array:
        magnitude = np.where(x < 0, ~x, x).astype(dtype_of(f"u{size}"))
        zeros = _leading_zeros(magnitude)
        found = zeros if shift else np.uint32(size - 1) - zeros
        return np.where(magnitude == 0, np.uint32(0xFFFFFFFF), found).astype(np.uint32)

    return elementwise(instruction, decoder, function, kind, instruction.args[1:2])


@operation("shl", "shr")
def decode_shift(instruction: Instruction, decoder: Decoder) -> Step:
    """Shifts: an amount past the width gives zero, or the sign."""
    kind = instruction.parts[-1]
    dtype, size = dtype_of(kind), 8 * width(kind)
    value, amount = decoder.read(instruction.args[1], kind), decoder.read(instruction.args[2], "u32")
    write, left = decoder.write(instruction.args[0]), instruction.parts[0] == "shl"

    def step(block: Block, active: Bools) -> None:
        x, by = value(block), amount(block)
        near = np.minimum(by, size - 1).astype(dtype)
        moved = x << near if left else x >> near
        keep = np.ones(1, bool) if dtype.kind == "i" and not left else by < size
        write(block, np.where(keep, moved, dtype.type(0)), active)

    return step


@operation("shf")
def decode_funnel(instruction: Instruction, decoder: Decoder) -> Step:
    """Funnel shift of two words."""
    low, high, amount = (decoder.read(a, "u32") for a in instruction.args[1:4])
    write, left, wrap = decoder.write(instruction.args[0]), has(instruction, "l"), has(instruction, "wrap")

    def step(block: Block, active: Bools) -> None:
        by = amount(block).astype(np.uint64)
        by = by & np.uint64(31) if wrap else np.minimum(by, np.uint64(32))
        both = low(block).astype(np.uint64) | high(block).astype(np.uint64) << np.uint64(32)
        moved = (both << by) >> np.uint64(32) if left else both >> by
        write(block, moved.astype(np.uint32), active)

    return step


@operation("bfe")
def decode_extract(instruction: Instruction, decoder: Decoder) -> Step:
    """Bit field extraction."""
    kind = instruction.parts[-1]
    size = 8 * width(kind)
    value, start, length = (decoder.read(a, k) for a, k in zip(instruction.args[1:4], (f"u{size}", "u32", "u32")))
    write, signed = decoder.write(instruction.args[0]), kind[0] == "s"

    def step(block: Block, active: Bools) -> None:
        x, at, count = (read(block).astype(np.uint64) for read in (value, start, length))
        at, count = at & np.uint64(255), np.minimum(count & np.uint64(255), np.uint64(63))
        found = np.where(at < 64, x >> np.minimum(at, np.uint64(63)), np.uint64(0)) & ((np.uint64(1) << count) - np.uint64(1))
        if signed:
            top = np.where(count > 0, np.uint64(1) << (np.maximum(count, np.uint64(1)) - np.uint64(1)), np.uint64(0))
            found = (found ^ top) - top
        write(block, found.astype(dtype_of(f"u{size}")), active)

    return step


@operation("bfi")
def decode_insert(instruction: Instruction, decoder: Decoder) -> Step:
    """Bit field insertion."""
    size = 8 * width(instruction.parts[-1])
    field, base, start, length = (decoder.read(a, k) for a, k in zip(instruction.args[1:5], (f"u{size}", f"u{size}", "u32", "u32")))
    write = decoder.write(instruction.args[0])

    def step(block: Block, active: Bools) -> None:
        at, count = start(block).astype(np.uint64), np.minimum(length(block), 63).astype(np.uint64)
        mask = ((np.uint64(1) << count) - np.uint64(1)) << at
        merged = (base(block) & ~mask) | ((field(block).astype(np.uint64) << at) & mask)
        write(block, merged.astype(dtype_of(f"u{size}")), active)

    return step


@operation("lop3")
def decode_logic(instruction: Instruction, decoder: Decoder) -> Step:
    """Any function of three bits, by its truth table."""
    table = int(instruction.args[4], 0)

    def function(a: Array, b: Array, c: Array) -> Array:
        out = np.zeros_like(a | b | c)
        for n in range(8):
            if table >> n & 1:
                out |= (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
        return out

    return elementwise(instruction, decoder, function, "b32", instruction.args[1:4])


def _product(x: Array, y: Array, part: str) -> Array:
    size = x.dtype.itemsize
    if part == "wide":
        wide = np.dtype(f"{x.dtype.kind}{2 * size}")
        return x.astype(wide) * y.astype(wide)
    if part == "lo":
        return x * y
    if size < 8:
        wide = np.dtype(f"{x.dtype.kind}{2 * size}")
        return ((x.astype(wide) * y.astype(wide)) >> wide.type(8 * size)).astype(x.dtype)
    exact = np.atleast_1d(x).astype(object) * np.atleast_1d(y).astype(object)
    return np.array([int(v) >> 64 for v in exact], object).astype(x.dtype)


@operation("mul", "mad", "mul24", "mad24")
def decode_multiply(instruction: Instruction, decoder: Decoder) -> Step:
    """Products, integer ones by the half that is kept, and an optional addend."""
    kind, args = instruction.parts[-1], instruction.args
    adds = instruction.parts[0].startswith("mad")
    if kind[0] in "fb":
        function: Function = fma if adds else (lambda x, y: x * y)
        return elementwise(instruction, decoder, function, kind, args[1 : 4 if adds else 3])
    if instruction.parts[0].endswith("24"):
        raise unknown(instruction)
    part = next((p for p in ("wide", "hi", "lo") if p in instruction.parts), "lo")
    left, right, write = decoder.read(args[1], kind), decoder.read(args[2], kind), decoder.write(args[0])
    addend = decoder.read(args[3], f"{kind[0]}{16 * width(kind)}" if part == "wide" else kind) if adds else None

    def step(block: Block, active: Bools) -> None:
        product = _product(left(block), right(block), part)
        write(block, product if addend is None else product + addend(block), active)

    return step


@operation("fma")
def decode_fma(instruction: Instruction, decoder: Decoder) -> Step:
    """Multiply and add with one rounding."""
    kind = instruction.parts[-1]
    exact = kind in ("f32", "f64")
    function: Function = fma if exact else (lambda x, y, z: x.astype(np.float64) * y + z)
    if has(instruction, "relu"):
        inner = function
        function = lambda x, y, z: np.maximum(inner(x, y, z), 0)  # noqa: E731  (a wrapper of one expression)
    return elementwise(instruction, decoder, function, kind, instruction.args[1:4])


_COMPARE: dict[str, Function] = {
    **{"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal},
    **{"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal},
    "ne": lambda x, y: (x != y) & (x == x) & (y == y),  # an ordered comparison: false with a nan
    "num": lambda x, y: (x == x) & (y == y),
    "nan": lambda x, y: (x != x) | (y != y),
}


def comparison(word: str) -> Function:
    """The test a comparison word names; a trailing ``u`` makes it true for nan as well."""
    if word in _COMPARE:
        return _COMPARE[word]
    ordered = _COMPARE[word[:-1]]
    return lambda x, y: ordered(x, y) | (x != x) | (y != y)


@operation("set")
def decode_compare_to_value(instruction: Instruction, decoder: Decoder) -> Step:
    """Comparison into a register: one or all bits set where it holds, by the type of the result; each half of a packed register apart."""
    parts, args = instruction.parts, instruction.args
    to, kind = parts[-2:]
    if len(args) != 3 or (kind in PACKED) != (to in PACKED):
        raise unknown(instruction)
    test = comparison(parts[1])
    first, second = (decoder.read(a, f"b{8 * width(kind)}" if kind in PACKED else kind) for a in args[1:])
    result, write = dtype_of(PACKED.get(to, to)), decoder.write(args[0])
    holds = np.array(1, result) if result.kind not in "iu" else np.array(-1, np.int64).astype(result)

    def one(x: Array, y: Array) -> Array:
        return np.where(test(x, y), holds, np.zeros((), result))

    def step(block: Block, active: Bools) -> None:
        x, y = first(block), second(block)
        if kind in PACKED:
            write(block, join(*(one(a, b) for a, b in zip(halves(x, PACKED[kind]), halves(y, PACKED[kind])))), active)
        else:
            write(block, one(x, y), active)

    return step


@operation("setp")
def decode_compare(instruction: Instruction, decoder: Decoder) -> Step:
    """Comparison into a predicate, combined with another by and, or, xor."""
    parts, args = instruction.parts, instruction.args
    kind = parts[-1]
    if kind in PACKED and "|" not in args[0]:
        raise unknown(instruction)
    test = comparison(parts[1])
    combine = next((_BINARY[w] for w in parts[2:-1] if w in ("and", "or", "xor")), None)
    other = decoder.read(args[3], "pred") if combine else None
    first, second = (decoder.read(a, f"b{8 * width(kind)}" if kind in PACKED else kind) for a in args[1:3])
    writes = [decoder.write(name) for name in args[0].split("|")]

    def step(block: Block, active: Bools) -> None:
        x, y = first(block), second(block)
        pairs = zip(halves(x, PACKED[kind]), halves(y, PACKED[kind])) if kind in PACKED else ((x, y),)
        results = [test(a, b) for a, b in pairs]
        if combine is not None and other is not None:
            results = [combine(r, other(block)) for r in results]
        if len(writes) > len(results):
            results.append(~results[0])
        for write, result in zip(writes, results):
            write(block, result, active)

    return step


@operation("selp")
def decode_select(instruction: Instruction, decoder: Decoder) -> Step:
    """One of two values, by a predicate."""
    kind = f"b{8 * width(instruction.parts[-1])}"
    first, second = (decoder.read(a, kind) for a in instruction.args[1:3])
    choose, write = decoder.read(instruction.args[3], "pred"), decoder.write(instruction.args[0])
    return lambda block, active: write(block, np.where(choose(block), first(block), second(block)), active)
