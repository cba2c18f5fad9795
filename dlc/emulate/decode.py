"""Operands as functions of a block, and the table of operations by the first word of the opcode.

An operation is decoded once for each instruction of a program into a *step*, ``step(block, active)``; everything that
depends on the text alone (types, register widths, immediates) is settled then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import Block
from dlc.emulate.formats import SIGNED, UNSIGNED, bits_of, dtype_of, width
from dlc.emulate.ptx import Instruction, Program
from dlc.emulate.report import Array
from dsl.errors import TargetError

Bools = NDArray[np.bool_]
Read = Callable[[Block], Array]
Write = Callable[[Block, Array, Bools], None]
Step = Callable[[Block, Bools], Any]
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?")
_TABLE: dict[str, Callable[[Instruction, Decoder], Step]] = {}


def operation(*names: str) -> Callable[[Callable[[Instruction, Decoder], Step]], Callable[[Instruction, Decoder], Step]]:
    """Register a decoder for opcodes beginning with these words."""

    def register(decoder: Callable[[Instruction, Decoder], Step]) -> Callable[[Instruction, Decoder], Step]:
        _TABLE.update(dict.fromkeys(names, decoder))
        return decoder

    return register


class Decoder:
    """Reads operand text in the light of a program's declarations."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def step(self, instruction: Instruction) -> Step:
        """The step of an instruction; TargetError names one that is not known."""
        decoder = _TABLE.get(instruction.parts[0])
        if decoder is None:
            raise unknown(instruction)
        return decoder(instruction, self)

    def read(self, text: str, kind: str) -> Read:
        """A source operand as values of a PTX type: one for each thread, or one for all."""
        dtype = dtype_of(kind)
        if kind == "pred":
            return self._predicate(text)
        if text.startswith("%") and "." in text or text in ("%laneid", "%warpid"):
            return lambda block: block.special[text].astype(dtype)
        if self._is_register(text):
            return self._register(text, kind)
        if text.startswith(("0f", "0F", "0d", "0D")):
            raw = np.array(int(text[2:], 16), UNSIGNED[4 if text[1] in "fF" else 8])
            constant = raw.view(dtype) if raw.itemsize == dtype.itemsize else raw.view(f"f{raw.itemsize}").astype(dtype)
        elif _NUMBER.fullmatch(text):
            constant = np.array(int(text.rstrip("U"), 0) & ((1 << 8 * width(kind)) - 1), UNSIGNED[width(kind)]).view(dtype)
        else:
            return lambda block: np.array(_symbol(block, text), np.uint64).astype(dtype)
        return lambda block: constant

    def _is_register(self, text: str) -> bool:
        return text.startswith("%") or text in self.program.registers or re.sub(r"\d+(?=$|@)", "", text) in self.program.registers

    def _register(self, name: str, kind: str) -> Read:
        declared = self.program.kind_of(name)
        dtype = dtype_of(kind)
        if declared == "pred" or width(declared) == width(kind):
            return lambda block: block.registers[name].view(dtype)
        unsigned = UNSIGNED[width(kind)]
        return lambda block: block.registers[name].astype(unsigned).view(dtype)

    def _predicate(self, text: str) -> Read:
        if _NUMBER.fullmatch(text):
            constant = np.array(bool(int(text, 0)))
            return lambda block: constant
        name = text.lstrip("!")
        if text.startswith("!"):
            return lambda block: ~block.registers[name]
        return lambda block: block.registers[name]

    def write(self, name: str) -> Write:
        """A destination register: values are widened to its declared width, by their sign."""
        if name in ("_", "%_"):
            return lambda block, values, active: None
        declared = self.program.kind_of(name)
        if declared == "pred":
            return lambda block, values, active: block.put(name, values, active)
        size = width(declared)

        def put(block: Block, values: Array, active: Bools) -> None:
            if values.dtype.itemsize != size:
                values = values.astype((SIGNED if values.dtype.kind == "i" else UNSIGNED)[size])
            block.put(name, bits_of(values), active)

        return put

    def address(self, text: str) -> Callable[[Block], NDArray[np.int64]]:
        """The addresses of a ``[register+offset]`` operand."""
        found = re.fullmatch(r"\[\s*([^\s+]+?)\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if found is None:
            raise TargetError(f"the emulator cannot read the address {text!r}")
        base, offset = found.group(1), int(found.group(2) or "0", 0)
        if self._is_register(base):
            return lambda block: block.registers[base].astype(np.int64) + offset
        if _NUMBER.fullmatch(base):
            return lambda block: np.full(block.threads, int(base, 0) + offset, np.int64)
        return lambda block: np.full(block.threads, _symbol(block, base) + offset, np.int64)


def vector(text: str) -> list[str]:
    """The members of a ``{a, b}`` operand, or the operand itself."""
    return [part.strip() for part in text.strip("{} ").split(",")]


def unknown(instruction: Instruction) -> TargetError:
    """The error for an instruction the emulator does not model."""
    return TargetError(
        f"the emulator does not know the instruction {instruction.opcode!r}",
        f"PTX line {instruction.line}, kernel line {instruction.source}: {instruction}",
        "it runs what Triton emits for sm_80 and sm_90",
    )


def _symbol(block: Block, name: str) -> int:
    for table in (block.program.shared, block.launch.symbols, block.program.local):
        if name in table:
            return table[name]
    if name in block.launch.parameters:
        return int(block.launch.parameters[name])
    raise block.findings.stop("undefined", f"no variable is called {name!r}")


def has(instruction: Instruction, *words: str) -> bool:
    """Whether the opcode carries all of these words."""
    return all(word in instruction.parts for word in words)


def all_lanes(block: Block, values: Array) -> Array:
    """One value for each thread, of something that may be one for all."""
    return values if values.ndim else np.full(block.threads, values)
