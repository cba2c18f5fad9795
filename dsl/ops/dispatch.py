"""How one name serves elements, tensors and foreign arrays.

Every operation is a function marked :func:`operation`. Called with an object whose class defines ``__dlc_function__``, it
delegates to it; so the frontend's arrays, or a user's, take part in every operation. A :func:`pointwise` operation is written
once over scalar expressions: called with expressions it gives an expression, called with tensors it gives a new definition
over their broadcast shape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dsl.dim import Term, Var
from dsl.dtype import Dtype, promote
from dsl.errors import DtypeError, IndexingError, ShapeError, UserError
from dsl.expr import Compute, Expr, Index, Tensor, cast, const, index
from dsl.program import compute

Function = Callable[..., Any]
Shape = tuple[Term, ...]

_SYNONYMS = {"dim": "axis", "keepdim": "keepdims"}
_NAMES: dict[int, tuple[str, ...]] = {0: (), 1: ("i",), 2: ("i", "j"), 3: ("b", "i", "j"), 4: ("n", "c", "y", "x"),
                                      5: ("n", "c", "z", "y", "x")}


def operation(fn: Function) -> Function:
    """Make ``fn`` open to foreign arrays.

    The first argument (also inside a list or tuple) whose class has ``__dlc_function__(self, function, args, kwargs)`` gets the
    call; it may return NotImplemented to pass. Torch's keyword names ``dim`` and ``keepdim`` are taken for ``axis`` and ``keepdims``.
    """
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in _SYNONYMS.keys() & kwargs.keys():
            kwargs[_SYNONYMS[name]] = kwargs.pop(name)
        for a in _flat((*args, *kwargs.values())):
            hook = getattr(type(a), "__dlc_function__", None)
            result = hook(a, call, args, kwargs) if hook is not None else NotImplemented
            if result is not NotImplemented:
                return result
        return fn(*args, **kwargs)

    return call


def pointwise(fn: Function) -> Function:
    """Make an operation of a function over scalar expressions; given tensors, it acts on the elements of their broadcast shape."""
    return operation(functools.wraps(fn)(lambda *args, **kwargs: lift(fn, fn.__name__, args, kwargs)))


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for v in values:
        if isinstance(v, (list, tuple)):
            yield from v
        else:
            yield v


# -- elements and tensors ------------------------------------------------------------------------------------------
def lift(fn: Function, name: str, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Any:
    """Apply ``fn``, written over expressions, to expressions or to the elements of tensors.

    Raises:
        ShapeError: shapes do not broadcast, or a tensor of rank 1 or more meets an element of an enclosing ``compute``.
    """
    kwargs = kwargs or {}
    values = [index(a) if isinstance(a, (Term, Var)) else a for a in args]
    everything = [*values, *kwargs.values()]
    tensors = [a for a in everything if isinstance(a, Tensor)]
    if not tensors or any(is_element(a) for a in everything):
        return fn(*(_element(a, name) for a in values), **{k: _element(v, name) for k, v in kwargs.items()})
    shape = broadcast(*tensors)
    weak = _weak_dtype(tensors)

    def body(*at: Any) -> Any:
        def pick(a: Any) -> Any:
            return _weaken(element_at(a, at) if isinstance(a, Tensor) else a, a, weak)
        return fn(*map(pick, values), **{k: pick(v) for k, v in kwargs.items()})

    return build(name, shape, body, axis_names(tensors, shape))


def is_element(value: Any) -> bool:
    """Whether ``value`` is an expression that depends on an index of an enclosing ``compute`` or reduction."""
    return isinstance(value, Expr) and any(v.kind == "axis" for v in value.free)


def _element(value: Any, name: str) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.ndim:
        raise ShapeError(f"`{value.name}` is a tensor, but {name} is used on elements here", f"{value} has {value.ndim} dimensions",
                         f"read one element: {value.name}[{', '.join(_NAMES.get(value.ndim, ('...',)))}]")
    return value.read()


def scalar(value: Any, name: str = "this operation") -> Any:
    """A number, an expression, or a tensor of rank 0 read as an expression.

    Raises:
        ShapeError: ``value`` is a tensor of rank 1 or more.
    """
    return _element(index(value) if isinstance(value, (Term, Var)) else value, name)


def _weak_dtype(tensors: list[Tensor]) -> Dtype | None:
    """The common dtype of the operands with dimensions, to which a rank-0 operand of the same kind yields, as in torch."""
    full = [t.dtype for t in tensors if t.ndim]
    return functools.reduce(promote, full) if full else None


def _weaken(value: Any, origin: Any, weak: Dtype | None) -> Any:
    rank0 = (isinstance(value, Expr) and not isinstance(value, Index)
             and (isinstance(origin, Expr) or isinstance(origin, Tensor) and not origin.ndim))
    return cast(value, weak) if rank0 and weak is not None and value.dtype.kind == weak.kind else value


def element_at(t: Tensor, at: Sequence[Any]) -> Expr:
    """The element of ``t``, broadcast to the box of the indices ``at``: dimensions align on the right, those of size 1 repeat."""
    return t.read(*(0 if size == 1 else i for size, i in zip(t.shape, at[len(at) - t.ndim:])))


def tensor(value: Any, what: str = "this operation") -> Tensor:
    """``value`` as a tensor; a number or an expression without free indices becomes one of rank 0.

    Raises:
        ShapeError: ``value`` is an element of an enclosing ``compute``.
        DtypeError: it is nothing that can be computed with.
    """
    if isinstance(value, Tensor):
        return value
    if is_element(value):
        raise ShapeError(f"{what} works on whole tensors, but `{value}` is one element",
                         remedy="apply it to the tensor, outside of dlc.compute")
    if isinstance(value, (bool, int, float)):
        value = const(value)
    if not isinstance(value, (Expr, Term, Var)):
        raise DtypeError(f"{what} needs a tensor, not a {type(value).__name__}")
    return build("scalar", (), lambda: value)


# -- definitions ---------------------------------------------------------------------------------------------------
def build(name: str, shape: Iterable[Any], fn: Function, names: Sequence[str] | None = None, dtype: Dtype | None = None) -> Compute:
    """The definition ``name[idx] = fn(*idx)`` over ``shape``; ``names`` are those of the indices."""
    sizes = tuple(shape)
    made: Compute = compute(sizes, fn, name, dtype, names or default_names(len(sizes)))
    return made


def default_names(rank: int) -> tuple[str, ...]:
    """Index names where nothing suggests better ones."""
    return _NAMES.get(rank) or tuple(f"i{n}" for n in range(rank))


def names_of(t: Tensor) -> tuple[str, ...]:
    """The names of the indices of ``t``: those it was defined with, or the usual ones."""
    return tuple(a.name for a in t.axes) if isinstance(t, Compute) else default_names(t.ndim)


def axis_names(tensors: Sequence[Tensor], shape: Shape) -> tuple[str, ...]:
    """Index names for a result of ``shape``: those of the first definition among the operands that has its rank."""
    for t in tensors:
        if isinstance(t, Compute) and t.ndim == len(shape):
            return names_of(t)
    return default_names(len(shape))


def fresh_name(wanted: str, taken: Iterable[str]) -> str:
    """``wanted``, or with a number after it when an index of that name exists."""
    used = set(taken)
    tries = (wanted if n == 0 else f"{wanted}{n}" for n in range(len(used) + 1))
    return next(n for n in tries if n not in used)


def axis(name: str, size: Any, taken: Iterable[str] = ()) -> Index:
    """A new index over ``[0, size)``, for a reduction, with a name that is not in ``taken``."""
    return index(Var(fresh_name(name, taken), size))


# -- shapes --------------------------------------------------------------------------------------------------------
def broadcast(*tensors: Tensor) -> Shape:
    """The common shape of tensors: aligned on the right, sizes equal or 1.

    Raises:
        ShapeError: two sizes differ; both tensors are named.
    """
    return broadcast_shapes([(t.name, t.shape) for t in tensors])


def broadcast_shapes(named: Sequence[tuple[str, Shape]], what: str = "broadcast") -> Shape:
    """As :func:`broadcast`, of (name, shape) pairs."""
    rank = max((len(s) for _, s in named), default=0)
    out: list[Term] = []
    for back in range(rank, 0, -1):
        owner: tuple[str, Shape] | None = None
        size = None
        for name, shape in named:
            mine = shape[len(shape) - back] if back <= len(shape) else 1
            if mine == 1:
                continue
            if owner is not None and size != mine:
                raise ShapeError(f"cannot {what} `{owner[0]}` {show_shape(owner[1])} with `{name}` {show_shape(shape)}",
                                 f"dimension {-back} has sizes {size} and {mine}, which are neither equal nor 1")
            owner, size = (name, shape), mine
        out.append(size if isinstance(size, Term) else Term({}, 1))
    return tuple(out)


def show_shape(shape: Iterable[Any]) -> str:
    """``[M, K]``."""
    return f"[{', '.join(map(str, shape))}]"


def axis_number(which: Any, rank: int, what: str) -> int:
    """A dimension number in ``[0, rank)``; negative ones count from the end.

    Raises:
        IndexingError: out of range, or not an integer.
    """
    if isinstance(which, (Expr, bool, float)) or not hasattr(which, "__index__"):
        raise IndexingError(f"{what}: axis must be an integer, not {which!r}",
                          remedy="on tensors an axis is a number; inside dlc.compute, reduce elements: dlc.sum(x[i, k], k)")
    n = int(which)
    if not -rank <= n < rank:
        raise IndexingError(f"{what}: axis {n} is out of range", f"the tensor has {rank} dimensions")
    return n % rank


def axis_numbers(which: Any, rank: int, what: str) -> tuple[int, ...]:
    """Distinct dimension numbers in ascending order; all of them for None.

    Raises:
        IndexingError: out of range, repeated, or not integers.
    """
    if which is None:
        return tuple(range(rank))
    given = which if isinstance(which, (tuple, list)) else (which,)
    out = sorted(axis_number(a, rank, what) for a in given)
    if len(set(out)) < len(out):
        raise IndexingError(f"{what}: axis {tuple(given)} names a dimension twice")
    return tuple(out)


def same_size(a: Term, b: Term, a_text: str, b_text: str, what: str) -> None:
    """Check that two sizes agree.

    Raises:
        ShapeError: they differ, or cannot be seen to be equal.
    """
    if a != b:
        raise ShapeError(f"{what}: {a_text} and {b_text} do not agree", f"their sizes are {a} and {b}")


def static(size: Any, what: str) -> int:
    """A size that must be known now.

    Raises:
        ShapeError: it is symbolic.
    """
    if isinstance(size, Index):
        size = size.term
    if isinstance(size, Term) and not size.is_const:
        raise ShapeError(f"{what} must be a number, not the symbolic size {size}")
    return int(size)


def require(condition: bool, title: str, reason: str = "", remedy: str = "") -> None:
    """Raise a UserError unless ``condition``."""
    if not condition:
        raise UserError(title, reason, remedy)
