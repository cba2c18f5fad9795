"""Reads the text of programs that :mod:`dsl.text` writes, or the like written by hand.

The text is a subset of Python's syntax; numbers, operators and functions mean what they mean in a definition. An error names the line and
the column, and draws a caret under it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from dsl.carrier import CARRIERS, Carrier, merging, partial
from dsl.dim import Term, Var, as_term, tmax, tmin
from dsl.dtype import ALL, Dtype, TensorType
from dsl.errors import ArgumentError, DlcError, TextError
from dsl.expr import Cast, Compute, Expr, Input, Op, Read, Tensor, Where, as_expr, cast, const, index, op, read, reduce, scan, where
from dsl.loc import here
from dsl.opset import OPS, result_dtype
from dsl.program import Program
from dsl.text import SCAN_WORDS

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv", ast.Mod: "mod", ast.Pow: "pow",
    ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.LShift: "shl", ast.RShift: "shr"}
_COMPARE: dict[type[ast.cmpop], str] = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
_UNARY: dict[type[ast.unaryop], str] = {ast.USub: "neg", ast.Invert: "not"}
_TERM: dict[type[ast.operator], Callable[[Term, Term], Term]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b}
_SCANS = {word: flags for flags, word in SCAN_WORDS.items()}
_NUMBERS = {"inf": float("inf"), "nan": float("nan")}

Thing = Var | Tensor | Expr
Value = Expr | bool | int | float


def parse(text: str, carriers: Mapping[str, Carrier] | None = None) -> Program:
    """The program of a text.

    Args:
        text: what :func:`dsl.text.show` wrote, or the like.
        carriers: carriers by name beside the built-in ones.

    Raises:
        TextError: not a program; the message names line and column.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"a {type(text).__name__} for the text of a program", remedy='what kernel.source("expr") gives')
    return _Parser(text, carriers).program(_tree(text).body)


def parse_expr(text: str, names: Mapping[str, Thing], carriers: Mapping[str, Carrier] | None = None) -> Expr:
    """One expression over the variables, tensors and values given by name; reductions bind axes by name, or ``k < K``.

    Raises:
        TextError: not an expression; the message names line and column.
    """
    parser = _Parser(text, carriers)
    parser.names.update(names)
    tree = _tree(text, "eval")
    parser.binders([tree.body])
    return as_expr(parser.value(tree.body))


def _tree(text: str, mode: str = "exec") -> Any:
    try:
        return ast.parse(text, mode=mode)
    except (SyntaxError, MemoryError, RecursionError) as e:
        line, column = getattr(e, "lineno", None) or 1, getattr(e, "offset", None) or 1
        _refuse(text, line, column, getattr(e, "msg", "") or "nested too deeply to be read")


def _refuse(text: str, line: int, column: int, why: str) -> NoReturn:
    lines = text.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1]
    raise TextError(f"line {line}, column {column}: {why}", f"{shown}\n{' ' * (column - 1)}^", loc=here())


