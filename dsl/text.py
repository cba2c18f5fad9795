"""Expressions and programs as readable mathematics, and back.

A program prints as

    kernel scale(M, N)
      x: f32[M, N]
      top[i < M] = max[k < N](x[i, k])
      y[i < M, j < N] =
        let t0 = exp(x[i, j] - top[i])
        in t0 / (1.0 + t0)
      return y

``let`` names a value that is used several times, so that the text is linear in the graph. A literal takes the dtype of the
operand beside it, and carries a suffix where that is not its own (``2.0_f16``, ``5_i64``, ``3_index``). ``parse`` is in
``dsl/parse.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from dsl.algebra import walk
from dsl.carrier import CARRIERS
from dsl.dim import Div, MinMax, Mod, Term, Var
from dsl.dim import show as show_term
from dsl.dtype import ALL, bool_, f32, i64
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Param, Read, Reduce, Scan, Tensor, Where
from dsl.opset import OPS
from dsl.parse import parse
from dsl.precedence import ATOM, COMPARISONS, FOLDED, LOOSEST, POWER, PREFIX, UNARY, precedence
from dsl.program import Program

RESERVED = frozenset({"nan", "inf", "true", "false", "let", "in", "return", "kernel", "where", "to", "before", "after", "value", "index",
                      "from",
                      *ALL, *OPS, *CARRIERS})
LONGEST = 160
SHORTENED = 2000

Names = dict[object, str]


def show(program: Program) -> str:
    """The whole program as text that :func:`parse` reads back to an equal program."""
    return _program(program, Names(), lambda t, names: show_term(t, lambda v: names[v]), positional=False)


def canonical(program: Program) -> str:
    """The text of a program with tensors, sizes and axes named by position: equal for programs that differ in names only."""
    return _program(program, _positional(program), _sorted_term, positional=True)


def show_expr(e: Expr) -> str:
    """One expression as text: ``sum[k](x[i, k] * w[j, k]) + b[j]``. Parts that would make it very long are left out."""
    return _Printer(Names(), lambda t, names: show_term(t), extents=False).whole(e)


def show_compute(c: Compute) -> str:
    """A definition: ``y[i, j] = ...``."""
    return f"{c.name}[{', '.join(a.name for a in c.axes)}] = {show_expr(c.body)}"


# -- programs ----------------------------------------------------------------------------------------------------------
TermText = Callable[[Term, Names], str]


def _program(program: Program, names: Names, term: TermText, positional: bool) -> str:
    computes = program.computes
    free = list(program.dims) + [v for c in computes for v in _dims_of(c)]
    taken = set(RESERVED)
    for v in free:
        _name(names, v, v.name, taken)
    for t in (*program.inputs, *computes):
        _name(names, t, t.name, taken)
    sizes = ", ".join(dict.fromkeys(names[v] for v in free))
    lines = [f"kernel {'k' if positional else _word(program.name)}({sizes})"]
    lines += [f"  {names[t]}: {t.dtype}[{', '.join(term(s, names) for s in t.shape)}]" for t in program.inputs]
    lines += [_compute(c, {**names, **(_local(c) if positional else {})}, set(taken), term) for c in computes]
    outputs = ", ".join(names[o] for o in program.outputs)
    return "\n".join([*lines, f"  return {outputs}{',' if not program.single and len(program.outputs) == 1 else ''}", ""])


def _compute(c: Compute, names: Names, taken: set[str], term: TermText) -> str:
    for v in (*c.axes, *_bound(c)):
        _name(names, v, v.name, taken)
    printer = _Printer(names, term, taken=taken)
    body = printer.whole(c.body)
    head = f"  {names[c]}[{', '.join(printer.binder(a) for a in c.axes)}] ="
    if not printer.lets:
        return f"{head} {body}"
    return "\n".join([head, *(f"    let {n} = {text}" for n, text in printer.lets), f"    in {body}"])


def _bound(c: Compute) -> list[Var]:
    return [a for e in walk(c.body) for a in (e.axes if isinstance(e, Reduce) else (e.axis,) if isinstance(e, Scan) else ())]


def _dims_of(c: Compute) -> Iterable[Var]:
    """Sizes in the order in which the definition mentions them."""
    terms: list[Term | None] = [a.extent for a in (*c.axes, *_bound(c))]
    for e in walk(c.body):
        terms += [e.term] if isinstance(e, Index) else e.data[1] if isinstance(e, Read) else [e.at] if isinstance(e, Scan) else []
    return (v for t in terms if t is not None for v in sorted(t.vars, key=lambda v: v.uid) if v.kind == "dim")


def _positional(program: Program) -> Names:
    names: Names = {}
    for n, t in enumerate(program.inputs):
        names[t] = f"x{n}"
    for n, c in enumerate(program.computes):
        names[c] = f"c{n}"
    sizes = list(program.dims) + [v for c in program.computes for v in _dims_of(c)]
    names.update((v, f"d{n}") for n, v in enumerate(dict.fromkeys(sizes)))
    return names


def _local(c: Compute) -> Names:
    """The names of a definition's axes by position."""
    return {a: f"b{k}" for k, a in enumerate(dict.fromkeys(_bound(c)))} | {a: f"a{k}" for k, a in enumerate(c.axes)}


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name) or "_"


