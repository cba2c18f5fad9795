"""Rearranging: the same elements under other indices. Nothing here computes; each is one read with another index map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.dim import ONE, Term, as_term, product
from dsl.errors import ShapeError
from dsl.expr import Tensor, index
from dsl.ops.dispatch import axis_number, axis_numbers, broadcast_shapes, build, names_of, operation, require, show_shape, tensor
from dsl.ops.slicing import distinct, view
from dsl.program import as_size

Sizes = tuple[Term, ...]
Run = tuple[tuple[int, int], tuple[int, int]]


def sizes_of(shape: Sequence[Any], what: str) -> list[Any]:
    """The entries of a shape given as one tuple or one by one; -1 stays an int."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return [s if isinstance(s, int) and not isinstance(s, bool) and s == -1 else as_size(s, f"a size in {what}") for s in given]


# -- other shapes --------------------------------------------------------------------------------------------------
@operation
def reshape(x: Tensor, *shape: Any) -> Any:
    """The elements in row-major order under another shape; one size may be -1, which is what is left.

    Raises:
        ShapeError: the numbers of elements differ, or are not seen to be equal because sizes are symbolic.
    """
    t = tensor(x, "reshape")
    new = _complete(t, sizes_of(shape, "reshape"))
    if product(t.shape) == 0 and product(new) == 0:
        return view(t, "reshape", new, lambda *at: [0] * t.ndim)
    groups = _groups(t, new)

    def place(*at: Any) -> list[Any]:
        out: list[Any] = []
        for (o0, o1), (n0, n1) in groups:
            out += _unravel(_ravel(at[n0:n1], new[n0:n1]), t.shape[o0:o1])
        return out

    return view(t, "reshape", new, place, _names(t, new, groups))


def _complete(t: Tensor, shape: list[Any]) -> Sizes:
    """The shape with -1 worked out."""
    unknown = [n for n, s in enumerate(shape) if isinstance(s, int)]
    require(len(unknown) <= 1, f"reshape of {t}: only one size may be -1, not {len(unknown)}")
    if not unknown:
        return tuple(shape)
    have, rest = product(t.shape), product(s for s in shape if not isinstance(s, int))
    if rest == 0:
        raise ShapeError(f"reshape of {t}: -1 cannot be worked out", "the other sizes multiply to 0", "write the size")
    left = _exact(have, rest)
    if left is None:
        raise ShapeError(
            f"cannot reshape {t.name} {show_shape(t.shape)} to [{', '.join('-1' if isinstance(s, int) else str(s) for s in shape)}]",
            f"{have} elements are not known to be a multiple of {rest}", _REMEDY)
    return tuple(left if isinstance(s, int) else s for s in shape)


_REMEDY = "give the dimension a size that is a number, or declare it as a product: f32[M, H * D] with H, D = dlc.dims('H D')"


def _exact(a: Term, b: Term) -> Term | None:
    """``a / b`` when ``b`` is seen to divide ``a``."""
    if b == 0:
        return None
    q = a // b
    return q if q * b == a else None


def _groups(t: Tensor, new: Sizes) -> list[Run]:
    """Runs of old and of new dimensions with the same number of elements, as short as possible."""
    old, out = t.shape, []
    i = j = 0
    while i < len(old) or j < len(new):
        i0, j0 = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := product(old[i0:i])) != (b := product(new[j0:j])):
            if i < len(old) and (j == len(new) or _exact(b, a) is not None):
                i += 1
            elif j < len(new):
                j += 1
            elif i < len(old):
                i += 1
            else:
                raise _mismatch(t, new)
        out.append(((i0, i), (j0, j)))
    return out


def _mismatch(t: Tensor, new: Sizes) -> ShapeError:
    have, want = product(t.shape), product(new)
    known = have.is_const and want.is_const
    return ShapeError(f"cannot reshape {t.name} {show_shape(t.shape)} to {show_shape(new)}",
                      f"they have {have} and {want} elements" + ("" if known else ", which are not seen to be equal"),
                      "sizes must multiply to the same number; -1 stands for what is left" if known else _REMEDY)


def _ravel(at: Sequence[Any], shape: Sizes) -> Any:
    flat: Any = index(0)
    for i, s in zip(at, shape):
        flat = flat * index(s) + i
    return flat


def _unravel(flat: Any, shape: Sizes) -> list[Any]:
    if not shape:
        return []
    out: list[Any] = []
    for s in reversed(shape[1:]):
        out.append(flat % index(s) if s != 1 else index(0))
        flat = flat // index(s) if s != 1 else flat
    return [*reversed([*out, flat])]


