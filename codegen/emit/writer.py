"""Text with indentation, names that do not clash, and definitions remembered per block: what every source emitter needs."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Hashable, Iterable


class Names:
    """Identifiers not handed out before, made from readable hints."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.taken = {*keyword.kwlist, *reserved}

    def fresh(self, hint: str, default: str = "v") -> str:
        """``hint`` as an identifier, numbered when it is taken."""
        base = re.sub(r"\W+", "_", hint).strip("_") or default
        base = f"_{base}" if base[0].isdigit() else base
        name, n = base, 1
        while name in self.taken:
            name, n = f"{base}_{n}", n + 1
        self.taken.add(name)
        return name


class Lines:
    """The lines of one block. ``level`` counts the loops around it; what is defined here is remembered by key."""

    def __init__(self, level: int = 0, parent: Lines | None = None) -> None:
        self.level, self.parent = level, parent
        self.lines: list[str] = []
        self.known: dict[Hashable, str] = {}

    def add(self, *lines: str) -> None:
        """Append lines at this block's indentation."""
        self.lines += lines

    def nest(self, header: str, body: Lines) -> None:
        """Append a header and the lines of a nested block."""
        self.lines.append(header)
        self.lines += [f"    {line}" if line else "" for line in body.lines or ["pass"]]

    def at(self, level: int) -> Lines:
        """The outermost enclosing block (or this one) within no more loops than ``level`` needs at least: where it belongs."""
        block = self
        while block.parent is not None and block.parent.level >= level:
            block = block.parent
        return block

    def find(self, key: Hashable) -> str | None:
        """The name a key was given here or in an enclosing block."""
        block: Lines | None = self
        while block is not None:
            if key in block.known:
                return block.known[key]
            block = block.parent
        return None


def atom(text: str) -> str:
    """``text`` so that an operator or subscript may follow it: in parentheses unless it is a name, call, subscript or number."""
    if text.isidentifier():
        return text
    node = ast.parse(text, mode="eval").body
    simple = (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.Constant)
    return text if isinstance(node, simple) else f"({text})"


def factor(text: str) -> str:
    """``text`` so that it may stand in a product: sums, comparisons and divisions in parentheses."""
    if text.isidentifier():
        return text
    node = ast.parse(text, mode="eval").body
    return text if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else atom(text)


def join(op: str, texts: Iterable[str]) -> str:
    """``a op b op c`` with operands in parentheses where needed."""
    parts = list(texts)
    return parts[0] if len(parts) == 1 else f" {op} ".join(atom(p) for p in parts)
