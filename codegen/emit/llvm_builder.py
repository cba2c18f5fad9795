"""The builder of instructions: llvmlite's, with the instructions of which code is made written down at once.

llvmlite keeps every instruction as an object with its operands, gives it a name, and spells it when the module is printed; that takes
most of the time of emitting a kernel. Here an instruction is its line of text, made when it is appended. Functions, blocks, branches,
types and the rest are llvmlite's.

Values are called ``%.v12`` or ``%.x.12``: names that llvmlite gives to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llvmlite import ir

_I1 = ir.IntType(1)
_VOID = ir.VoidType()
_CONDITION = {">": "gt", "<": "lt", "==": "eq", "!=": "ne", ">=": "ge", "<=": "le"}


def vector(t: ir.Type, lanes: int) -> ir.Type:
    """``<lanes x t>``, or ``t`` itself for zero lanes; the same object each time, so that its name is spelled once."""
    if not lanes:
        return t
    made = t.__dict__.setdefault("_vectors", {})  # llvmlite's types hash alike, so that a table of them would be searched
    return made.get(lanes) or made.setdefault(lanes, ir.VectorType(t, lanes))


class Line(ir.Value):
    """An instruction as text; ``parent`` is its block."""

    __slots__ = ("parent", "reference", "text", "type")

    def __init__(self, parent: ir.Block, kind: ir.Type, reference: str, text: str) -> None:
        self.parent, self.type, self.reference, self.text = parent, kind, reference, text

    def get_reference(self) -> str:
        """The name by which other instructions call the value."""
        return self.reference

    def __str__(self) -> str:
        return self.text


class Access(Line):
    """A load or a store; its alignment in bytes and marks may be given afterwards."""

    __slots__ = ("align", "marks")

    def __init__(self, parent: ir.Block, kind: ir.Type, reference: str, text: str, align: int) -> None:
        super().__init__(parent, kind, reference, text)
        self.align, self.marks = align, ""

    def set_metadata(self, name: str, node: ir.Value) -> None:
        """Mark it with a node of metadata."""
        self.marks += f", !{name} {node.get_reference()}"

    def __str__(self) -> str:
        return f"{self.text}, align {self.align}{self.marks}" if self.align else self.text + self.marks


class Phi(Line):
    """A value that depends on the block that control comes from."""

    __slots__ = ("incoming",)

    def __init__(self, parent: ir.Block, kind: ir.Type, reference: str) -> None:
        super().__init__(parent, kind, reference, "")
        self.incoming: list[str] = []

    def add_incoming(self, value: ir.Value, block: ir.Block) -> None:
        """The value when control comes from a block."""
        self.incoming.append(f"[{value.get_reference()}, {block.get_reference()}]")

    def __str__(self) -> str:
        return f"{self.reference} = phi {self.type} {', '.join(self.incoming)}"


class Landing(Line):
    """A place in a block for instructions that are written later (:meth:`Builder.at`)."""

    __slots__ = ("lines",)

    def __init__(self, parent: ir.Block) -> None:
        super().__init__(parent, _VOID, "", "")
        self.lines: list[Line] = []

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.lines))


def _binary(opcode: str) -> Callable[..., Line]:
    def made(self: Builder, a: ir.Value, c: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        spelled = " ".join([opcode, *flags]) if flags else opcode
        return self._value(a.type, f"{spelled} {a.type} {a.get_reference()}, {c.get_reference()}", name)

    return made


def _cast(opcode: str) -> Callable[..., ir.Value]:
    def made(self: Builder, v: ir.Value, to: ir.Type, name: str = "") -> ir.Value:
        return v if v.type is to or v.type == to else self._value(to, f"{opcode} {v.type} {v.get_reference()} to {to}", name)

    return made


class Builder(ir.IRBuilder):
    """Appends instructions to blocks; one for each function. It knows the instruction sets of the machine besides."""

    def __init__(self, block: ir.Block, features: Iterable[str] = ()) -> None:
        super().__init__(block)
        self.features = frozenset(features)
        self._made = 0
        self._landing: Landing | None = None

    def landing(self) -> Landing:
        """A place here, for what later turns out to be needed from here on."""
        made: Landing = self._append(Landing(self._block))
        return made

    def at(self, landing: Landing, emit: Callable[[], Line]) -> Line:
        """What ``emit`` returns, its instructions written to a landing; it must make no blocks."""
        before, self._landing = self._landing, landing
        try:
            return emit()
        finally:
            self._landing = before

    def _append(self, line: Line) -> Any:
        if self._landing is not None:
            line.parent = self._landing.parent
            self._landing.lines.append(line)
            return line
        self._block.instructions.append(line)
        self._anchor += 1
        return line

    def _name(self, hint: str) -> str:
        self._made += 1
        return f"%.{hint}.{self._made}" if hint else f"%.v{self._made}"

    def _value(self, kind: ir.Type, text: str, hint: str = "") -> Line:
        reference = self._name(hint)
        line: Line = self._append(Line(self._block, kind, reference, f"{reference} = {text}"))
        return line

    add, sub, mul, udiv, sdiv, urem, srem = (_binary(o) for o in ("add", "sub", "mul", "udiv", "sdiv", "urem", "srem"))
    shl, lshr, ashr, and_, or_, xor = (_binary(o) for o in ("shl", "lshr", "ashr", "and", "or", "xor"))
    fadd, fsub, fmul, fdiv, frem = (_binary(o) for o in ("fadd", "fsub", "fmul", "fdiv", "frem"))
    trunc, zext, sext, fptrunc, fpext = (_cast(o) for o in ("trunc", "zext", "sext", "fptrunc", "fpext"))
    fptosi, fptoui, sitofp, uitofp, bitcast, ptrtoint = (_cast(o) for o in ("fptosi", "fptoui", "sitofp", "uitofp", "bitcast", "ptrtoint"))

    def fneg(self, a: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        """-a."""
        return self._value(a.type, f"fneg {a.type} {a.get_reference()}", name)

    def _compare(self, opcode: str, condition: str, a: ir.Value, c: ir.Value, name: str) -> Line:
        kind = vector(_I1, a.type.count) if isinstance(a.type, ir.VectorType) else _I1
        return self._value(kind, f"{opcode} {condition} {a.type} {a.get_reference()}, {c.get_reference()}", name)

    def icmp_signed(self, cmpop: str, lhs: ir.Value, rhs: ir.Value, name: str = "") -> Line:
        """A comparison of signed integers."""
        return self._compare("icmp", _CONDITION[cmpop] if cmpop in ("==", "!=") else f"s{_CONDITION[cmpop]}", lhs, rhs, name)

    def icmp_unsigned(self, cmpop: str, lhs: ir.Value, rhs: ir.Value, name: str = "") -> Line:
        """A comparison of unsigned integers."""
        return self._compare("icmp", _CONDITION[cmpop] if cmpop in ("==", "!=") else f"u{_CONDITION[cmpop]}", lhs, rhs, name)

    def fcmp_ordered(self, cmpop: str, lhs: ir.Value, rhs: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        """A comparison of floats, false where one is no number."""
        return self._compare("fcmp", f"o{_CONDITION[cmpop]}" if cmpop in _CONDITION else cmpop, lhs, rhs, name)

    def fcmp_unordered(self, cmpop: str, lhs: ir.Value, rhs: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        """A comparison of floats, true where one is no number."""
        return self._compare("fcmp", f"u{_CONDITION[cmpop]}" if cmpop in _CONDITION else cmpop, lhs, rhs, name)

    def select(self, cond: ir.Value, lhs: ir.Value, rhs: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        """``lhs`` where a condition holds, else ``rhs``."""
        kind = lhs.type
        text = f"select {cond.type} {cond.get_reference()}, {kind} {lhs.get_reference()}, {kind} {rhs.get_reference()}"
        return self._value(kind, text, name)

    def load(self, ptr: ir.Value, name: str = "", align: int = 0, typ: ir.Type = None) -> Access:
        """What lies at an address."""
        reference = self._name(name)
        text = f"{reference} = load {typ}, {ptr.type} {ptr.get_reference()}"
        made: Access = self._append(Access(self._block, typ, reference, text, align))
        return made

    def store(self, value: ir.Value, ptr: ir.Value, align: int = 0) -> Access:
        """Write a value to an address."""
        text = f"store {value.type} {value.get_reference()}, {ptr.type} {ptr.get_reference()}"
        made: Access = self._append(Access(self._block, _VOID, "", text, align))
        return made

    def gep(self, ptr: ir.Value, indices: Sequence[ir.Value], inbounds: bool = False, name: str = "", source_etype: ir.Type = None) -> Line:
        """An address some elements on."""
        steps = ", ".join([f"{i.type} {i.get_reference()}" for i in indices])
        within = "getelementptr inbounds" if inbounds else "getelementptr"
        return self._value(ptr.type, f"{within} {source_etype}, {ptr.type} {ptr.get_reference()}, {steps}", name)

    def extract_element(self, vector: ir.Value, idx: ir.Value, name: str = "") -> Line:
        """One lane."""
        text = f"extractelement {vector.type} {vector.get_reference()}, {idx.type} {idx.get_reference()}"
        return self._value(vector.type.element, text, name)

    def insert_element(self, vector: ir.Value, value: ir.Value, idx: ir.Value, name: str = "") -> Line:
        """A vector with one lane replaced."""
        text = f"{vector.type} {vector.get_reference()}, {value.type} {value.get_reference()}, {idx.type} {idx.get_reference()}"
        return self._value(vector.type, f"insertelement {text}", name)

    def shuffle_vector(self, vector1: ir.Value, vector2: ir.Value, mask: ir.Constant, name: str = "") -> Line:
        """Lanes of two vectors, by their places in both."""
        kind = vector1.type
        text = f"{kind} {vector1.get_reference()}, {kind} {vector2.get_reference()}, {mask.type} {mask.get_reference()}"
        return self._value(vector(kind.element, mask.type.count), f"shufflevector {text}", name)

    def phi(self, typ: ir.Type, name: str = "", flags: Sequence[str] = ()) -> Phi:
        """A value that depends on where control comes from."""
        made: Phi = self._append(Phi(self._block, typ, self._name(name)))
        return made

    def call(self, fn: ir.Function, args: Sequence[ir.Value], name: str = "", *, aligned: Mapping[int, int] | None = None) -> Line:
        """Call a function.

        Args:
            fn: the function.
            args: its arguments.
            name: a hint for what the result is called.
            aligned: bytes to which the pointers at some places of the arguments are aligned.
        """
        marks = {n: f" align {size}" for n, size in (aligned or {}).items()}
        given = ", ".join([f"{a.type}{marks.get(n, '')} {a.get_reference()}" for n, a in enumerate(args)])
        result = fn.function_type.return_type
        text = f"call {result} {fn.get_reference()}({given})"
        if not isinstance(result, ir.VoidType):
            return self._value(result, text, name)
        made: Line = self._append(Line(self._block, result, "", text))
        return made