def _name(names: Names, thing: object, name: str, taken: set[str]) -> None:
    """Give a thing its own name, with a number when another has it."""
    if thing in names:
        taken.add(names[thing])
        return
    base = _word(name) if not name[:1].isdigit() else f"_{_word(name)}"
    unique, n = base, 1
    while unique in taken:
        unique, n = f"{base}_{n}", n + 1
    names[thing] = unique
    taken.add(unique)


# -- terms -------------------------------------------------------------------------------------------------------------
def _sorted_term(t: Term, names: Names) -> str:
    """A term with parts and factors in the order of their text, so that it does not depend on the original names."""
    parts = sorted(("*".join(sorted(_factor(a, names) for a in mono)), c) for mono, c in t.parts.items())
    text = " + ".join(f"{c}*{p}" if c != 1 else p for p, c in parts)
    return f"{text} + {t.const}" if text and t.const else text or str(t.const)


def _factor(atom: Var | Div | MinMax, names: Names) -> str:
    if isinstance(atom, Var):
        return names[atom]
    if isinstance(atom, MinMax):
        return f"{atom.which}({', '.join(sorted((_sorted_term(atom.a, names), _sorted_term(atom.b, names))))})"
    return f"(({_sorted_term(atom.num, names)}) {Mod.symbol if isinstance(atom, Mod) else Div.symbol} ({_sorted_term(atom.den, names)}))"


def _has_choice(t: Term) -> bool:
    atoms = [a for mono in t.parts for a in mono]
    return any(isinstance(a, MinMax) or isinstance(a, Div) and (_has_choice(a.num) or _has_choice(a.den)) for a in atoms)


def _term_precedence(t: Term) -> int:
    if t.is_const:
        return ATOM if t.const >= 0 else UNARY
    if len(t.parts) > 1 or t.const:
        return precedence("add")
    (mono, c), = t.parts.items()
    if c < 0:
        return precedence("add")
    return ATOM if c == 1 and len(mono) == 1 and isinstance(mono[0], Var) else precedence("mul")


