"""Loops that count up, and the multiples of their variables that addresses are made of."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from codegen.emit.llvm_builder import Builder, Landing, Phi
from codegen.emit.llvm_types import I64

Body = Callable[["Counter", list[ir.Value]], list[ir.Value]]


class Counter:
    """The variable of a loop, and multiples of it, each counted by itself: an iteration takes an addition for it and no product.

    Args:
        b: at the head of the loop.
        name: the variable's.
        lo: its first value.
        start: a place before the loop, in the block ``before``.
    """

    def __init__(self, b: Builder, name: str, lo: ir.Value, start: Landing, before: ir.Block) -> None:
        self.b, self._lo, self._start, self._before = b, lo, start, before
        self.value: Phi = b.phi(I64, name)
        self.value.add_incoming(lo, before)
        self._counted: dict[str, tuple[Phi, ir.Value]] = {}
        self._phis = b.landing()

    def times(self, factor: ir.Value) -> ir.Value:
        """The variable times what is known before the loop."""
        name = factor.get_reference()
        if name not in self._counted:
            phi: Phi = self.b.at(self._phis, lambda: self.b.phi(I64))
            phi.add_incoming(self._first(factor), self._before)
            self._counted[name] = phi, factor
        return self._counted[name][0]

    def _first(self, factor: ir.Value) -> ir.Value:
        lo = self._lo
        if isinstance(lo, ir.Constant) and (lo.constant == 0 or isinstance(factor, ir.Constant)):
            return I64(lo.constant and lo.constant * factor.constant)
        return self.b.at(self._start, lambda: self.b.mul(lo, factor))

    def advance(self) -> ir.Value:
        """The variable of the next iteration, where this one ends."""
        for phi, factor in self._counted.values():
            phi.add_incoming(self.b.add(phi, factor), self.b.block)
        step = self.b.add(self.value, I64(1), flags=["nsw"])
        self.value.add_incoming(step, self.b.block)
        return step


def emit_loop(b: Builder, name: str, lo: ir.Value, hi: ir.Value, inits: list[ir.Value], body: Body, runs: bool) -> list[ir.Value]:
    """``for name in lo..hi`` carrying registers; tested at the bottom, guarded at the top unless it surely runs."""
    before, start = b.block, b.landing()
    inside, after = b.function.append_basic_block(name), b.function.append_basic_block(f"{name}.end")
    if runs:
        b.branch(inside)
    else:
        b.cbranch(b.icmp_signed("<", lo, hi), inside, after)
    b.position_at_end(inside)
    i = Counter(b, name, lo, start, before)
    phis = []
    for v in inits:
        phi = b.phi(v.type)
        phi.add_incoming(v, before)
        phis.append(phi)
    outs = body(i, phis)
    step, last = i.advance(), b.block
    for phi, v in zip(phis, outs):
        phi.add_incoming(v, last)
    b.cbranch(b.icmp_signed("<", step, hi), inside, after)
    b.position_at_end(after)
    results = []
    for v, o in zip(inits, outs):
        phi = b.phi(v.type)
        phi.add_incoming(o, last)
        if not runs:
            phi.add_incoming(v, before)
        results.append(phi)
    return results