def _names(t: Tensor, new: Sizes, groups: Sequence[Run]) -> tuple[str, ...]:
    """A dimension that is taken over keeps its name."""
    old = names_of(t)
    out = ["i"] * len(new)
    for (o0, o1), (n0, n1) in groups:
        for n in range(n0, n1):
            out[n] = old[o0] if o1 - o0 == 1 and n == n0 else old[o1 - 1] if o1 > o0 and n == n1 - 1 else "i"
    return distinct(out)


@operation
def flatten(x: Tensor, start_axis: int = 0, end_axis: int = -1) -> Any:
    """The dimensions from ``start_axis`` to ``end_axis`` as one."""
    t = tensor(x, "flatten")
    if not t.ndim:
        return reshape(t, (1,))
    a, b = axis_number(start_axis, t.ndim, "flatten"), axis_number(end_axis, t.ndim, "flatten")
    require(a <= b, f"flatten: start {start_axis} comes after end {end_axis}")
    return reshape(t, (*t.shape[:a], product(t.shape[a:b + 1]), *t.shape[b + 1:]))


@operation
def ravel(x: Tensor) -> Any:
    """All elements in row-major order, in one dimension."""
    return flatten(x)


@operation
def unflatten(x: Tensor, axis: int, sizes: Sequence[Any]) -> Any:
    """One dimension as several; one of the sizes may be -1."""
    t = tensor(x, "unflatten")
    d = axis_number(axis, t.ndim, "unflatten")
    given = sizes_of((tuple(sizes),), "unflatten")
    rest = product(s for s in given if not isinstance(s, int))
    left = _exact(t.shape[d], rest) if rest != 0 else None
    full = [left if isinstance(s, int) else s for s in given]
    if None in full or product(s for s in full if s is not None) != t.shape[d]:
        raise ShapeError(f"unflatten: dimension {d} of {t} is not {' * '.join('-1' if isinstance(s, int) else str(s) for s in given)}",
                         f"its size is {t.shape[d]}", _REMEDY)
    return reshape(t, (*t.shape[:d], *full, *t.shape[d + 1:]))


@operation
def squeeze(x: Tensor, axis: Any = None) -> Any:
    """Without dimensions of size 1: all that are known to have it, or those of ``axis`` that do."""
    t = tensor(x, "squeeze")
    chosen = axis_numbers(axis, t.ndim, "squeeze")
    gone = {n for n in chosen if t.shape[n] == 1}
    kept = [n for n in range(t.ndim) if n not in gone]
    names = names_of(t)
    return view(t, "squeeze", [t.shape[n] for n in kept], lambda *at: _spread(at, kept, t.ndim), [names[n] for n in kept])


def _spread(at: Sequence[Any], kept: Sequence[int], rank: int) -> list[Any]:
    out: list[Any] = [0] * rank
    for n, i in zip(kept, at):
        out[n] = i
    return out


@operation
def unsqueeze(x: Tensor, axis: Any) -> Any:
    """With a new dimension of size 1 at each position in ``axis``, counted in the result."""
    t = tensor(x, "unsqueeze")
    many = len(axis) if isinstance(axis, (tuple, list)) else 1
    new = axis_numbers(axis, t.ndim + many, "unsqueeze")
    rank = t.ndim + len(new)
    kept = [n for n in range(rank) if n not in new]
    sizes, names = iter(t.shape), iter(names_of(t))
    shape = [ONE if n in new else next(sizes) for n in range(rank)]
    return view(t, "unsqueeze", shape, lambda *at: [at[n] for n in kept], distinct(["u" if n in new else next(names) for n in range(rank)]))


# -- other orders --------------------------------------------------------------------------------------------------
@operation
def permute(x: Tensor, *axes: Any) -> Any:
    """The dimensions in another order: ``permute(x, 2, 0, 1)`` or ``permute(x, (2, 0, 1))``."""
    t = tensor(x, "permute")
    order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    numbers = [axis_number(a, t.ndim, "permute") for a in order]
    if sorted(numbers) != list(range(t.ndim)):
        raise ShapeError(f"permute of {t}: ({', '.join(map(str, order))}) is not an order of its {t.ndim} dimensions",
                         remedy="name every dimension once")
    back = {a: n for n, a in enumerate(numbers)}
    names = names_of(t)
    return view(t, "transpose", [t.shape[a] for a in numbers], lambda *at: [at[back[n]] for n in range(t.ndim)],
                [names[a] for a in numbers])


