"""Reads the text of tile programs that :mod:`codegen.tile.text` writes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any

from codegen.tile import ir
from codegen.tile.ir import Block, Buffer, For, If, Phase, Seek, TileOp, TileProgram, Value
from codegen.tile.text import own_fields
from dsl import dtype
from dsl.carrier import CARRIERS, Carrier, merging, partial
from dsl.dim import Term, Var, as_term, tmax, tmin
from dsl.errors import TextError

_OPS: dict[str, type[TileOp]] = {c.__name__.lower(): c
                                 for c in vars(ir).values() if isinstance(c, type) and issubclass(c, TileOp) and c is not TileOp}
_BINARY: dict[type[ast.operator], Callable[[Term, Term], Term]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_SCOPES = ("input", "output", "workspace", "scratch")


def parse(text: str, carriers: Mapping[str, Carrier] | None = None) -> TileProgram:
    """The program of a text.

    Args:
        text: what :func:`codegen.tile.text.show` wrote, or the like written by hand.
        carriers: carriers by name beside the built-in ones.

    Raises:
        TextError: not a tile program; the message names the line.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as e:
        raise TextError("this is not the text of a tile program", f"line {e.lineno}: {e.msg}") from e
    return _Parser(text, {**CARRIERS, **(carriers or {})}).program(tree.body)