class _Parser:
    def __init__(self, text: str, carriers: Mapping[str, Carrier] | None) -> None:
        self.text, self.carriers = text, {**CARRIERS, **(carriers or {})}
        self.names: dict[str, Thing] = {}

    def fail(self, node: ast.AST, why: str) -> NoReturn:
        _refuse(self.text, getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1, why)

    def guarded(self, node: ast.AST, make: Callable[..., Any], *args: Any) -> Any:
        """What ``make`` gives; an error of the language is put at the node's place."""
        try:
            return make(*args)
        except (DlcError, ZeroDivisionError) as e:
            self.fail(node, getattr(e, "title", str(e)))

    # -- programs --------------------------------------------------------------------------------------------------
    def program(self, body: Sequence[ast.stmt]) -> Program:
        for s in body[:-1]:
            match s:
                case ast.Assign([ast.Name() | ast.Tuple() as target], ast.Call(func=ast.Name("dims"), args=[ast.Constant(str(words))])):
                    self.sizes(s, target, words)
                case _:
                    self.fail(s, "sizes are declared before the definition, and nothing else")
        if not body or not isinstance(body[-1], ast.FunctionDef):
            self.fail(body[-1] if body else ast.Module([], []), "a program is `def name(x: f32[M, N], ...):` with its definitions")
        definition = body[-1]
        inputs = tuple(self.input(a) for a in definition.args.args)
        pending: list[ast.Assign] = []
        for s in definition.body:
            match s:
                case ast.Return(value) if value is not None and s is definition.body[-1] and not pending:
                    outputs = [self.output(e) for e in (value.elts if isinstance(value, ast.Tuple) else [value])]
                    return Program(definition.name, inputs, tuple(outputs), not isinstance(value, ast.Tuple), here())
                case ast.Assign([ast.Name()], _):
                    pending.append(s)
                case ast.Assign([ast.Subscript() as place], given):
                    self.define(place, given, None, pending)
                    pending = []
                case ast.AnnAssign(ast.Name() | ast.Subscript() as named, kind, typed) if typed is not None:
                    self.define(named, typed, self.dtype(kind), pending)
                    pending = []
                case _:
                    self.fail(s, "neither `y[i < M] = ...`, a value named for the next definition, nor the last `return`")
        self.fail(definition, "the program returns nothing")

    def sizes(self, at: ast.stmt, target: ast.Name | ast.Tuple, words: str) -> None:
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        names = [t.id for t in targets if isinstance(t, ast.Name)]
        if names != words.replace(",", " ").split():
            self.fail(at, f"the sizes {words!r} are called {', '.join(names)}")
        for t, name in zip(targets, names):
            self.new(t, name, Var(name, kind="dim"))

    def new(self, at: ast.AST, name: str, thing: Any) -> Any:
        if name in self.names:
            self.fail(at, f"`{name}` is defined twice")
        self.names[name] = thing
        return thing

    def input(self, a: ast.arg) -> Input:
        if a.annotation is None:
            self.fail(a, f"`{a.arg}` has no type: {a.arg}: f32[M, N]")
        kind = self.kind(a.annotation)
        made: Input = self.new(a, a.arg, Input(a.arg, kind.shape, kind.dtype, here()))
        return made

    def kind(self, node: ast.expr) -> TensorType:
        if not isinstance(node, ast.Subscript):
            return TensorType(self.dtype(node), ())
        return TensorType(self.dtype(node.value), tuple(self.term(e) for e in _elements(node.slice)))

    def dtype(self, node: ast.expr) -> Dtype:
        if not isinstance(node, ast.Name) or node.id not in ALL:
            self.fail(node, f"`{ast.unparse(node)}` is not a dtype")
        return ALL[node.id]

    def output(self, node: ast.expr) -> Compute:
        thing = self.names.get(node.id) if isinstance(node, ast.Name) else None
        if not isinstance(thing, Compute):
            self.fail(node, f"`{ast.unparse(node)}` is not a definition")
        return thing

    def define(self, target: ast.Name | ast.Subscript, value: ast.expr, dtype: Dtype | None, lets: Sequence[ast.Assign]) -> None:
        name = target if isinstance(target, ast.Name) else target.value
        if not isinstance(name, ast.Name):
            self.fail(target, "a definition has a name")
        outside = dict(self.names)
        axes = [] if isinstance(target, ast.Name) else [self.axis(e) for e in _elements(target.slice)]
        self.binders([*(s.value for s in lets), value])
        for s in lets:
            (to,) = s.targets
            assert isinstance(to, ast.Name)
            self.new(to, to.id, as_expr(self.value(s.value)))
        body = as_expr(self.value(value))
        loose = sorted(v.name for v in body.free if v.kind == "axis" and v not in axes)
        if loose:
            self.fail(value, f"axis `{loose[0]}` is used where nothing binds it")
        self.names = outside
        self.new(name, name.id, Compute(name.id, tuple(axes), body, here(), dtype))

    # -- axes ------------------------------------------------------------------------------------------------------
    def axis(self, node: ast.expr) -> Var:
        """A new axis ``i < N``."""
        match node:
            case ast.Compare(ast.Name(name), [ast.Lt()], [extent]):
                made: Var = self.new(node, name, Var(name, self.term(extent)))
                return made
        self.fail(node, f"`{ast.unparse(node)}` is not an axis with its extent: i < N")

    def binders(self, bodies: Sequence[ast.expr]) -> None:
        """Make the axes that the reductions of a definition bind; those with one name are one axis."""
        found: dict[str, ast.Compare] = {}
        for body in bodies:
            for node in ast.walk(body):
                for b in _elements(node.func.slice) if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript) else ():
                    match b:
                        case ast.Compare(ast.Name(name), [ast.Lt()], [extent]):
                            known = found.setdefault(name, b)
                            if ast.dump(known.comparators[0]) != ast.dump(extent):
                                self.fail(b, f"`{name}` has another extent elsewhere in the definition")
        waiting = sorted(found.items(), key=lambda p: (p[1].lineno, p[1].col_offset))
        while waiting:
            ready = [(n, b) for n, b in waiting if not _names_in(b.comparators[0]) & {m for m, _ in waiting}]
            if not ready:
                self.fail(waiting[0][1], "the extents of these axes depend on each other")
            for _, b in ready:
                self.axis(b)
            waiting = [p for p in waiting if p not in ready]

    # -- terms -----------------------------------------------------------------------------------------------------
    def term(self, node: ast.AST) -> Term:
        match node:
            case ast.Constant(int(n)) if not isinstance(n, bool):
                return as_term(n)
            case ast.Name(name) if isinstance(self.names.get(name), Var):
                found = self.names[name]
                assert isinstance(found, Var)
                return as_term(found)
            case ast.UnaryOp(ast.USub(), x):
                return -self.term(x)
            case ast.BinOp(a, sign, b) if type(sign) in _TERM:
                made: Term = self.guarded(node, _TERM[type(sign)], self.term(a), self.term(b))
                return made
            case ast.Call(ast.Name("min" | "max" as which), [a, b]):
                return (tmin if which == "min" else tmax)(self.term(a), self.term(b))
        self.fail(node, f"`{ast.unparse(node)}` is not an index")

    def is_term(self, node: ast.AST) -> bool:
        match node:
            case ast.Constant(n):
                return isinstance(n, int) and not isinstance(n, bool)
            case ast.Name(name):
                return isinstance(self.names.get(name), Var)
            case ast.UnaryOp(ast.USub(), x):
                return self.is_term(x)
            case ast.BinOp(a, sign, b):
                return type(sign) in _TERM and self.is_term(a) and self.is_term(b)
            case ast.Call(ast.Name("min" | "max"), [a, b]):
                return self.is_term(a) and self.is_term(b)
        return False

    # -- values ----------------------------------------------------------------------------------------------------
    def value(self, node: ast.expr) -> Value:
        """An expression, or a Python number whose dtype its neighbour decides."""
        match node:
            case ast.Constant(v) if isinstance(v, (bool, int, float)):
                return v
            case ast.UnaryOp(ast.USub(), x) if isinstance(number := self.value(x), (int, float)) and not isinstance(number, bool):
                return -number
            case ast.UnaryOp(sign, x) if type(sign) in _UNARY:
                return self.apply(node, _UNARY[type(sign)], [x])
            case ast.BinOp(a, sign, b) if type(sign) in _BINARY:
                return self.apply(node, _BINARY[type(sign)], [a, b])
            case ast.Compare(a, [sign], [b]) if type(sign) in _COMPARE:
                return self.apply(node, _COMPARE[type(sign)], [a, b])
            case ast.Name():
                return self.named(node)
            case ast.Subscript(ast.Call() as inner, ast.Constant(int(out))):
                return self.call(inner, out)
            case ast.Subscript(ast.Name(name), slots) if isinstance(tensor := self.names.get(name), Tensor):
                return self.read(node, tensor, slots)
            case ast.Call():
                return self.call(node, 0)
        self.fail(node, f"`{ast.unparse(node)}` has no meaning here")

    def apply(self, node: ast.expr, name: str, args: Iterable[ast.expr]) -> Expr:
        made: Expr = self.guarded(node, op, name, *(self.value(a) for a in args))
        return made

    def named(self, node: ast.Name) -> Value:
        if node.id in _NUMBERS:
            return _NUMBERS[node.id]
        thing = self.names.get(node.id)
        if isinstance(thing, Var):
            return index(thing)
        if isinstance(thing, Tensor):
            made: Expr = self.guarded(node, read, thing, ())
            return made
        if thing is None:
            self.fail(node, f"nothing is called `{node.id}` here")
        return thing

    def read(self, node: ast.expr, tensor: Tensor, slots: ast.expr) -> Expr:
        terms: list[Term | None] = []
        args: list[Expr] = []
        for s in _elements(slots):
            match s:
                case ast.Call(ast.Name("value"), [inner]):
                    args.append(as_expr(self.value(inner)))
                    terms.append(None)
                case _ if self.is_term(s):
                    terms.append(self.term(s))
                case _:
                    args.append(as_expr(self.value(s)))
                    terms.append(None)
        plain = iter(args)
        checked: Read = self.guarded(node, read, tensor, tuple(next(plain) if t is None else t for t in terms))
        return Read(tuple(args), (tensor, tuple(terms)), tensor.dtype, checked.loc)

    def call(self, node: ast.Call, out: int) -> Expr:
        match node:
            case ast.Call(ast.Name("const"), [value, kind]):
                number = self.value(value)
                if isinstance(number, Expr):
                    self.fail(value, "a constant is a number")
                return const(number, self.dtype(kind))
            case ast.Call(ast.Name("index"), [inner]):
                return index(self.term(inner))
            case ast.Call(ast.Name("where"), [c, a, b]):
                made: Expr = self.guarded(node, where, self.value(c), self.value(a), self.value(b))
                return made
            case ast.Call(ast.Name(name), args) if name in OPS and len(args) == OPS[name].arity:
                return self.apply(node, name, args)
            case ast.Call(ast.Name(name), [inner]) if name in ALL:
                return cast(self.value(inner), ALL[name])
            case ast.Call(ast.Attribute(ast.Name("exact"), name), args):
                return self.exact(node, name, [as_expr(self.value(a)) for a in args])
            case ast.Call(ast.Subscript(function, binders), args):
                return self.reduction(node, function, binders, args, out)
        self.fail(node, f"`{ast.unparse(node.func)}` of {len(node.args)} operands has no meaning here")

    def exact(self, node: ast.expr, name: str, args: list[Expr]) -> Expr:
        """A node as such, though the language would fold it."""
        if name == "where" and len(args) == 3:
            return Where(tuple(args), (), args[1].dtype)
        if name in ALL and len(args) == 1:
            return Cast(tuple(args), (), ALL[name])
        if name in OPS and len(args) == OPS[name].arity:
            rule = result_dtype(name, [a.dtype for a in args])
            if not isinstance(rule, str):
                return Op(tuple(args), (name,), rule[1])
        self.fail(node, f"there is no node `{name}` of {len(args)} operands")

    def reduction(self, node: ast.Call, function: ast.expr, binders: ast.expr, args: list[ast.expr], out: int) -> Expr:
        axes = tuple(self.bound(b) for b in _elements(binders))
        name = re.sub(r"\s", "", ast.unparse(function))
        carrier = self.carrier(function, name.removeprefix("scan."))
        values = tuple(as_expr(self.value(a)) for a in args)
        if carrier.arity and len(values) != carrier.arity:
            self.fail(node, f"{carrier} takes {carrier.arity} operands, not {len(values)}")
        results = len(self.guarded(node, carrier.result, tuple(v.dtype for v in values)))
        if out >= results:
            self.fail(node, f"{carrier} has {results} results, and number {out} is asked for")
        if not name.startswith("scan."):
            return reduce(carrier, values, axes, out)
        match node.keywords:
            case [ast.keyword(word, at)] if word in _SCANS and len(axes) == 1:
                exclusive, reverse = _SCANS[word]
                return scan(carrier, values, axes[0], self.term(at), out=out, exclusive=exclusive, reverse=reverse)
        self.fail(node, f"a scan of one axis says how far it goes: {', '.join(f'{w}=' for w in _SCANS)}")

    def bound(self, node: ast.expr) -> Var:
        name = node.left if isinstance(node, ast.Compare) else node
        thing = self.names.get(name.id) if isinstance(name, ast.Name) else None
        if not isinstance(thing, Var) or thing.extent is None:
            self.fail(node, f"`{ast.unparse(node)}` is not an axis with its extent: k < K")
        return thing

    def carrier(self, node: ast.expr, name: str) -> Carrier:
        stem, _, ending = name.partition(".")
        if name in self.carriers:
            return self.carriers[name]
        if stem in self.carriers and ending in ("partial", "merge"):
            return (partial if ending == "partial" else merging)(self.carriers[stem])
        self.fail(node, f"there is no reduction `{name}`")


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}