@operation
def transpose(x: Tensor, *axes: Any) -> Any:
    """Two dimensions exchanged, as in torch; all of them in reverse order when none are named, or in the order given by three or more."""
    t = tensor(x, "transpose")
    if not axes:
        return permute(t, tuple(reversed(range(t.ndim))))
    if len(axes) != 2:
        return permute(t, *axes)
    a, b = (axis_number(n, t.ndim, "transpose") for n in axes)
    order = list(range(t.ndim))
    order[a], order[b] = order[b], order[a]
    return permute(t, order)


@operation
def swapaxes(x: Tensor, axis0: int, axis1: int) -> Any:
    """Two dimensions exchanged."""
    return transpose(x, axis0, axis1)


@operation
def matrix_transpose(x: Tensor) -> Any:
    """The last two dimensions exchanged.

    Raises:
        ShapeError: there are fewer than two.
    """
    t = tensor(x, "matrix_transpose")
    if t.ndim < 2:
        raise ShapeError(f"a matrix transpose of {t}", f"it has {t.ndim} dimensions", "two or more are needed")
    return transpose(t, -2, -1)


@operation
def moveaxis(x: Tensor, source: Any, destination: Any) -> Any:
    """Dimensions moved to other positions; the others keep their order."""
    t = tensor(x, "moveaxis")
    here = [axis_number(a, t.ndim, "moveaxis") for a in (source if isinstance(source, (tuple, list)) else (source,))]
    there = [axis_number(a, t.ndim, "moveaxis") for a in (destination if isinstance(destination, (tuple, list)) else (destination,))]
    require(len(here) == len(there) == len(set(here)) == len(set(there)), f"moveaxis: {source!r} and {destination!r} do not pair up")
    order = [n for n in range(t.ndim) if n not in here]
    for to, of in sorted(zip(there, here)):
        order.insert(to, of)
    return permute(t, order)


# -- repeated elements ---------------------------------------------------------------------------------------------
@operation
def broadcast_to(x: Tensor, *shape: Any) -> Any:
    """Dimensions of size 1, and new leading ones, repeated to ``shape``; -1 keeps a size.

    Raises:
        ShapeError: a size is neither 1 nor that of the shape.
    """
    t = tensor(x, "broadcast_to")
    given = sizes_of(shape, "broadcast_to")
    lead = len(given) - t.ndim
    if lead < 0 or any(isinstance(s, int) for s in given[:lead]):
        raise ShapeError(f"cannot broadcast {t.name} {show_shape(t.shape)} to {show_shape(given)}",
                         f"it has {t.ndim} dimensions" if lead < 0 else "-1 keeps a size, and a new dimension has none",
                         "name every new size")
    full = [*given[:lead], *(old if isinstance(s, int) else s for s, old in zip(given[lead:], t.shape))]
    for n, (old, s) in enumerate(zip(t.shape, full[lead:])):
        if old != s and old != 1:
            raise ShapeError(f"cannot broadcast {t.name} {show_shape(t.shape)} to {show_shape(full)}",
                             f"dimension {n} has size {old}, which is neither 1 nor {s}")
    names = distinct([*(["u"] * lead), *names_of(t)])
    return build("broadcast", full, lambda *at: t.read(*(0 if s == 1 else i for s, i in zip(t.shape, at[lead:]))), names)


@operation
def expand(x: Tensor, *shape: Any) -> Any:
    """As :func:`broadcast_to`."""
    return broadcast_to(x, *shape)


@operation
def expand_as(x: Tensor, other: Tensor) -> Any:
    """Broadcast to the shape of ``other``."""
    return broadcast_to(x, tensor(other, "expand_as").shape)


@operation
def broadcast_tensors(*tensors: Tensor) -> Any:
    """Every tensor, broadcast to their common shape."""
    shape = broadcast_shapes([(t.name, t.shape) for t in tensors])
    return tuple(broadcast_to(t, shape) for t in tensors)


@operation
def tile(x: Tensor, *times: Any) -> Any:
    """The whole tensor repeated along each dimension; missing leading counts are 1, missing dimensions are new."""
    t = tensor(x, "tile")
    counts = sizes_of(times, "tile")
    return repeat(t, [ONE] * (t.ndim - len(counts)) + counts)


