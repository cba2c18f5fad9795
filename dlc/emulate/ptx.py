"""PTX text as a list of instructions with resolved labels, scopes and source lines."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

from dsl.errors import TargetError

_OPERAND = re.compile(r"\[[^\]]*\]|\{[^}]*\}|[^,\s]+")
_LABEL = re.compile(r"\s*([$\w]+):(?!:)")
_GUARD = re.compile(r"@(!?)([%\w.@$]+)\s+(.*)", re.S)


@dataclass(frozen=True)
class Instruction:
    """One PTX instruction; ``parts`` are the words of its opcode, ``line`` its place in the text, ``source`` in the kernel."""

    opcode: str
    args: tuple[str, ...]
    guard: str = ""
    negated: bool = False
    line: int = 0
    source: int = 0
    position: int = 0  # in the program

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        """The words of the opcode."""
        return tuple(self.opcode.replace("::", ":").split("."))

    def __str__(self) -> str:
        guard = f"@{'!' if self.negated else ''}{self.guard} " if self.guard else ""
        return f"{guard}{self.opcode} {', '.join(self.args)}"


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter: its type, or the bytes of a structure passed by value."""

    name: str
    kind: str
    size: int = 0


@dataclass
class Program:
    """A parsed kernel."""

    name: str
    target: str
    threads: int
    parameters: tuple[Parameter, ...]
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)  # family (without its number) -> type
    shared: dict[str, int] = field(default_factory=dict)  # symbol -> address
    shared_size: int = 0  # static
    local: dict[str, int] = field(default_factory=dict)
    local_size: int = 0
    constants: dict[str, bytes] = field(default_factory=dict)

    def kind_of(self, register: str) -> str:
        """The declared type of a register; ``b32`` when it has none."""
        return self.registers.get(register) or self.registers.get(re.sub(r"\d+(?=$|@)", "", register), "b32")


def parse(text: str) -> Program:
    """The one kernel of a PTX module."""
    entry = re.search(r"\.entry\s+([\w$]+)\s*\(", text)
    if entry is None:
        raise TargetError("the text has no PTX kernel", text[:200])
    opening = re.compile(r"^\{", re.M).search(text, entry.end())
    assert opening is not None, "a kernel has a body"
    head = text[entry.start() : opening.start()]
    threads = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", head)
    if threads is None:
        raise TargetError("the PTX does not say how many threads a block has", head)
    count = 1
    for axis in threads.groups():
        count *= int(axis or 1)
    target = re.search(r"\.target\s+(\w+)", text)
    program = Program(entry.group(1), target.group(1) if target else "", count, _parameters(head))
    _module_variables(text[: entry.start()], program)
    _Reader(program).read(text[opening.start() :], text.count("\n", 0, opening.start()) + 1)
    return program


def _parameters(head: str) -> tuple[Parameter, ...]:
    pattern = r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr\s*(?:\.\w+)?\s*(?:\.align\s+\d+\s+)?)?([\w$]+)(?:\[(\d+)\])?"
    return tuple(Parameter(name, kind, int(size or 0)) for kind, name, size in re.findall(pattern, head))


def _module_variables(text: str, program: Program) -> None:
    for raw in re.split(r";", re.sub(r"//.*", "", text)):
        if found := re.search(r"\.(?:global|const)\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)\[?(\d*)\]?\s*=\s*\{?([^}]*)\}?", raw):
            kind, name, _, values = found.groups()
            size = int(re.sub(r"\D", "", kind)) // 8
            numbers = [int(v, 0) for v in values.replace("\n", " ").split(",") if v.strip()]
            program.constants[name] = b"".join((n & (1 << 8 * size) - 1).to_bytes(size, "little") for n in numbers)
        elif ".shared" in raw:
            _variable(raw[raw.index(".shared") :], program, "")


def _variable(statement: str, program: Program, suffix: str) -> None:
    """A ``.shared`` or ``.local`` array gets its place."""
    found = re.match(r"\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.\w?(\d+)\s+([\w$]+)(?:\[(\d*)\])?", statement)
    if found is None:
        return
    space, align, bits, name, count = found.groups()
    table, used = (program.shared, program.shared_size) if space == "shared" else (program.local, program.local_size)
    start = -(-used // int(align or 1)) * int(align or 1)
    table[name + suffix] = start
    end = start + int(bits) // 8 * int(count or (1 if count is None else 0))
    if space == "shared":
        program.shared_size = end
    else:
        program.local_size = end


class _Reader:
    """Walks the body: statements end at ``;``, scopes nest, names declared in a scope are its own."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.scopes: list[dict[str, str]] = []
        self.opened = 0
        self.source = 0

    def read(self, body: str, first_line: int) -> None:
        pending = ""
        for number, raw in enumerate(body.split("\n"), first_line):
            rest = raw.split("//")[0]
            if place := re.match(r"\s*\.loc\s+\d+\s+(\d+)", rest):
                self.source = int(place.group(1))
                continue
            while rest.strip():
                if not pending.strip() and (step := self._structure(rest)) is not None:
                    rest = step
                    if not self.scopes:
                        return
                    continue
                statement, end, rest = rest.partition(";")
                pending += statement + " "
                if end:
                    self._statement(pending.strip(), number)
                    pending = ""

    def _structure(self, rest: str) -> str | None:
        """Handle a brace or a label at the start of a statement; the text after it, or None when there is none."""
        rest = rest.lstrip()
        if rest[0] == "{":
            self.opened += 1
            # Inline assembly repeats its names: what is declared or labelled in a nested scope gets the scope's number.
            self.scopes.append({"": f"@{self.opened}" if self.scopes else ""})
            return rest[1:]
        if rest[0] == "}":
            self.scopes.pop()
            return rest[1:]
        if found := _LABEL.match(rest):
            self.program.labels[self._own(found.group(1))] = len(self.program.code)
            return rest[found.end() :]
        return None

    def _own(self, label: str) -> str:
        return label if label.startswith("$") else label + self.scopes[-1][""]

    def _statement(self, text: str, line: int) -> None:
        if not text:
            return
        if text.startswith(".reg"):
            _, kind, names = text.split(None, 2)
            for name in names.split(","):
                self._register(name.strip(), kind.lstrip("."))
            return
        if text.startswith("."):
            _variable(text, self.program, "")
            return
        found = _GUARD.match(text)
        negated, guard, text = (found.group(1) == "!", self._rename(found.group(2)), found.group(3)) if found else (False, "", text)
        opcode, _, rest = text.replace("\t", " ").partition(" ")
        args = tuple(self._rename(a.strip()) for a in _OPERAND.findall(rest))
        if opcode.startswith("bra"):
            args = (self._own(args[0]),)
        code = self.program.code
        code.append(Instruction(opcode, args, guard, negated, line, self.source, len(code)))

    def _register(self, name: str, kind: str) -> None:
        family, counted, count = name.partition("<")
        suffix = self.scopes[-1][""]
        if counted and suffix:  # in a nested scope: name every member, so that uses resolve
            for n in range(int(count.rstrip(">"))):
                self.scopes[-1][f"{family}{n}"] = f"{family}{n}{suffix}"
                self.program.registers[f"{family}{n}{suffix}"] = kind
            return
        self.scopes[-1][family] = family + suffix
        self.program.registers[family + suffix] = kind

    def _rename(self, operand: str) -> str:
        if len(self.scopes) < 2:
            return operand
        return re.sub(r"%?[A-Za-z_][\w$]*", self._visible, operand)

    def _visible(self, found: re.Match[str]) -> str:
        name = found.group(0)
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), name)