class _Parser:
    def __init__(self, text: str, carriers: Mapping[str, Carrier]) -> None:
        self.text, self.carriers = text.splitlines(), carriers
        self.things: dict[str, Var | Buffer | Value] = {}
        self.lanes: set[Var] = set()
        self.sizes: list[Var] = []

    def fail(self, node: ast.AST, why: str) -> TextError:
        line = getattr(node, "lineno", 1)
        return TextError(f"line {line} of a tile program cannot be read", f"{why}\n{self.text[line - 1].strip()}")

    # -- the program -----------------------------------------------------------------------------------------------
    def program(self, body: list[ast.stmt]) -> TileProgram:
        name, buffers, checks, phases = "", [], [], []
        for s in body:
            match s:
                case ast.Expr(ast.Call(func=ast.Name("program"), args=[ast.Constant(str(given))])):
                    name = given
                case ast.Expr(ast.Call(func=ast.Name("check_text"), args=[ast.Constant(str(given))])):
                    checks.append(given)
                case ast.Assign([ast.Name(new)], ast.Call(func=ast.Name(kind), args=args)) if kind in ("size", "axis", "lane"):
                    self.declare(s, new, kind, args)
                case ast.Assign([ast.Name(new)], ast.Call(func=ast.Name(scope), args=args)) if scope in _SCOPES:
                    buffers.append(self.buffer(s, new, scope, args))
                case ast.With([ast.withitem(ast.Call(func=ast.Name("phase")) as call)], inner):
                    phases.append(self.phase(call, inner))
                case _:
                    raise self.fail(s, "neither a declaration nor a phase")
        return TileProgram(name, tuple(buffers), tuple(self.sizes), tuple(phases), frozenset(self.lanes), tuple(checks))

    def declare(self, at: ast.AST, name: str, kind: str, args: list[ast.expr]) -> None:
        v = Var(name, self.term(args[0]) if args else None, "dim" if kind == "size" else "axis")
        if kind == "size":
            self.sizes.append(v)
        if kind == "lane":
            self.lanes.add(v)
        self.define(at, name, v)

    def buffer(self, at: ast.AST, name: str, scope: str, args: list[ast.expr]) -> Buffer:
        if len(args) != 3:
            raise self.fail(at, "a buffer has a dtype, a shape and strides")
        b = Buffer(name, self.dtype(args[0]), self.value(args[1], "tuple[Term, ...]"), self.value(args[2], "tuple[Term, ...]"), scope)
        self.define(at, name, b)
        return b

    def phase(self, call: ast.Call, inner: list[ast.stmt]) -> Phase:
        named: dict[str, Any] = {k.arg or "": k.value for k in call.keywords}
        grid = tuple((self.var(p.elts[0]), self.term(p.elts[1]))
                     for p in self.items(named.pop("grid", ast.List([]))) if isinstance(p, ast.Tuple))
        scratch, ops = [], []
        for s in inner:
            match s:
                case ast.Assign([ast.Name(new)], ast.Call(func=ast.Name("scratch"), args=args)):
                    scratch.append(self.buffer(s, new, "scratch", args))
                case _:
                    ops.append(s)
        return Phase(ast.literal_eval(call.args[0]), grid, self.block(ops), tuple(scratch),
                     **{k: ast.literal_eval(v) for k, v in named.items()})

    def block(self, body: list[ast.stmt], params: tuple[Value, ...] = ()) -> Block:
        block = Block(params)
        for s in body:
            match s:
                case ast.Pass():
                    pass
                case ast.Expr(ast.Yield(value)) if value is not None:
                    block.yields = tuple(self.known(e, Value) for e in (value.elts if isinstance(value, ast.Tuple) else [value]))
                case _:
                    block.ops.append(self.op(s))
        return block

    # -- operations ------------------------------------------------------------------------------------------------
    def op(self, s: ast.stmt) -> TileOp:
        match s:
            case ast.For(ast.Name(var), ast.Call(func=ast.Name("loop")) as call, inner):
                return self.loop(s, var, call, inner)
            case ast.For(ast.Name(var), ast.Call(func=ast.Name("seek"), args=[value, lo, hi]), inner):
                return Seek(self.known(ast.Name(var), Var), self.known(value, Value), self.term(lo), self.term(hi), self.block(inner))
            case ast.If(ast.Call(func=ast.Name("guard"), args=[terms], keywords=named), inner):
                conds = {k.arg or "": self.value(k.value, "tuple[Value, ...]") for k in named}
                return If(self.value(terms, "tuple[Term, ...]"), self.block(inner), **conds)
            case ast.AnnAssign(ast.Name(name), kind, ast.Call() as call):
                return self.finish(s, self.call(call, {}), [name], [kind])
            case ast.Assign([ast.Tuple(targets)], ast.Call() as call):
                kinds = next((self.items(k.value) for k in call.keywords if k.arg == "types"), [])
                return self.finish(s, self.call(call, {"types"}), [t.id for t in targets if isinstance(t, ast.Name)], kinds)
            case ast.Expr(ast.Call() as call):
                return self.finish(s, self.call(call, {}), [], [])
        raise self.fail(s, "not an operation")

    def loop(self, s: ast.stmt, var: str, call: ast.Call, inner: list[ast.stmt]) -> For:
        named = {k.arg or "": k.value for k in call.keywords}
        carried = [self.items(c) for c in self.items(named.pop("carry", ast.List([])))]
        results = [e.id for e in self.items(named.pop("results", ast.List([]))) if isinstance(e, ast.Name)]
        inits = tuple(self.known(c[2], Value) for c in carried)
        params = tuple(self.fresh(s, c[0].id, c[1]) for c in carried if isinstance(c[0], ast.Name))
        v = self.things.get(var)
        if not isinstance(v, Var):
            raise self.fail(s, f"{var} is not a declared axis")
        op = For(v, self.term(call.args[0]), self.term(call.args[1]), inits, self.block(inner, params),
                 **{k: ast.literal_eval(x) for k, x in named.items()})
        op.results = tuple(self.fresh(s, name, c[1], op) for name, c in zip(results, carried))
        return op

    def call(self, call: ast.Call, leave: set[str] | dict[str, str]) -> TileOp:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name not in _OPS:
            raise self.fail(call, f"there is no operation {name!r}")
        named = {k.arg: k.value for k in call.keywords if k.arg not in leave}
        given, positional = {}, list(call.args)
        for f in own_fields(_OPS[name]):
            if f.name in named:
                given[f.name] = self.value(named.pop(f.name), str(f.type))
            elif (f.default is MISSING or f.type == "bool | int | float") and positional:
                given[f.name] = self.value(positional.pop(0), str(f.type))
            elif f.default is MISSING:
                raise self.fail(call, f"{name} lacks {f.name}")
        if positional or named:
            raise self.fail(call, f"{name} takes no such arguments")
        return _OPS[name](**given)

    def finish(self, s: ast.stmt, op: TileOp, names: list[str], kinds: list[ast.expr]) -> TileOp:
        if len(names) != len(kinds):
            raise self.fail(s, "every result needs a type")
        op.results = tuple(self.fresh(s, n, k, op) for n, k in zip(names, kinds))
        return op

    # -- names and values ------------------------------------------------------------------------------------------
    def define(self, at: ast.AST, name: str, thing: Var | Buffer | Value) -> None:
        if name in self.things:
            raise self.fail(at, f"{name} is defined twice")
        self.things[name] = thing

    def fresh(self, at: ast.AST, name: str, kind: ast.expr, op: TileOp | None = None) -> Value:
        axes: list[ast.expr] = []
        if isinstance(kind, ast.Subscript):
            axes = list(kind.slice.elts) if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        v = Value(self.dtype(kind.value if isinstance(kind, ast.Subscript) else kind), tuple(map(self.var, axes)), name)
        v.op = op
        self.define(at, name, v)
        return v

    def dtype(self, node: ast.expr) -> dtype.Dtype:
        if not isinstance(node, ast.Name) or node.id not in dtype.ALL:
            raise self.fail(node, f"{ast.unparse(node)} is not a dtype")
        return dtype.ALL[node.id]

    def known(self, node: ast.AST, kind: type[Any]) -> Any:
        thing = self.things.get(node.id) if isinstance(node, ast.Name) else None
        if not isinstance(thing, kind):
            raise self.fail(node, f"{ast.unparse(node)} is not the name of a {kind.__name__.lower()}")
        return thing

    def var(self, node: ast.AST) -> Var:
        found: Var = self.known(node, Var)
        return found

    def items(self, node: ast.AST) -> list[ast.expr]:
        if not isinstance(node, (ast.List, ast.Tuple)):
            raise self.fail(node, f"{ast.unparse(node)} is not a list")
        return node.elts

    def value(self, node: ast.expr, kind: str) -> Any:
        """What a field of the declared type ``kind`` holds."""
        if kind.startswith("tuple[tuple[Var"):
            return tuple(tuple(map(self.var, self.items(p))) for p in self.items(node))
        if kind.startswith("tuple["):
            return tuple(self.value(n, kind[6:-len(", ...]")]) for n in self.items(node))
        if kind == "Carrier":
            return self.carrier(node)
        if kind == "Slot":
            kind = "Value" if isinstance(node, ast.Name) and isinstance(self.things.get(node.id), Value) else "Term"
        if kind == "Term":
            return self.term(node)
        if kind in ("Value", "Var", "Buffer"):
            return self.known(node, {"Value": Value, "Var": Var, "Buffer": Buffer}[kind])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "float":
            return float(ast.literal_eval(node.args[0]))
        return ast.literal_eval(node)

    def carrier(self, node: ast.expr) -> Carrier:
        name = str(ast.literal_eval(node))
        for ending, make in ((".partial", partial), (".merge", merging)):
            if name not in self.carriers and name.endswith(ending) and name[:-len(ending)] in self.carriers:
                return make(self.carriers[name[:-len(ending)]])
        if name not in self.carriers:
            raise self.fail(node, f"there is no carrier {name!r}")
        return self.carriers[name]

    def term(self, node: ast.AST) -> Term:
        match node:
            case ast.Constant(int(n)):
                return as_term(n)
            case ast.Name():
                return as_term(self.var(node))
            case ast.UnaryOp(ast.USub(), x):
                return as_term(0) - self.term(x)
            case ast.BinOp(a, op, b) if type(op) in _BINARY:
                return _BINARY[type(op)](self.term(a), self.term(b))
            case ast.Call(ast.Name("min" | "max" as which), [a, b]):
                return (tmin if which == "min" else tmax)(self.term(a), self.term(b))
        raise self.fail(node, f"{ast.unparse(node)} is not an index")