# -- expressions ---------------------------------------------------------------------------------------------------------
class _Printer:
    """Prints the expressions of one definition; ``lets`` collects the values that were given a name, operands first."""

    def __init__(self, names: Names, term: TermText, extents: bool = True, taken: set[str] | None = None) -> None:
        self.names, self.term, self.extents, self.taken = names, term, extents, taken
        self.lets: list[tuple[str, str]] = []

    def whole(self, root: Expr) -> str:
        """The text of an expression, operands before users so that depth does not matter."""
        nodes = list(walk(root))
        uses: dict[Expr, int] = {}
        for n in nodes:
            for a in n.args:
                uses[a] = uses.get(a, 0) + 1
        memo: dict[Expr, tuple[str, int]] = {}
        for n in nodes:
            text, level = self._node(n, memo)
            if self.taken is None:
                text, level = (text, level) if len(text) < SHORTENED else ("...", ATOM)
            elif n is not root and n.args and (uses[n] > 1 or len(text) > LONGEST):
                text, level = self._let(text), ATOM
            memo[n] = text, level
        return memo[root][0]

    def _let(self, text: str) -> str:
        assert self.taken is not None
        n = len(self.lets)
        while f"t{n}" in self.taken:
            n += 1
        self.taken.add(f"t{n}")
        self.lets.append((f"t{n}", text))
        return f"t{n}"

    def _node(self, e: Expr, memo: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
        args = [memo[a][0] for a in e.args]
        if isinstance(e, (Const, Index)):
            return self._leaf(e, None)
        if isinstance(e, Op):
            return self._op(e, memo)
        if isinstance(e, Where):
            first, second = self._operands(e.args[1:], memo)
            return f"where({args[0]}, {first[0]}, {second[0]})", ATOM
        return self._applied(e, args), ATOM

    def _applied(self, e: Expr, args: list[str]) -> str:
        if isinstance(e, Read):
            return f"{self._tensor(e.tensor)}[{self._slots(e, args)}]"
        if isinstance(e, Cast):
            return f"{e.dtype}({args[0]})"
        if isinstance(e, Reduce):
            inside = ", ".join(map(self.binder, e.axes))
            return f"{e.carrier}[{inside}]({', '.join(args)})" + (f".{e.out}" if e.out else "")
        if isinstance(e, Scan):
            word = ("from", "after") if e.reverse else ("to", "before")
            inside = f"{self.binder(e.axis)} {word[e.exclusive]} {self.term(e.at, self.names)}"
            return f"{e.carrier}[{inside}]({', '.join(args)})" + (f".{e.out}" if e.out else "")
        return f"${e.data[0]}" if isinstance(e, Param) else f"{type(e).__name__}({', '.join(args)})"

    def _tensor(self, t: Tensor) -> str:
        return self.names.get(t, t.name)

    def binder(self, a: Var) -> str:
        """``k < K``, or ``k`` where extents are not shown."""
        name = self.names.get(a, a.name)
        return f"{name} < {self.term(a.extent, self.names)}" if self.extents and a.extent is not None else name

    def _slots(self, e: Read, args: Sequence[str]) -> str:
        rest = iter(zip(e.args, args))
        out = []
        for s in e.data[1]:
            if s is not None:
                out.append(self.term(s, self.names))
                continue
            value, text = next(rest)
            out.append(f"value({text})" if _looks_like_a_term(value) else text)
        return ", ".join(out)

    def _leaf(self, e: Const | Index, like: Expr | None) -> tuple[str, int]:
        """A literal or an index, beside an operand ``like`` that decides what a bare number means."""
        if isinstance(e, Const):
            return _literal(e, like)
        text = self.term(e.term, self.names)
        if e.term.is_const:
            bare = isinstance(like, Index)
            return text if bare else f"{text}_index", ATOM if e.term.const >= 0 else UNARY
        return (f"index({text})", ATOM) if _has_choice(e.term) else (text, _term_precedence(e.term))

    def _operands(self, args: Sequence[Expr], memo: dict[Expr, tuple[str, int]]) -> list[tuple[str, int]]:
        like = next((a for a in args if not _is_literal(a)), None)
        return [self._leaf(a, like) if isinstance(a, (Const, Index)) and _is_literal(a) else memo[a] for a in args]

    def _op(self, e: Op, memo: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
        parts = self._operands(e.args, memo)
        info = OPS.get(e.name)
        folds = e.name in FOLDED and all(isinstance(a, Index) for a in e.args)
        if info is None or not info.infix or folds:
            return f"{e.name}({', '.join(p[0] for p in parts)})", ATOM
        if info.arity == 1:
            text, level = parts[0]
            return f"{PREFIX[e.name]}{_inside(text, LOOSEST if _is_literal(e.args[0]) else level, UNARY)}", UNARY
        own = precedence(e.name)
        left, right = (own + 1, own) if own == POWER else (own, own + 1)
        if e.name in COMPARISONS:
            left = own + 1
        return f"{_inside(*parts[0], left)} {info.infix} {_inside(*parts[1], right)}", own


def _inside(text: str, level: int, least: int) -> str:
    return text if level >= least else f"({text})"


def _is_literal(e: Expr) -> bool:
    return isinstance(e, Const) or isinstance(e, Index) and e.term.is_const


def _looks_like_a_term(e: Expr) -> bool:
    return all(isinstance(n, (Index, Const, Op)) for n in walk(e))


def _literal(e: Const, like: Expr | None) -> tuple[str, int]:
    value = e.data[0]
    text = ("true" if value else "false") if e.dtype is bool_ else value if isinstance(value, str) else repr(value)
    default = f32 if e.dtype.is_float else bool_ if e.dtype is bool_ else i64
    same = e.dtype == default if like is None else e.dtype == like.dtype and not isinstance(like, Index)
    return text if same else f"{text}_{e.dtype}", UNARY if text.startswith("-") else ATOM


__all__ = ["canonical", "parse", "show", "show_compute", "show_expr"]