@operation
def repeat(x: Tensor, *times: Any) -> Any:
    """The whole tensor repeated along each dimension; there are as many counts as dimensions, or more for new leading ones.

    Raises:
        ShapeError: fewer counts than dimensions.
    """
    t = tensor(x, "repeat")
    counts = sizes_of(times, "repeat")
    lead = len(counts) - t.ndim
    if lead < 0:
        raise ShapeError(f"repeat of {t} with {len(counts)} counts", f"it has {t.ndim} dimensions",
                         "give a count for each, or use dlc.tile")
    shape = [*counts[:lead], *(as_term(s) * c for s, c in zip(t.shape, counts[lead:]))]
    names = distinct([*(["u"] * lead), *names_of(t)])
    return view(t, "repeat", shape,
                lambda *at: [i if c == 1 else i % index(s) for i, s, c in zip(at[lead:], t.shape, counts[lead:])], names)


@operation
def repeat_interleave(x: Tensor, repeats: Any, axis: int | None = None) -> Any:
    """Each element repeated ``repeats`` times in a row along ``axis``; of the flattened tensor when None."""
    t = tensor(x, "repeat_interleave")
    if isinstance(repeats, Tensor):
        raise ShapeError("repeat_interleave: repeats is a tensor", "the shape of the result would depend on the data", "give one number")
    if axis is None:
        return repeat_interleave(flatten(t), repeats, 0)
    d, times = axis_number(axis, t.ndim, "repeat_interleave"), as_size(repeats, "repeats")
    if times == 0:
        return view(t, "repeat", [*t.shape[:d], 0, *t.shape[d + 1:]], lambda *at: at, names_of(t))
    shape = [*t.shape[:d], t.shape[d] * times, *t.shape[d + 1:]]
    return view(t, "repeat", shape, lambda *at: [*at[:d], at[d] // index(times), *at[d + 1:]], names_of(t))


# -- reversed and rotated ------------------------------------------------------------------------------------------
@operation
def flip(x: Tensor, *axes: Any, axis: Any = None) -> Any:
    """Reversed along axes: ``flip(x, 0)``, ``flip(x, (0, 1))``; along all when none are named."""
    t = tensor(x, "flip")
    given = axis if axis is not None else axes[0] if len(axes) == 1 else axes or None
    turned = axis_numbers(given, t.ndim, "flip")
    return view(t, "flip", t.shape, lambda *at: [index(s) - 1 - i if n in turned else i for n, (i, s) in enumerate(zip(at, t.shape))],
                names_of(t))


@operation
def roll(x: Tensor, shifts: Any, axis: Any = None) -> Any:
    """Elements moved by ``shifts`` along axes; those leaving at one end come in at the other. Without an axis, of the flattened tensor."""
    t = tensor(x, "roll")
    if axis is None:
        return reshape(roll(flatten(t), shifts, 0), t.shape)
    numbers = [axis_number(a, t.ndim, "roll") for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    amounts = list(shifts) if isinstance(shifts, (tuple, list)) else [shifts]
    require(len(amounts) == len(numbers), f"roll: {len(amounts)} shifts for {len(numbers)} axes")
    total = [0] * t.ndim
    for n, s in zip(numbers, amounts):
        total[n] += s
    return view(t, "roll", t.shape, lambda *at: [(i - s) % index(size) if s else i for i, s, size in zip(at, total, t.shape)], names_of(t))


@operation
def rot90(x: Tensor, k: int = 1, axes: Sequence[int] = (0, 1)) -> Any:
    """Turned by ``k`` quarters in the plane of two axes, from the first towards the second."""
    a, b = axes
    turns = k % 4
    if turns == 2:
        return flip(x, (a, b))
    if turns == 0:
        return x
    return transpose(flip(x, b), a, b) if turns == 1 else flip(transpose(x, a, b), b)


@operation
def unfold_axis(x: Tensor, axis: int, size: int, step: int) -> Any:
    """Windows of ``size`` elements, ``step`` apart, along an axis; the place in the window is a new last dimension (``Tensor.unfold``)."""
    t = tensor(x, "unfold")
    d = axis_number(axis, t.ndim, "unfold")
    require(size >= 0 and step > 0, f"unfold: size {size} and step {step} make no windows")
    shape = [*t.shape[:d], (t.shape[d] - size) // step + 1, *t.shape[d + 1:], size]
    return view(t, "unfold", shape, lambda *at: [*at[:d], at[d] * step + at[-1], *at[d + 1:-1]], distinct([*names_of(t), "w"]))
