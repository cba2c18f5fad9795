"""Integer equations between index variables, solved: all ``z`` in a box with ``A z + b = j``.

The method is that of design section 6. Equations with one unknown are solved at once, whatever their coefficient (a symbolic
size too); equations whose coefficients form a mixed radix (``i*N + j`` with ``0 <= j < N``) are decoded by division; what
remains is put in Smith normal form, ``U A V = S``, so that ``z = V (S^-1 U (j - b), t)``. The free ``t`` are turned into
*variables of the problem* by a triangular basis of the lattice: with diagonal entry ``h`` the variable runs over one
residue class, ``k = r + h*t`` with ``r`` known, so a strided read becomes a dense loop of ``ceil(K/h)`` steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dsl.derivative.names import unique
from dsl.derivative.smith import Matrix, smith, triangular
from dsl.dim import ZERO, Term, Var, as_term, cdiv, nonneg

MOST_CHOICES = 256


class Unsolvable(Exception):
    """The equations are outside what this module solves; the caller falls back to comparing indices."""


@dataclass
class Box:
    """The range ``[low, low + extent)`` of an unknown; ``checked`` when solutions must be tested against it."""

    low: Term
    extent: Term
    checked: bool = True


@dataclass
class Solution:
    """All solutions of a system.

    Attributes:
        values: each unknown over the known variables and the loops.
        loops: fresh variables; every point of their box gives one candidate.
        conditions: what a candidate must satisfy: ``("eq", a, b)``, ``("ge", a, b)`` or ``("lt", a, b)``.
        parts: for ``(n, d)``, the unknowns that are ``n // d`` and ``n % d``.
    """

    values: dict[Var, Term] = field(default_factory=dict)
    loops: list[Var] = field(default_factory=list)
    conditions: list[tuple[str, Term, Term]] = field(default_factory=list)
    parts: dict[tuple[Term, Term], tuple[Var, Var]] = field(default_factory=dict)


class System:
    """Equations ``row = 0`` over unknowns with known ranges.

    Args:
        rows: terms over unknowns, known variables and sizes.
        boxes: the range of each unknown, or None where it has none of its own.
        preferred: unknowns to loop over when several choices cost the same.
        taken: names that loops may not have.
    """

    def __init__(self, rows: Sequence[Term], boxes: dict[Var, Box | None], preferred: Iterable[Var] = (),
                 taken: Iterable[str] = ()) -> None:
        self.rows, self.boxes, self.preferred, self.taken = list(rows), boxes, set(preferred), set(taken)
        self.out = Solution()
        self.inside: set[Var] = set()

    def solve(self) -> Solution:
        """All solutions.

        Raises:
            Unsolvable: an equation is not affine, or its coefficients are symbolic and not a mixed radix.
        """
        self._direct()
        while self._radix():
            self._direct()
        for rows, unknowns in self._components():
            self._lattice(rows, unknowns)
        for v, box in self.boxes.items():
            if v not in self.out.values and box is not None and box.checked:
                self.out.values[v] = self._loop(v, box.extent) + box.low
        self._close()
        return self.out

    def _close(self) -> None:
        """Substitute the values into each other and test them against their boxes."""
        values = self.out.values
        for v in values:
            for _ in range(len(values)):
                if not values[v].vars & self.boxes.keys():
                    break
                values[v] = values[v].subs(values)
        self.out.conditions = [(name, a.subs(values), b) for name, a, b in self.out.conditions]
        for v, box in self.boxes.items():
            if box is not None and box.checked and v in values and v not in self.inside:
                if not nonneg(values[v] - box.low):
                    self.out.conditions.append(("ge", values[v], box.low))
                if not nonneg(box.low + box.extent - 1 - values[v]):
                    self.out.conditions.append(("lt", values[v], box.low + box.extent))

    # -- one unknown -------------------------------------------------------------------------------------------
    def _unknowns(self, row: Term) -> list[Var]:
        return sorted((v for v in row.vars if v in self.boxes), key=lambda v: v.uid)

    def _coefficient(self, row: Term, v: Var) -> Term:
        c = row.coef_term(v)
        if c is None or c.vars & self.boxes.keys():
            raise Unsolvable(f"{row} is not affine in {v}")
        return c

    def _assign(self, v: Var, value: Term) -> None:
        self.out.values[v] = value
        self.rows = [r.subs({v: value}) for r in self.rows]
        for w, t in self.out.values.items():
            self.out.values[w] = t.subs({v: value})

    def _direct(self) -> None:
        """Solve every equation with at most one unknown, until none is left."""
        while True:
            row = next((r for r in self.rows if len(self._unknowns(r)) <= 1), None)
            if row is None:
                return
            self.rows.remove(row)
            unknowns = self._unknowns(row)
            if unknowns:
                self._single(row, unknowns[0])
            elif row != 0:
                self.out.conditions.append(("eq", row, ZERO))

    def _single(self, row: Term, v: Var) -> None:
        c = self._coefficient(row, v)
        rest = row.subs({v: 0})
        if nonneg(c - 1):
            rest = -rest
        elif nonneg(-c - 1):
            c = -c
        else:
            raise Unsolvable(f"the sign of {c} is not known")
        if c != 1:
            remainder = rest % c
            if remainder != 0:
                self.out.conditions.append(("eq", remainder, ZERO))
        self._divide(v, rest, c)

    def _divide(self, v: Var, rest: Term, c: Term, sign: int = 1) -> None:
        """``v = sign * (rest // c)``, proved inside its box where that follows from the range of ``rest``."""
        box = self.boxes[v]
        if box is not None and sign > 0 and nonneg(rest - c * box.low) and nonneg(c * (box.low + box.extent) - 1 - rest):
            self.inside.add(v)
        self._assign(v, rest // c * sign)

    # -- mixed radix -------------------------------------------------------------------------------------------
    def _radix(self) -> bool:
        """Decode one equation whose coefficients are a mixed radix; False when there is none."""
        for row in self.rows:
            digits = self._digits(row)
            if digits is not None:
                self.rows.remove(row)
                rest = -row.subs({v: 0 for v, _ in digits})
                self._decode(rest, digits)
                return True
        return False

    def _digits(self, row: Term) -> list[tuple[Var, Term]] | None:
        """The unknowns of a row, least significant first, with their signed weights; None when they are no mixed radix."""
        left = {v: self._coefficient(row, v) for v in self._unknowns(row)}
        out: list[tuple[Var, Term]] = []
        weight: Term = as_term(1)
        while left:
            v = next((v for v, c in left.items() if c in (weight, -weight) and (len(left) == 1 or self.boxes[v] is not None)), None)
            if v is None:
                return None
            out.append((v, left.pop(v)))
            box = self.boxes[v]
            weight = weight * box.extent if box is not None else ZERO
        return out

    def _decode(self, rest: Term, digits: list[tuple[Var, Term]]) -> None:
        """Values of the digits of ``rest``: a negative digit counts from the other end of its range."""
        for v, c in digits[:-1]:
            box = self.boxes[v]
            assert box is not None
            ends = box.low if _positive(c) else box.low + box.extent - 1
            rest = rest - c * ends
        weight: Term = as_term(1)
        for n, (v, c) in enumerate(digits):
            box = self.boxes[v]
            if n < len(digits) - 1:
                assert box is not None
                digit = rest // weight % box.extent
                self.inside.add(v)
                value = box.low + digit if _positive(c) else box.low + box.extent - 1 - digit
                self._assign(v, value)
                weight = weight * box.extent
            else:
                self._divide(v, rest, weight, 1 if _positive(c) else -1)

    # -- Smith normal form -------------------------------------------------------------------------------------
    def _components(self) -> list[tuple[list[Term], list[Var]]]:
        """Equations grouped by the unknowns they share."""
        groups: list[tuple[list[Term], list[Var]]] = []
        for row in self.rows:
            mine = self._unknowns(row)
            touching = [g for g in groups if set(g[1]) & set(mine)]
            groups = [g for g in groups if g not in touching]
            groups.append((
                [r for g in touching for r in g[0]] + [row],
                sorted({v for g in touching for v in g[1]} | set(mine), key=lambda v: v.uid)))
        return groups

    def _lattice(self, rows: list[Term], unknowns: list[Var]) -> None:
        a: Matrix = []
        for r in rows:
            coefs = [self._coefficient(r, v) for v in unknowns]
            if not all(c.is_const for c in coefs):
                raise Unsolvable(f"{r} has symbolic coefficients")
            a.append([c.const for c in coefs])
        constant = [-r.subs({v: 0 for v in unknowns}) for r in rows]
        u, s, v = smith(a)
        right = [_dot(line, constant) for line in u]
        for n, c in enumerate(right):
            condition = c % s[n] if n < len(s) else c
            if condition != 0:
                self.out.conditions.append(("eq", condition, ZERO))
        known = [c // d for c, d in zip(right, s)]
        particular = [_dot(line[:len(s)], known) for line in v]
        kernel = [line[len(s):] for line in v]
        self._enumerate(unknowns, particular, kernel)

    def _enumerate(self, unknowns: list[Var], particular: list[Term], kernel: Matrix) -> None:
        """Turn the free coordinates of the lattice into loops over the cheapest unknowns, one residue class each."""
        chosen, basis = self._choice(unknowns, kernel)
        coordinates: list[Term] = []
        for m, n in enumerate(chosen):
            v, box = unknowns[n], self.boxes[unknowns[n]]
            assert box is not None
            step = basis[n][m]
            base = particular[n] + _dot(basis[n][:m], coordinates)
            loop = self._loop(v, cdiv(box.extent, step))
            self.out.values[v] = box.low + (base - box.low) % step + step * loop
            coordinates.append(loop - (base - box.low) // step)
        for n, v in enumerate(unknowns):
            if n not in chosen:
                self.out.values[v] = particular[n] + _dot(basis[n], coordinates)

    def _loop(self, v: Var, trips: Term) -> Term:
        if trips == 1:
            return ZERO
        loop = Var(unique(v.name, self.taken), trips)
        self.out.loops.append(loop)
        return as_term(loop)

    def _choice(self, unknowns: list[Var], kernel: Matrix) -> tuple[list[int], Matrix]:
        """The unknowns to loop over, with the basis triangular in them: fewest trips, then the preferred ones."""
        free = len(kernel[0]) if kernel else 0
        bounded = [n for n, v in enumerate(unknowns) if self.boxes[v] is not None]
        best: tuple[tuple[float, int, float], list[int], Matrix] | None = None
        for some in itertools.islice(itertools.combinations(bounded, free), MOST_CHOICES):
            basis = triangular(kernel, list(some))
            if basis is None:
                continue
            trips = 1.0
            for m, n in enumerate(some):
                box = self.boxes[unknowns[n]]
                assert box is not None
                trips *= self._size(cdiv(box.extent, basis[n][m]), unknowns[n])
            cost = trips, sum(unknowns[n] not in self.preferred for n in some), sum(basis[n][m] for m, n in enumerate(some))
            if best is None or cost < best[0]:
                best = cost, list(some), basis
        if best is None:
            raise Unsolvable("no bounded unknowns span the solutions")
        return best[1], best[2]

    def _size(self, extent: Term, v: Var) -> float:
        """A guess at an extent, to compare choices: symbolic sizes are large, those of preferred unknowns (kernels) less so."""
        guess = 8 if v in self.preferred else 1024
        return float(max(extent.eval({s: guess for s in extent.vars}), 1))


def _positive(c: Term) -> bool:
    return nonneg(c - 1)


def _dot(coefficients: Sequence[int], terms: Sequence[Term]) -> Term:
    out: Term = ZERO
    for c, t in zip(coefficients, terms):
        out = out + t * c
    return out


