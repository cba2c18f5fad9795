"""Tile programs built by hand, each with its numpy meaning: what the verifier, the interpreter and the emitters are tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.tile.ir import (
    Block,
    Buffer,
    Builder,
    Check,
    Dot,
    For,
    If,
    Iota,
    Load,
    Phase,
    Predicate,
    Reduce,
    Rename,
    Scan,
    Store,
    TileProgram,
    Value,
    union_axes,
)
from dsl.carrier import ARGMAX, MAX, MOMENTS, SUM, Carrier
from dsl.dim import Term, Var, as_term, cdiv, tmin
from dsl.dtype import Dtype, bool_, f32, i32, i64
from dsl.expr import const as _const

Array = Any


@dataclass
class Case:
    """A program, random inputs, sizes and what the outputs must be."""

    program: TileProgram
    arrays: dict[str, Array]
    sizes: dict[Var, int]
    expected: dict[str, Array]
    tolerance: float = 1e-5


def size(name: str) -> Var:
    return Var(name, kind="dim")


def buffer(name: str, dtype: Dtype, shape: tuple[Any, ...], scope: str = "input", strides: tuple[Any, ...] | None = None) -> Buffer:
    dims = tuple(as_term(s) for s in shape)
    steps: list[Term] = []
    for d in reversed(range(len(dims))):
        steps.insert(0, as_term(1) if d == len(dims) - 1 else steps[0] * dims[d + 1])
    return Buffer(name, dtype, dims, tuple(as_term(s) for s in strides) if strides is not None else tuple(steps), scope)


class TileAlgebra:
    """Carrier formulas as operations appended to a block."""

    def __init__(self, b: Builder) -> None:
        self.b = b

    def op(self, name: str, *args: Value) -> Value:
        from dsl.opset import result_dtype
        rule = result_dtype(name, [a.dtype for a in args])
        assert not isinstance(rule, str), rule
        return self.b.map(name, tuple(self.cast(a, rule[0]) for a in args), rule[1])

    def const(self, value: float, dtype: Dtype) -> Value:
        return self.b.const(_const(value, dtype).value, dtype)

    def where(self, c: Value, x: Value, y: Value) -> Value:
        return self.b.map("where", (c, x, y), x.dtype)

    def cast(self, x: Value, dtype: Dtype) -> Value:
        return x if x.dtype == dtype else self.b.map("cast", (x,), dtype)

    def dtype(self, x: Value) -> Dtype:
        return x.dtype


class Writer(Builder):
    """A Builder with the operations tests need by short names."""

    def __init__(self, scope: set[Var]) -> None:
        super().__init__(Block(), set())
        self.scope = scope

    def axes(self, *slots: Any) -> tuple[Var, ...]:
        found: set[Var] = set()
        for s in slots:
            found |= set(s.axes) if isinstance(s, Value) else {v for v in s.vars if v not in self.scope}
        return tuple(sorted(found, key=lambda v: v.uid))

    def load(self, buf: Buffer, indices: tuple[Any, ...], mask: tuple[Term, ...] = (), conds: tuple[Value, ...] = (),
             hint: str = "") -> Value:
        slots = tuple(i if isinstance(i, Value) else as_term(i) for i in indices)
        return self.add(Load(buf, slots, mask, conds), Value(buf.dtype, self.axes(*slots, *mask, *conds), hint or buf.name))

    def store(self, buf: Buffer, indices: tuple[Any, ...], value: Value, mask: tuple[Term, ...] = ()) -> None:
        self.add_none(Store(buf, tuple(i if isinstance(i, Value) else as_term(i) for i in indices), value, mask))

    def add_none(self, op: Any) -> None:
        op.loc = self.loc
        self.block.ops.append(op)

    def reduce(self, carrier: Carrier, states: tuple[Value, ...], axes: tuple[Var, ...]) -> tuple[Value, ...]:
        kept = tuple(a for a in union_axes(*states) if a not in axes)
        out = self.add(Reduce(carrier, states, axes), *(Value(s.dtype, kept) for s in states))
        return out if isinstance(out, tuple) else (out,)

    def dot(self, a: Value, b: Value, acc: Value, axes: tuple[Var, ...], precision: str = "ieee") -> Value:
        kept = tuple(x for x in union_axes(a, b) if x not in axes)
        return self.add(Dot(a, b, acc, axes, precision), Value(acc.dtype, kept, "acc"))

    def loop(self, var: Var, lo: Any, hi: Any, params: tuple[tuple[Value, Value], ...],
             body: Callable[[Writer, tuple[Value, ...]], tuple[Value, ...]], **facts: int) -> tuple[Value, ...]:
        """``params`` are (initial value, parameter)."""
        inner = Writer(self.scope | {var})
        inner.block.params = tuple(p for _, p in params)
        inner.block.yields = body(inner, inner.block.params)
        op = For(var, as_term(lo), as_term(hi), tuple(i for i, _ in params), inner.block, **facts)
        op.results = tuple(Value(p.dtype, p.axes, p.hint) for p in inner.block.params)
        for r in op.results:
            r.op = op
        self.block.ops.append(op)
        return op.results


def program(name: str, buffers: tuple[Buffer, ...], sizes: tuple[Var, ...], *phases: Phase, checks: tuple[str, ...] = ()) -> TileProgram:
    return TileProgram(name, buffers, sizes, tuple(phases), checks=checks)


def vadd(rng: np.random.Generator, n: int = 1000, dtype: Dtype = f32, block: int = 128) -> Case:
    N = size("N")
    g, i = Var("g", cdiv(as_term(N), block)), Var("i", block)
    x, y, z = buffer("x", dtype, (N,)), buffer("y", dtype, (N,)), buffer("z", dtype, (N,), "output")
    at = as_term(g) * block + i
    mask = (as_term(N) - 1 - at,)
    w = Writer({N, g})
    values = tuple(w.load(b, (at,), mask) for b in (x, y))
    if dtype.is_low:
        values = tuple(w.map("cast", (v,), f32) for v in values)
    total = w.map("add", values, values[0].dtype)
    w.store(z, (at,), w.map("cast", (total,), dtype) if dtype.is_low else total, mask)
    from codegen.tile.memory import NUMPY
    a, b = (rng.standard_normal(n).astype(NUMPY[dtype]) for _ in range(2))
    held = NUMPY[dtype.held]
    expected = (a.astype(held) + b.astype(held)).astype(NUMPY[dtype])
    phase = Phase("vadd", ((g, cdiv(as_term(N), block)),), w.block)
    return Case(program("vadd", (x, y, z), (N,), phase), {"x": a, "y": b}, {N: n}, {"z": expected})


def softmax(rng: np.random.Generator, m: int = 5, n: int = 100, block: int = 32) -> Case:
    M, N = size("M"), size("N")
    r, j = Var("r", as_term(M)), Var("j", block)
    x, y = buffer("x", f32, (M, N)), buffer("y", f32, (M, N), "output")
    w = Writer({M, N, r})
    trips = cdiv(as_term(N), block)
    minus, zero = w.const(float("-inf"), f32), w.const(0.0, f32)

    def stats(w: Writer, p: tuple[Value, ...], k: Var) -> tuple[Value, ...]:
        at = as_term(k) * block + j
        mask = as_term(N) - 1 - at
        v = w.load(x, (r, at), (mask,))
        keep = w.add(Predicate((mask,)), Value(bool_, (j,)))
        v = w.map("where", (keep, v, w.const(float("-inf"), f32)), f32, "v")
        (block_max,) = w.reduce(MAX, (v,), (j,))
        high = w.map("max", (p[0], block_max), f32, "high")
        e = w.map("exp", (w.map("sub", (v, high), f32),), f32)
        (part,) = w.reduce(SUM, (e,), (j,))
        shrink = w.map("exp", (w.map("sub", (p[0], high), f32),), f32)
        return high, w.map("add", (w.map("mul", (p[1], shrink), f32), part), f32, "total")

    k = Var("k", trips)
    high, total = w.loop(k, 0, trips, ((minus, Value(f32, (), "m")), (zero, Value(f32, (), "l"))), lambda w, p: stats(w, p, k))
    k2 = Var("k", trips)

    def write(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        at = as_term(k2) * block + j
        mask = (as_term(N) - 1 - at,)
        v = w.load(x, (r, at), mask)
        e = w.map("exp", (w.map("sub", (v, high), f32),), f32)
        w.store(y, (r, at), w.map("div", (e, total), f32), mask)
        return ()

    w.loop(k2, 0, trips, (), write)
    a = rng.standard_normal((m, n)).astype(np.float32)
    e = np.exp(a - a.max(1, keepdims=True))
    phase = Phase("softmax", ((r, as_term(M)),), w.block)
    return Case(program("softmax", (x, y), (M, N), phase), {"x": a}, {M: m, N: n}, {"y": e / e.sum(1, keepdims=True)})


def matmul(rng: np.random.Generator, shape: tuple[int, int, int] = (50, 70, 45), tile: tuple[int, int, int] = (32, 32, 16),
           dtype: Dtype = f32, transposed: bool = False, group: int = 0, axis_order: str = "ijk", stages: int = 1,
           strided: bool = False) -> Case:
    """``relu(x @ w + b)``, every size symbolic; ``axis_order`` is the creation order of the tile axes."""
    M, N, K = size("M"), size("N"), size("K")
    step = size("x_stride")
    BM, BN, BK = tile
    made = {c: Var(c, dict(zip("ijk", tile))[c]) for c in axis_order}
    i, j, k = (made[c] for c in "ijk")
    gm, gn = Var("gm", cdiv(as_term(M), BM)), Var("gn", cdiv(as_term(N), BN))
    x = buffer("x", dtype, (M, K), strides=(step, 1) if strided else None)
    y = buffer("w", dtype, (N, K) if transposed else (K, N))
    b, o = buffer("b", f32, (N,)), buffer("o", f32, (M, N), "output")
    w = Writer({M, N, K, gm, gn})
    row, col = as_term(gm) * BM + i, as_term(gn) * BN + j
    trips = cdiv(as_term(K), BK)
    ko = Var("ko", trips)

    def body(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        at = as_term(ko) * BK + k
        rows, cols, deep = as_term(M) - 1 - row, as_term(N) - 1 - col, as_term(K) - 1 - at
        left = w.load(x, (row, at), (rows, deep))
        right = w.load(y, (col, at) if transposed else (at, col), (cols, deep))
        return (w.dot(left, right, p[0], (k,)),)

    acc = Value(f32, union_axes(Value(f32, (i, j))), "acc")
    (acc,) = w.loop(ko, 0, trips, ((w.const(0.0, f32), acc),), body, stages=stages)
    bias = w.load(b, (col,), (as_term(N) - 1 - col,))
    out = w.map("max", (w.map("add", (acc, bias), f32), w.const(0.0, f32)), f32)
    w.store(o, (row, col), out, (as_term(M) - 1 - row, as_term(N) - 1 - col))
    m, n, kk = shape
    from codegen.tile.memory import NUMPY
    a = (rng.standard_normal((m, kk)) / 8).astype(NUMPY[dtype])
    c = (rng.standard_normal((n, kk) if transposed else (kk, n)) / 8).astype(NUMPY[dtype])
    d = rng.standard_normal(n).astype(np.float32)
    expected = np.maximum(a.astype(np.float32) @ (c.T if transposed else c).astype(np.float32) + d, 0)
    phase = Phase("linear", ((gm, cdiv(as_term(M), BM)), (gn, cdiv(as_term(N), BN))), w.block, group=group)
    sizes = {M: m, N: n, K: kk} | ({step: kk + 3} if strided else {})
    given: Array = a
    if strided:
        given = np.full(m * (kk + 3), 1e30, NUMPY[dtype])
        given.reshape(m, kk + 3)[:, :kk] = a
    return Case(program("linear", (x, y, b, o), tuple(sizes), phase), {"x": given, "w": c, "b": d}, sizes, {"o": expected}, 1e-4)


def attention(rng: np.random.Generator, q_len: int = 40, kv_len: int = 52, d: int = 16, block: int = 32) -> Case:
    """One head: two dots in a loop, with the online softmax's state carried."""
    S, T = size("S"), size("T")
    i, j, c, e = Var("i", block), Var("j", block), Var("c", d), Var("e", d)
    g = Var("g", cdiv(as_term(S), block))
    q, kk, v = (buffer(n, f32, (s, d)) for n, s in (("q", S), ("k", T), ("v", T)))
    o = buffer("o", f32, (S, d), "output")
    w = Writer({S, T, g})
    row = as_term(g) * block + i
    rows = (as_term(S) - 1 - row,)
    tile_q = w.load(q, (row, c), rows)
    trips = cdiv(as_term(T), block)
    t = Var("t", trips)

    def body(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        m, s, acc = p
        at = as_term(t) * block + j
        mask = as_term(T) - 1 - at
        scores = w.dot(tile_q, w.load(kk, (at, c), (mask,)), w.const(0.0, f32), (c,))
        keep = w.add(Predicate((mask,)), Value(bool_, (j,)))
        scores = w.map("where", (keep, w.map("mul", (scores, w.const(d ** -0.5, f32)), f32), w.const(float("-inf"), f32)), f32, "scores")
        high = w.map("max", (m, w.reduce(MAX, (scores,), (j,))[0]), f32, "high")
        shrink = w.map("exp", (w.map("sub", (m, high), f32),), f32, "shrink")
        weights = w.map("exp", (w.map("sub", (scores, high), f32),), f32, "weights")
        total = w.map("add", (w.map("mul", (s, shrink), f32), w.reduce(SUM, (weights,), (j,))[0]), f32)
        acc = w.dot(weights, w.load(v, (at, e), (mask,)), w.map("mul", (acc, shrink), f32), (j,))
        return high, total, acc

    zero, minus = w.const(0.0, f32), w.const(float("-inf"), f32)
    params = ((minus, Value(f32, (i,), "m")), (zero, Value(f32, (i,), "l")), (zero, Value(f32, (i, e), "acc")))
    _, total, acc = w.loop(t, 0, trips, params, body, stages=2)
    w.store(o, (row, e), w.map("div", (acc, total), f32), rows)
    a, b, x = (rng.standard_normal((n, d)).astype(np.float32) for n in (q_len, kv_len, kv_len))
    s = a @ b.T * np.float32(d ** -0.5)
    p = np.exp(s - s.max(1, keepdims=True))
    expected = (p / p.sum(1, keepdims=True)) @ x
    phase = Phase("attention", ((g, cdiv(as_term(S), block)),), w.block)
    return Case(program("attention", (q, kk, v, o), (S, T), phase), {"q": a, "k": b, "v": x}, {S: q_len, T: kv_len}, {"o": expected}, 1e-5)


def argmax(rng: np.random.Generator, m: int = 6, n: int = 40, block: int = 16) -> Case:
    """Argmax over rows of a tile, masked by its identity."""
    M, N = size("M"), size("N")
    i, j = Var("i", 4), Var("j", 64)
    g = Var("g", cdiv(as_term(M), 4))
    x, o, at_o = buffer("x", f32, (M, n)), buffer("o", f32, (M,), "output"), buffer("at", i64, (M,), "output")
    w = Writer({M, N, g})
    row = as_term(g) * 4 + i
    rows, cols = as_term(M) - 1 - row, as_term(n - 1) - j
    v = w.load(x, (row, j), (rows, cols))
    keep = w.add(Predicate((cols,)), Value(bool_, (j,)))
    algebra = TileAlgebra(w)
    low = ARGMAX.identity(algebra, (f32, i64))
    where = w.add(Iota(as_term(j)), Value(i64, (j,)))
    state = tuple(w.map("where", (keep, s, n), s.dtype) for s, n in zip((v, where), low))
    best, at = w.reduce(ARGMAX, state, (j,))
    w.store(o, (row,), best, (rows,))
    w.store(at_o, (row,), at, (rows,))
    a = rng.integers(-5, 5, (m, n)).astype(np.float32)
    a[1, 7] = np.nan
    expected = {"o": np.max(a, 1), "at": np.argmax(a, 1)}
    return Case(program("argmax", (x, o, at_o), (M,), Phase("argmax", ((g, cdiv(as_term(M), 4)),), w.block)), {"x": a}, {M: m}, expected)


def moments(rng: np.random.Generator, m: int = 6, n: int = 40) -> Case:
    """Welford's mean and variance: whole tiles loaded twice, merged by the carrier."""
    M = size("M")
    i, j = Var("i", 2), Var("j", 32)
    g = Var("g", cdiv(as_term(M), 2))
    x, mean_o, var_o = buffer("x", f32, (M, n)), buffer("mean", f32, (M,), "output"), buffer("var", f32, (M,), "output")
    w = Writer({M, g})
    row = as_term(g) * 2 + i
    rows = as_term(M) - 1 - row
    algebra = TileAlgebra(w)
    zero = MOMENTS.identity(algebra, (f32,) * 3)
    k = Var("k", as_term(2))

    def body(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        at = as_term(k) * 32 + j
        inner = TileAlgebra(w)
        v = w.load(x, (row, at), (rows, as_term(n - 1) - at))
        keep = w.add(Predicate((as_term(n - 1) - at,)), Value(bool_, (j,)))
        lifted = MOMENTS.lift(inner, (v,), (f32,) * 3)
        state = tuple(w.map("where", (keep, s, e), f32) for s, e in zip(lifted, zero))
        return tuple(MOMENTS.combine(inner, p, w.reduce(MOMENTS, state, (j,))))

    params = tuple((e, Value(f32, (i,), name)) for e, name in zip(zero, ("count", "mean", "m2")))
    state = w.loop(k, 0, 2, params, body)
    mean, var = MOMENTS.finalize(algebra, state)
    w.store(mean_o, (row,), mean, (rows,))
    w.store(var_o, (row,), var, (rows,))
    a = (rng.standard_normal((m, n)) + 100).astype(np.float32)
    expected = {"mean": a.astype(np.float64).mean(1), "var": a.astype(np.float64).var(1)}
    phase = Phase("moments", ((g, cdiv(as_term(M), 2)),), w.block)
    return Case(program("moments", (x, mean_o, var_o), (M,), phase), {"x": a}, {M: m}, expected, 1e-4)


def cumsum(rng: np.random.Generator, m: int = 3, n: int = 50, reverse: bool = False) -> Case:
    M = size("M")
    r, j = Var("r", as_term(M)), Var("j", 64)
    x, o = buffer("x", f32, (M, n)), buffer("o", f32, (M, n), "output")
    w = Writer({M, r})
    mask = (as_term(n - 1) - j,)
    v = w.load(x, (r, j), mask)
    total = w.add(Scan(SUM, (v,), j, reverse), Value(f32, (j,)))
    w.store(o, (r, j), total, mask)
    a = rng.standard_normal((m, n)).astype(np.float32)
    expected = np.cumsum(a[:, ::-1], 1)[:, ::-1] if reverse else np.cumsum(a, 1)
    return Case(program("cumsum", (x, o), (M,), Phase("cumsum", ((r, as_term(M)),), w.block)), {"x": a}, {M: m}, {"o": expected})


def gather(rng: np.random.Generator, m: int = 37, v: int = 11, d: int = 24) -> Case:
    """Rows of a table by index, with a run-time check."""
    M, V = size("M"), size("V")
    i, j = Var("i", 16), Var("j", 32)
    g = Var("g", cdiv(as_term(M), 16))
    table, idx, o = buffer("table", f32, (V, d)), buffer("idx", i32, (M,)), buffer("o", f32, (M, d), "output")
    w = Writer({M, V, g})
    row = as_term(g) * 16 + i
    rows, cols = as_term(M) - 1 - row, as_term(d - 1) - j
    at = w.load(idx, (row,), (rows,))
    w.add_none(Check(at, as_term(V), 1, (rows,)))
    wide = w.map("cast", (at,), i64)
    limit = w.add(Iota(as_term(V)), Value(i64, ()))
    inside = w.map("and", (w.map("ge", (wide, w.const(0, i64)), bool_), w.map("lt", (wide, limit), bool_)), bool_)
    w.store(o, (row, j), w.load(table, (wide, j), (rows, cols), (inside,)), (rows, cols))
    a, where = rng.standard_normal((v, d)).astype(np.float32), rng.integers(0, v, m).astype(np.int32)
    phase = Phase("embedding", ((g, cdiv(as_term(M), 16)),), w.block)
    built = program("embedding", (table, idx, o), (M, V), phase, checks=("`idx` is out of range",))
    return Case(built, {"table": a, "idx": where}, {M: m, V: v}, {"o": a[where]})


def conv(rng: np.random.Generator, n: int = 2, c: int = 3, width: int = 29, f: int = 3, stride: int = 2, pad: int = 1) -> Case:
    """One-dimensional convolution with stride and zero padding: an index of three iterators, guarded on both sides."""
    out = (width + 2 * pad - f) // stride + 1
    B = size("B")
    gb, gx = Var("b", as_term(B)), Var("gx", cdiv(out, 8))
    i, k = Var("i", 8), Var("c", 4)
    x, wt, o = buffer("x", f32, (B, c, width)), buffer("w", f32, (c, f)), buffer("o", f32, (B, out), "output")
    w = Writer({B, gb, gx})
    at = as_term(gx) * 8 + i
    s = Var("s", as_term(f))

    def body(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        place = at * stride + s - pad
        guard = (place, as_term(width - 1) - place, as_term(out - 1) - at, as_term(c - 1) - k)
        v = w.load(x, (gb, k, place), guard)
        t = w.map("mul", (v, w.load(wt, (k, s), (as_term(c - 1) - k,))), f32)
        return (w.map("add", (p[0], w.reduce(SUM, (t,), (k,))[0]), f32),)

    (total,) = w.loop(s, 0, f, ((w.const(0.0, f32), Value(f32, (i,), "acc")),), body)
    w.store(o, (gb, at), total, (as_term(out - 1) - at,))
    a, b = rng.standard_normal((n, c, width)).astype(np.float32), rng.standard_normal((c, f)).astype(np.float32)
    padded = np.pad(a, ((0, 0), (0, 0), (pad, pad)))
    expected = sum(np.einsum("ncx,c->nx", padded[:, :, t:t + stride * out:stride][:, :, :out], b[:, t]) for t in range(f))
    phase = Phase("conv", ((gb, as_term(B)), (gx, as_term(cdiv(out, 8)))), w.block)
    return Case(program("conv", (x, wt, o), (B,), phase), {"x": a, "w": b}, {B: n}, {"o": expected})


def fused_index(rng: np.random.Generator, m: int = 9, n: int = 13) -> Case:
    """``o[p // n, p % n]`` over one fused axis, transposed on the way in."""
    g, p = Var("g", cdiv(m * n, 16)), Var("p", 16)
    x, o = buffer("x", f32, (n, m)), buffer("o", f32, (m, n), "output")
    w = Writer({g})
    at = as_term(g) * 16 + p
    mask = (as_term(m * n - 1) - at,)
    w.store(o, (at // n, at % n), w.load(x, (at % n, at // n), mask), mask)
    a = rng.standard_normal((n, m)).astype(np.float32)
    return Case(program("transpose", (x, o), (), Phase("transpose", ((g, as_term(cdiv(m * n, 16))),), w.block)), {"x": a}, {}, {"o": a.T})


def two_phases(rng: np.random.Generator, m: int = 70) -> Case:
    """Partial sums to a workspace in one launch, their total in the next; the second grid has one point, guarded by an If."""
    M = size("M")
    trips = cdiv(as_term(M), 16)
    g, i = Var("g", trips), Var("i", 16)
    x, part, o = buffer("x", f32, (M,)), buffer("part", f32, (trips,), "workspace"), buffer("o", f32, (), "output")
    w = Writer({M, g})
    at = as_term(g) * 16 + i
    w.store(part, (g,), w.reduce(SUM, (w.load(x, (at,), (as_term(M) - 1 - at,)),), (i,))[0])
    h, t = Var("h", as_term(1)), Var("t", trips)
    w2 = Writer({M, h})
    (total,) = w2.loop(t, 0, trips, ((w2.const(0.0, f32), Value(f32, (), "total")),),
                       lambda w, p: (w.map("add", (p[0], w.load(part, (t,))), f32),))
    inner = Writer({M, h})
    inner.store(o, (), total)
    w2.add_none(If((as_term(0) - h,), inner.block))
    a = rng.standard_normal(m).astype(np.float32)
    phases = (Phase("partial", ((g, trips),), w.block), Phase("total", ((h, as_term(1)),), w2.block))
    return Case(program("total", (x, part, o), (M,), *phases), {"x": a}, {M: m}, {"o": a.sum()})


def renamed(rng: np.random.Generator, n: int = 16) -> Case:
    """``x + x.T`` of one tile: the same values under exchanged names."""
    i, j = Var("i", n), Var("j", n)
    x, o = buffer("x", f32, (n, n)), buffer("o", f32, (n, n), "output")
    w = Writer(set())
    v = w.load(x, (i, j))
    t = w.add(Rename(v, ((i, j), (j, i))), Value(f32, (i, j)))
    w.store(o, (i, j), w.map("add", (v, t), f32))
    a = rng.standard_normal((n, n)).astype(np.float32)
    return Case(program("symmetric", (x, o), (), Phase("symmetric", (), w.block)), {"x": a}, {}, {"o": a + a.T})


def bounded_loop(rng: np.random.Generator, m: int = 40) -> Case:
    """Row sums of the lower triangle: a loop whose end depends on the grid point."""
    M = size("M")
    r, j = Var("r", as_term(M)), Var("j", 8)
    x, o = buffer("x", f32, (M, M)), buffer("o", f32, (M,), "output")
    w = Writer({M, r})
    k = Var("k", cdiv(as_term(M), 8))

    def body(w: Writer, p: tuple[Value, ...]) -> tuple[Value, ...]:
        at = as_term(k) * 8 + j
        v = w.load(x, (r, at), (as_term(r) - at, as_term(M) - 1 - at))
        return (w.map("add", (p[0], w.reduce(SUM, (v,), (j,))[0]), f32),)

    (total,) = w.loop(k, 0, tmin(cdiv(as_term(M), 8), as_term(r) // 8 + 1), ((w.const(0.0, f32), Value(f32, (), "acc")),), body)
    w.store(o, (r,), total)
    a = rng.standard_normal((m, m)).astype(np.float32)
    phase = Phase("triangle", ((r, as_term(M)),), w.block)
    return Case(program("triangle", (x, o), (M,), phase), {"x": a}, {M: m}, {"o": np.tril(a).sum(1)})


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "vadd": vadd, "softmax": softmax, "matmul": matmul, "matmul_transposed": lambda r: matmul(r, transposed=True),
    "matmul_strided": lambda r: matmul(r, strided=True, group=2), "matmul_kji": lambda r: matmul(r, axis_order="kji"),
    "attention": attention, "argmax": argmax, "moments": moments, "cumsum": cumsum, "cumsum_reverse": lambda r: cumsum(r, reverse=True),
    "gather": gather, "conv": conv, "fused_index": fused_index, "two_phases": two_phases, "renamed": renamed, "bounded_loop": bounded_loop,
}
