"""Index terms as Triton expressions: scalars, index vectors, addresses and masks.

A vector over one tile axis is named where it is first needed, as far out of the loops as it can be computed: ``i = gm * 32 +
tl.arange(0, 32)``. Addresses and masks both use it. What changes in an inner loop is added as a scalar: ``x_at + k * 16``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codegen.emit.triton_helpers import Helpers
from codegen.emit.triton_maths import Operand
from codegen.emit.writer import Lines, Names, atom, factor, join
from codegen.tile.ir import Buffer, Slot, Value
from dsl.dim import INF, Atom, Div, MinMax, Mod, Mono, Term, Var, as_term, nonneg

Axes = tuple[Var, ...]
_LONG = 90


class Terms:
    """What one kernel's text is made of so far. ``order`` ranks the tile axes: a tile's dimensions follow it."""

    wide = False  # index arithmetic in 64 bits

    def __init__(self, names: Names, helpers: Helpers, order: dict[Var, int]) -> None:
        self.names, self.helpers, self.order = names, helpers, order
        self.block = Lines()
        self.scalars: dict[Var, str] = {}  # sizes, grid and loop variables
        self.levels: dict[Var, int] = {}
        self.offsets: dict[str, int] = {}  # constant part of each named vector
        self.values: dict[Value, Operand] = {}
        self.pointers: dict[Buffer, str] = {}

    # -- axes ----------------------------------------------------------------------------------------------------
    def sorted(self, axes: Iterable[Var]) -> Axes:
        """Axes in the order of a tile's dimensions."""
        return tuple(sorted(axes, key=lambda a: self.order[a]))

    def axes_of(self, t: Term) -> Axes:
        """The tile axes of a term, in order."""
        return self.sorted(v for v in t.vars if v not in self.scalars)

    def shape(self, axes: Iterable[Var]) -> str:
        """``[32, 16]``."""
        return f"[{', '.join(str(a.size) for a in self.sorted(axes))}]"

    def level(self, t: Term) -> int:
        """How many loops must be open for the term to be known."""
        return max((self.levels.get(v, 0) for v in t.vars), default=0)

    def expand(self, text: str, axes: Axes, to: Axes) -> str:
        """A tile over ``axes`` with dimensions of length one for the others of ``to``; scalars broadcast as they are."""
        if axes == to or not axes:
            return text
        return f"{atom(text)}[{', '.join(':' if a in axes else 'None' for a in to)}]"

    def value(self, v: Value, to: Axes) -> Operand:
        """A value ready to be combined with tiles over ``to``."""
        x = self.values[v]
        return x if x.value is not None else Operand(self.expand(x.text, self.sorted(v.axes), to), x.dtype)

    # -- scalars and vectors -------------------------------------------------------------------------------------
    def scalar(self, t: Term) -> str:
        """A term without tile axes."""
        return self._sum([(c, [self._atom(a, ()) for a in mono]) for mono, c in t.parts.items()], t.const)

    def _sum(self, parts: list[tuple[int, list[str]]], const: int) -> str:
        out = ""
        for c, factors in sorted(parts, key=lambda p: p[0] < 0):
            size = [str(abs(c))] if abs(c) != 1 else []
            text = " * ".join([factor(f) if n == 0 else atom(f) for n, f in enumerate(factors)] + size)
            text = text if len(factors) + len(size) > 1 else factors[0]
            out += (" - " if c < 0 else " + ") + (factor(text) if c < 0 else text) if out else ("-" + atom(text) if c < 0 else text)
        if not out:
            return str(const)
        return out + (f" - {-const}" if const < 0 else f" + {const}" if const else "")

    def _atom(self, a: Atom, axes: Axes) -> str:
        """An atom over tile axes ``axes`` (none: a scalar)."""
        if isinstance(a, Var):
            return self.scalars[a] if a in self.scalars else self.expand(self._line(as_term(a), a), (a,), axes)
        if isinstance(a, MinMax):
            return f"tl.{a.which}imum({self.vector(a.a, axes)}, {self.vector(a.b, axes)})"
        return self._quotient(a, axes)

    def _quotient(self, a: Div, axes: Axes) -> str:
        """A floor division or remainder; Triton's own round towards zero, so the dividend is made non-negative first."""
        num, den, whole = a.num, self.scalar(a.den), not isinstance(a, Mod)
        low = num.bounds[0]
        shift = 0
        if low < 0 and not nonneg(num):
            if not a.den.is_const or low == -INF:
                name = self.helpers.use("floordiv_int" if whole else "mod_int")
                divisor = f"tl.full([], {den}, tl.int32)" if a.den.is_const else f"tl.cast({den}, tl.int32)"
                return f"{name}({self.vector(num, axes)}, {divisor})"
            shift = -int(low // a.den.const)
        if whole and a.den.is_const and num.const == a.den.const - 1 and not shift and not axes:
            return f"tl.cdiv({self.scalar(num - num.const)}, {den})"
        text = atom(self.vector(num + shift * a.den, axes))
        return f"({text} // {atom(den)} - {shift})" if whole and shift else f"{text} {'//' if whole else '%'} {atom(den)}"

    def vector(self, t: Term, axes: Axes) -> str:
        """A term over tile axes, at the rank of ``axes``."""
        if not axes:
            return self.scalar(t)
        lines, rest = self.pieces(t)
        texts = [self.expand(self.piece(sub), self.axes_of(sub), axes) for sub in lines]
        text = " + ".join(texts) if len(texts) > 1 else texts[0] if texts else ""
        if not text:
            return self.scalar(rest)
        if rest == 0:
            return text
        negative = all(c < 0 for c in rest.parts.values()) and rest.const <= 0
        return f"{text} - {factor(self.scalar(-rest))}" if negative else f"{text} + {self.scalar(rest)}"

    def pieces(self, t: Term) -> tuple[list[Term], Term]:
        """Split by tile axes: terms over one set of axes each, the first single one with the scalars known where it is, and the rest."""
        groups: dict[Axes, dict[Mono, int]] = {}
        for mono, c in t.parts.items():
            groups.setdefault(self.axes_of(Term({mono: c}, 0)), {})[mono] = c
        scalars = groups.pop((), {})
        first = next((axes for axes in groups if len(axes) == 1), None)
        if first is None:
            return [Term(g, 0) for g in groups.values()], Term(scalars, t.const)
        home = self.level(Term(groups[first], 0))
        near = {m: c for m, c in scalars.items() if self.level(Term({m: c}, 0)) <= home}
        head = Term({**groups.pop(first), **near}, t.const)
        return [head, *(Term(g, 0) for g in groups.values())], Term({m: c for m, c in scalars.items() if m not in near}, 0)

    def piece(self, sub: Term) -> str:
        """A term over one set of axes, at their rank."""
        axes = self.axes_of(sub)
        if len(axes) == 1:
            name, offset = self.line(sub)
            return name if sub.const == offset else f"{name} {'+' if sub.const > offset else '-'} {abs(sub.const - offset)}"
        return self._sum([(c, [self._atom(a, axes) for a in mono]) for mono, c in sub.parts.items()], sub.const)

    def line(self, sub: Term) -> tuple[str, int]:
        """The name of a vector over one axis that differs from ``sub`` by a constant at most, and the constant it has."""
        key = frozenset(sub.parts.items())
        found = self.block.find(key)
        if found is None:
            (axis,) = self.axes_of(sub)
            found = self._line(sub, axis)
        return found, self.offsets[found]

    def _line(self, sub: Term, axis: Var) -> str:
        key = frozenset(sub.parts.items())
        home = self.block.at(self.level(sub))
        known = self.block.find(key)
        if known is not None and self.offsets[known] == sub.const:
            return known
        scalars_first = sorted(sub.parts.items(), key=lambda part: axis in Term({part[0]: 1}, 0).vars)
        text = self._sum([(c, [self._factor(a, axis) for a in mono]) for mono, c in scalars_first], sub.const)
        again = home.find(("line", text)) if len(sub.parts) > 1 else None
        if again is not None:  # the same places of the grid under another axis: a product's rows and those of what finishes it
            home.known[key] = again
            return again
        name = self.names.fresh(axis.name)
        home.add(f"{name} = {text}")
        home.known[key] = home.known["line", text] = name
        self.offsets[name] = sub.const
        return name

    def _factor(self, a: Atom, axis: Var) -> str:
        places = f"tl.arange(0, {axis.size})" + (".to(tl.int64)" if self.wide else "")
        return places if a is axis else self._atom(a, (axis,) if axis in Term({(a,): 1}, 0).vars else ())

    def buffer(self, buffer: Buffer) -> str:
        """The pointer argument of a buffer."""
        return self.pointers[buffer]

    # -- addresses -----------------------------------------------------------------------------------------------
    def address(self, buffer: Buffer, indices: Sequence[Slot], axes: Axes) -> str:
        """The pointers to elements, a tile over ``axes`` (those of the indices, or more)."""
        tiles: list[str] = []
        scalars: list[Term] = []
        level, pure = 0, True
        for index, stride in zip(indices, buffer.strides):
            if isinstance(index, Value):
                tiles.append(self._times(self.value(index, axes).typed, stride))
                pure = False
                continue
            lines, rest = self.pieces(index)
            tiles += [self._times(self.expand(self.piece(sub), self.axes_of(sub), axes), stride) for sub in lines]
            level = max([level, *(self.level(sub) for sub in lines)])
            scalars += [Term({m: c}, 0) * stride for m, c in rest.parts.items()] + [stride * rest.const]
        near = sum((s for s in scalars if self.level(s) <= level), as_term(0))
        far = sum((s for s in scalars if self.level(s) > level), as_term(0))
        base = " + ".join([self.buffer(buffer), *([self.scalar(near)] if near != 0 else []), *(t for t in tiles if t)])
        have = {a for i in indices for a in (i.axes if isinstance(i, Value) else self.axes_of(i))}
        if set(axes) - have:
            base += f" + tl.zeros({self.shape(axes)}, tl.int32)"
        if pure and tiles and (level < self.block.level or len(base) > _LONG):
            base = self._named(base, f"{buffer.name}_at", level)
        return base if far == 0 else f"{base} + {self.scalar(far)}"

    def _times(self, text: str, stride: Term) -> str:
        if stride == 0:
            return ""
        return text if stride == 1 else f"{factor(text)} * {atom(self.scalar(stride))}"

    def _named(self, text: str, hint: str, level: int) -> str:
        known = self.block.find(text)
        if known is None:
            home = self.block.at(level)
            known = home.known[text] = self.names.fresh(hint)
            home.add(f"{known} = {text}")
        return known

    # -- masks ---------------------------------------------------------------------------------------------------
    def mask(self, terms: Sequence[Term], conds: Sequence[Value], axes: Axes) -> str:
        """The conjunction of ``terms >= 0`` and bool tiles, broadcastable to ``axes``; empty when there is none."""
        grouped: dict[Axes, list[str]] = {}
        for t in dict.fromkeys(terms):
            grouped.setdefault(self.axes_of(t), []).append(self.compare(t))
        for c in conds:
            grouped.setdefault(self.sorted(c.axes), []).append(self.values[c].typed)
        return join("&", [self.expand(join("&", texts), own, axes) for own, texts in grouped.items()]) if grouped else ""

    def compare(self, t: Term) -> str:
        """``t >= 0`` as a comparison, at the rank of its own axes."""
        axes = self.axes_of(t)
        up = Term({m: c for m, c in t.parts.items() if c > 0}, 0)
        down = Term({m: -c for m, c in t.parts.items() if c < 0}, 0)
        if not axes or (self.axes_of(up) and self.axes_of(down)):
            if not up.parts:
                return f"{self.vector(down, axes)} <= {t.const}"
            if not down.parts:
                return f"{self.vector(up, axes)} >= {-t.const}"
            if t.const < 0:
                return f"{self.vector(down, axes)} < {self.vector(up + (t.const + 1), axes)}"
            return f"{self.vector(up + t.const, axes)} >= {self.vector(down, axes)}"
        side, sign = (down, -1) if self.axes_of(down) else (up, 1)
        lines, _ = self.pieces(side)
        left, offset, parts = self._left(lines, axes)
        rest = (t - parts * sign) * -sign  # left >= rest, or left <= rest
        if sign < 0:
            return f"{left} < {self.scalar(rest + offset + 1)}"
        return f"{left} >= {self.scalar(rest + offset)}"

    def _left(self, lines: list[Term], axes: Axes) -> tuple[str, int, Term]:
        """The tile side of a comparison: its text, the constant in the text, and what it stands for without the constant."""
        if len(lines) == 1 and len(axes) == 1:
            name, offset = self.line(lines[0])
            return name, offset, lines[0] - lines[0].const
        total = sum(lines, as_term(0))
        return atom(" + ".join(self.expand(self.piece(sub), self.axes_of(sub), axes) for sub in lines)), total.const, total - total.const
