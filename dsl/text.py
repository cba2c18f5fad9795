"""Expressions and programs as readable mathematics; :mod:`dsl.parse` reads it back.

A program prints as

    M, N = dims("M N")

    def softplus(x: f32[M, N]):
        top[i < M] = max[k < N](x[i, k])
        t0 = exp(x[i, j] - top[i])
        y[i < M, j < N] = t0 / (1.0 + t0)
        return y

which is a subset of Python's syntax. ``t0 = ...`` names a value that the definition after it uses more than once, so that the text is
linear in the graph. A bare number takes the dtype that it has beside its neighbour in a definition, ``const(2.0, f16)`` one of its own.
An index with a minimum in it is written ``index(min(i, 3))``, a data-dependent one that looks like an index ``value(i % 3)``. A prefix
reduction says how far it goes: ``scan.sum[k < N](x[k], upto=i)`` (or ``before=``, ``since=``, ``after=``). ``argmax[k < N](x[k], k)[1]``
is the second result of a reduction. A node that the language would fold when it is written is marked: ``exact.add(i, j)``.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Sequence

from dsl.algebra import bound_axes, walk
from dsl.dim import Div, MinMax, Term, Var
from dsl.dim import show as show_term
from dsl.dtype import bool_
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Param, Read, Reduce, Scan, Tensor, Where, as_expr, cast, op, where
from dsl.opset import OPS
from dsl.program import Program

#: Names that stand for something by themselves, so nothing else is called so. A function's name is told by its call.
RESERVED = frozenset({"nan", "inf", *keyword.kwlist})
#: (exclusive, reverse) -> how a scan says up to where it goes.
SCAN_WORDS = {(False, False): "upto", (True, False): "before", (False, True): "since", (True, True): "after"}
_LONGEST = 120
_SHORTENED = 4000
_LOWEST, _COMPARE, _ADD, _MUL, _UNARY, _POWER, _ATOM = 0, 1, 6, 7, 8, 9, 10
_LEVELS = {"or": 2, "xor": 3, "and": 4, "shl": 5, "shr": 5, "add": _ADD, "sub": _ADD, "mul": _MUL, "div": _MUL, "floordiv": _MUL,
           "mod": _MUL, "pow": _POWER, **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _COMPARE)}
_TERM_OPS = frozenset({"add", "sub", "mul", "floordiv", "mod", "neg", "min", "max"})

Text = tuple[str, int]  # and how tightly it binds
Name = Callable[[Var | Tensor], str]


def show(program: Program) -> str:
    """The whole program as text that :func:`dsl.parse.parse` reads back to the same mathematics."""
    names: dict[Var | Tensor, str] = {}
    taken = set(RESERVED)
    computes = program.computes
    sizes = sorted({v for t in _terms(program) for v in t.vars if v.kind == "dim"}, key=lambda v: v.uid)
    things: list[Var | Tensor] = [*sizes, *program.inputs, *computes]
    for thing in things:
        _name(names, thing, taken)
    lines = [f'{", ".join(names[v] for v in sizes)} = dims("{" ".join(names[v] for v in sizes)}")', ""] if sizes else []
    inputs = ", ".join(f"{names[t]}: {t.dtype}" + (f"[{', '.join(show_term(s, names.__getitem__) for s in t.shape)}]" if t.shape else "")
                       for t in program.inputs)
    lines.append(f"def {_word(program.name)}({inputs}):")
    for c in computes:
        lines += [f"    {line}" for line in _definition(c, dict(names), set(taken))]
    outputs = ", ".join(names[t] for t in program.outputs)
    return "\n".join([*lines, f"    return {outputs}{',' if not program.single and len(program.outputs) == 1 else ''}", ""])


def show_expr(e: Expr) -> str:
    """One expression as text: ``sum[k](x[i, k] * w[j, k]) + b[j]``. Parts that would make it very long are left out."""
    return _Printer(lambda thing: thing.name, extents=False).text(e)


def show_compute(c: Compute) -> str:
    """A definition: ``y[i, j] = ...``."""
    return f"{c.name}[{', '.join(a.name for a in c.axes)}] = {show_expr(c.body)}"


# -- programs ------------------------------------------------------------------------------------------------------
def _terms(program: Program) -> Iterable[Term]:
    """Every term of a program."""
    for t in (*program.inputs, *program.computes):
        yield from t.shape
    for c in program.computes:
        for e in walk(c.body):
            if isinstance(e, Index):
                yield e.term
            elif isinstance(e, Read):
                yield from (s for s in e.data[1] if s is not None)
            elif isinstance(e, Scan):
                yield e.at
        yield from (a.extent for a in bound_axes(c.body) if a.extent is not None)


def _definition(c: Compute, names: dict[Var | Tensor, str], taken: set[str]) -> list[str]:
    for v in (*c.axes, *bound_axes(c.body)):
        _name(names, v, taken)
    printer = _Printer(names.__getitem__, extents=True, taken=taken)
    body = printer.text(c.body)
    axes = f"[{', '.join(printer.binder(a) for a in c.axes)}]" if c.axes else ""
    typed = f": {c.dtype}" if not c.axes or c.dtype != c.body.dtype else ""
    return [*printer.lets, f"{names[c]}{axes}{typed} = {body}"]


def _word(name: str) -> str:
    word = re.sub(r"\W", "_", name) or "_"
    return f"_{word}" if word[0].isdigit() else word


def _name(names: dict[Var | Tensor, str], thing: Var | Tensor, taken: set[str]) -> None:
    """Give a thing its own name, with a number when another has it."""
    if thing in names:
        return
    base = _word(thing.name)
    unique, n = base, 1
    while unique in taken:
        unique, n = f"{base}_{n}", n + 1
    names[thing] = unique
    taken.add(unique)


# -- expressions -----------------------------------------------------------------------------------------------------
class _Printer:
    """Prints one expression, operands before users, so that depth does not matter.

    With ``taken`` names, values that are used several times or are long become ``lets``; without, what is long is left out.
    """

    def __init__(self, name: Name, extents: bool, taken: set[str] | None = None) -> None:
        self.name, self.extents, self.taken = name, extents, taken
        self.lets: list[str] = []

    def text(self, root: Expr) -> str:
        nodes = list(walk(root))
        uses: dict[Expr, int] = {}
        for e in nodes:
            for a in e.args:
                uses[a] = uses.get(a, 0) + 1
        memo: dict[Expr, Text] = {}
        for e in nodes:
            made = self.node(e, memo)
            if self.taken is None:
                made = made if len(made[0]) < _SHORTENED else ("...", _ATOM)
            elif e is not root and e.args and (uses[e] > 1 or len(made[0]) > _LONGEST):
                made = self.let(made[0]), _ATOM
            memo[e] = made
        return memo[root][0]

    def let(self, text: str) -> str:
        assert self.taken is not None
        n = len(self.lets)
        while f"t{n}" in self.taken:
            n += 1
        self.taken.add(f"t{n}")
        self.lets.append(f"t{n} = {text}")
        return f"t{n}"

    def node(self, e: Expr, memo: dict[Expr, Text]) -> Text:
        if isinstance(e, (Const, Index)):
            return self.leaf(e, None)
        args = [memo[a][0] for a in e.args]
        if isinstance(e, Op):
            return self.operation(e, memo)
        if isinstance(e, Where):
            texts = [t for t, _ in (memo[e.args[0]], *self.operands(e.args[1:], memo))]
            return f"{'' if where(*e.args) is e else 'exact.'}where({', '.join(texts)})", _ATOM
        if isinstance(e, Cast):
            return f"{'' if cast(e.args[0], e.dtype) is e else 'exact.'}{e.dtype}({args[0]})", _ATOM
        if isinstance(e, Read):
            return self.read(e, args), _ATOM
        if isinstance(e, Reduce):
            return f"{e.carrier}[{', '.join(map(self.binder, e.axes))}]({', '.join(args)})" + (f"[{e.out}]" if e.out else ""), _ATOM
        if isinstance(e, Scan):
            at = f"{SCAN_WORDS[e.exclusive, e.reverse]}={self.term(e.at)}"
            return f"scan.{e.carrier}[{self.binder(e.axis)}]({', '.join([*args, at])})" + (f"[{e.out}]" if e.out else ""), _ATOM
        assert isinstance(e, Param)
        return f"${e.data[0]}", _ATOM

    def binder(self, a: Var) -> str:
        """``k < K``, or ``k`` where extents are not shown."""
        return f"{self.name(a)} < {self.term(a.extent)}" if self.extents and a.extent is not None else self.name(a)

    def term(self, t: Term) -> str:
        return show_term(t, self.name)

    def read(self, e: Read, args: Sequence[str]) -> str:
        if not e.data[1]:
            return self.name(e.tensor)
        rest = iter(zip(e.args, args))
        slots: list[str] = []
        for s in e.data[1]:
            if s is not None:
                slots.append(self.term(s))
                continue
            value, text = next(rest)
            slots.append(f"value({text})" if looks_like_a_term(value) else text)
        return f"{self.name(e.tensor)}[{', '.join(slots)}]"

    def leaf(self, e: Const | Index, like: Expr | None) -> Text:
        """A literal or an index, beside an operand ``like`` that decides what a bare number means."""
        if isinstance(e, Const):
            text = _number(e)
            bare = as_expr(e.value, like) is e
            return (text, _UNARY if text[0] == "-" else _ATOM) if bare else (f"const({text}, {e.dtype})", _ATOM)
        text = self.term(e.term)
        if _has_choice(e.term) or (e.term.is_const and not isinstance(like, Index)):
            return f"index({text})", _ATOM
        return text, _term_level(e.term)

    def operands(self, args: Sequence[Expr], memo: dict[Expr, Text]) -> list[Text]:
        """The texts of operands side by side: numbers bare where they would be read as what they are."""
        first = next((n for n, a in enumerate(args) if not _is_literal(a)), None)
        like = None if first is None else args[first]
        out = [self.leaf(a, like) if isinstance(a, (Const, Index)) and _is_literal(a) else memo[a] for a in args]
        if any(t.startswith(("const(", "index(")) for (t, _), a in zip(out, args) if _is_literal(a)):
            out = [self.typed(a) if isinstance(a, (Const, Index)) and _is_literal(a) else t for a, t in zip(args, out)]
        return out

    def typed(self, e: Const | Index) -> Text:
        return (f"const({_number(e)}, {e.dtype})", _ATOM) if isinstance(e, Const) else (f"index({self.term(e.term)})", _ATOM)

    def operation(self, e: Op, memo: dict[Expr, Text]) -> Text:
        parts = self.operands(e.args, memo)
        infix = OPS[e.name].infix
        if op(e.name, *e.args) is not e:
            return f"exact.{e.name}({', '.join(t for t, _ in parts)})", _ATOM
        if not infix or (len(parts) == 1 and _is_literal(e.args[0])):
            return f"{e.name}({', '.join(t for t, _ in parts)})", _ATOM
        if len(parts) == 1:
            return f"{infix}{_inside(*parts[0], _UNARY)}", _UNARY
        own = _LEVELS[e.name]
        left = own + 1 if own in (_COMPARE, _POWER) else own
        return f"{_inside(*parts[0], left)} {infix} {_inside(*parts[1], own + 1)}", own


def _inside(text: str, level: int, least: int) -> str:
    return text if level >= least else f"({text})"


def _number(e: Const) -> str:
    return repr(bool(e.value)) if e.dtype is bool_ else repr(e.value)


def _is_literal(e: Expr) -> bool:
    return isinstance(e, Const) or isinstance(e, Index) and e.term.is_const


def _has_choice(t: Term) -> bool:
    atoms = [a for mono in t.parts for a in mono]
    return any(isinstance(a, MinMax) or isinstance(a, Div) and (_has_choice(a.num) or _has_choice(a.den)) for a in atoms)


def _term_level(t: Term) -> int:
    if t.is_const:
        return _ATOM if t.const >= 0 else _UNARY
    if len(t.parts) > 1 or t.const:
        return _ADD
    (mono, c), = t.parts.items()
    if c < 0:
        return _ADD
    return _ATOM if c == 1 and len(mono) == 1 and isinstance(mono[0], Var) else _MUL


def looks_like_a_term(e: Expr) -> bool:
    """Whether the text of a data-dependent index would be read as an index term."""
    return all(isinstance(n, Index) or isinstance(n, Const) and n.dtype.is_int or isinstance(n, Op) and n.name in _TERM_OPS
               for n in walk(e))
