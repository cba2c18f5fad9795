"""Exact integer linear algebra: the Smith normal form with its unimodular transforms, and triangular lattice bases.

Matrices are lists of rows of Python ints, so nothing overflows. They are small: one row per dimension of a tensor, one
column per index variable. The algorithms are the textbook ones (Cohen, "A Course in Computational Algebraic Number
Theory", 2.4.4 and 2.4.14), without the modular variants that only large matrices need.
"""

from __future__ import annotations

Matrix = list[list[int]]


def identity(n: int) -> Matrix:
    """The ``n`` by ``n`` identity."""
    return [[int(i == j) for j in range(n)] for i in range(n)]


def multiply(a: Matrix, b: Matrix) -> Matrix:
    """The matrix product; ``a`` is r x n, ``b`` n x c."""
    columns = list(zip(*b))
    return [[sum(x * y for x, y in zip(row, col)) for col in columns] for row in a]


def smith(a: Matrix) -> tuple[Matrix, list[int], Matrix]:
    """``(u, s, v)`` with ``u @ a @ v`` diagonal, its non-zero entries ``s`` positive and each dividing the next.

    Args:
        a: r x n; ``u`` is r x r and ``v`` n x n, both of determinant 1 or -1. ``len(s)`` is the rank.
    """
    work = [list(row) for row in a]
    rows, cols = len(work), len(work[0]) if work else 0
    u, v = identity(rows), identity(cols)
    rank = 0
    while rank < min(rows, cols) and _pivot(work, u, v, rank):
        if not _clear(work, u, v, rank):
            continue
        bad = _not_divided(work, rank)
        if bad is not None:
            _add_row(work, u, rank, bad, 1)
            continue
        if work[rank][rank] < 0:
            _negate_row(work, u, rank)
        rank += 1
    return u, [work[i][i] for i in range(rank)], v


def _pivot(a: Matrix, u: Matrix, v: Matrix, k: int) -> bool:
    """Bring the entry of least magnitude of the trailing block to ``(k, k)``; False when the block is zero."""
    found = [(abs(a[i][j]), i, j) for i in range(k, len(a)) for j in range(k, len(a[0])) if a[i][j]]
    if not found:
        return False
    _, i, j = min(found)
    a[k], a[i], u[k], u[i] = a[i], a[k], u[i], u[k]
    for m in (a, v):
        for row in m:
            row[k], row[j] = row[j], row[k]
    return True


def _clear(a: Matrix, u: Matrix, v: Matrix, k: int) -> bool:
    """Subtract multiples of row and column ``k`` from the others; True when both are clear."""
    p = a[k][k]
    for i in range(k + 1, len(a)):
        if a[i][k]:
            _add_row(a, u, i, k, -(a[i][k] // p))
    for j in range(k + 1, len(a[0])):
        q = a[k][j] // p
        for m in (a, v):
            for row in m:
                row[j] -= q * row[k]
    return not any(a[i][k] for i in range(k + 1, len(a))) and not any(a[k][j] for j in range(k + 1, len(a[0])))


def _not_divided(a: Matrix, k: int) -> int | None:
    """A row of the trailing block with an entry that the pivot does not divide."""
    return next((i for i in range(k + 1, len(a)) if any(x % a[k][k] for x in a[i][k + 1:])), None)


def _add_row(a: Matrix, u: Matrix, to: int, source: int, times: int) -> None:
    for m in (a, u):
        m[to] = [x + times * y for x, y in zip(m[to], m[source])]


def _negate_row(a: Matrix, u: Matrix, k: int) -> None:
    for m in (a, u):
        m[k] = [-x for x in m[k]]


def triangular(basis: Matrix, chosen: list[int]) -> Matrix | None:
    """The same lattice with a basis that is lower triangular, with a positive diagonal, in the ``chosen`` coordinates.

    Args:
        basis: n x f, linearly independent columns.
        chosen: f row numbers.

    Returns:
        the n x f basis, or None when those rows are singular.
    """
    b = [list(row) for row in basis]
    f = len(chosen)
    for m, r in enumerate(chosen):
        while True:
            live = [j for j in range(m, f) if b[r][j]]
            if not live:
                return None
            best = min(live, key=lambda j: abs(b[r][j]))
            _swap_columns(b, m, best)
            if len(live) == 1:
                break
            for j in range(m + 1, f):
                _add_column(b, j, m, -(b[r][j] // b[r][m]))
        if b[r][m] < 0:
            for row in b:
                row[m] = -row[m]
        for j in range(m):
            _add_column(b, j, m, -(b[r][j] // b[r][m]))
    return b


def _swap_columns(b: Matrix, i: int, j: int) -> None:
    for row in b:
        row[i], row[j] = row[j], row[i]


def _add_column(b: Matrix, to: int, source: int, times: int) -> None:
    for row in b:
        row[to] += times * row[source]
