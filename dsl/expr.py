"""The expression IR: scalar expressions over indices, and the tensors they read and define.

Scalar nodes (:class:`Expr`) are immutable and hash-consed: structurally equal expressions are one object, so identity is
equality and ``==`` is free to mean element-wise comparison. Tensors (:class:`Input`, :class:`Compute`) have identity.

Low-precision floats are *held* in f32 between operations; rounding happens at an explicit cast and when a kernel output
is stored. ``dsl/check.py`` holds the verifier, ``dsl/interp.py`` the numpy meaning.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from dsl.arithmetic import Arithmetic
from dsl.carrier import Carrier, highest, lowest
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype, bool_, i64, of_python, promote_scalar
from dsl.errors import DtypeError, IndexingError, UserError
from dsl.loc import Loc, here
from dsl.opset import OPS, result_dtype

_interned: WeakValueDictionary[tuple[Any, ...], Expr] = WeakValueDictionary()


T = TypeVar("T")


class _Part(Generic[T]):
    """One entry of a node's ``data`` under a name of its own."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __get__(self, node: Any, kind: Any = None) -> T:
        part: T = node.data[self.place]
        return part


class Expr(Arithmetic["Expr"]):
    """A scalar expression. Subclasses list their fields in ``fields``; those holding expressions in ``args``."""

    __slots__ = ("__weakref__", "_free", "_mentions", "_reads", "_sources", "args", "data", "dtype", "loc")

    args: tuple[Expr, ...]
    data: tuple[Any, ...]
    dtype: Dtype
    loc: Loc | None
    _free: frozenset[Var] | None
    _mentions: frozenset[Var] | None
    _reads: tuple[Read, ...] | None
    _sources: frozenset[Tensor] | None

    def __new__(cls, args: tuple[Expr, ...], data: tuple[Any, ...], dtype: Dtype, loc: Loc | None = None) -> Expr:
        """Return the one node with this class, operands, attributes and dtype."""
        key = (cls, args, data, dtype)
        node = _interned.get(key)
        if node is None:
            node = object.__new__(cls)
            node.args, node.data, node.dtype, node.loc = args, data, dtype, loc
            node._free = node._mentions = node._reads = node._sources = None
            _interned[key] = node
        return node

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nodes are complete when ``__new__`` returns."""

    __hash__ = object.__hash__

    def rebuild(self, args: tuple[Expr, ...]) -> Expr:
        """The same node over other operands (same dtypes)."""
        return type(self)(args, self.data, self.dtype, self.loc)

    @property
    def free(self) -> frozenset[Var]:
        """The variables that occur and are not bound by a reduction or scan inside."""
        if self._free is None:
            self._free = self._own_free().union(*(a.free for a in self.args)) - self._binds()
        return self._free

    def _own_free(self) -> frozenset[Var]:
        return frozenset()

    def _binds(self) -> frozenset[Var]:
        return frozenset()

    def __bool__(self) -> bool:
        raise _no_truth()

    def __iter__(self) -> Iterator[Expr]:
        raise UserError("a scalar expression cannot be iterated")

    def __repr__(self) -> str:
        from dsl.text import show_expr  # noqa: PLC0415  (printing is above this module)
        return show_expr(self)

    # arithmetic, filled in below
    def _binary(self, name: str, other: Any, swap: bool = False) -> Any:
        if hasattr(other, "__dlc_array__"):
            return NotImplemented
        rhs = as_expr(other, like=self)
        return op(name, rhs, self) if swap else op(name, self, rhs)


def _no_truth() -> UserError:
    return UserError("the truth value of an expression is not known while the kernel is being defined",
                     "Python's `if`, `and`, `or`, `not` and chained comparisons need a value now",
                     "use dlc.where(cond, a, b), and `&`, `|`, `~` on conditions")


class Const(Expr):
    """A literal. ``data = (value,)``; NaN and minus zero are stored as text, since as floats they break equality."""

    __slots__ = ()

    @property
    def value(self) -> bool | int | float:
        """The Python value."""
        return float(self.data[0]) if isinstance(self.data[0], str) else self.data[0]


class Index(Expr):
    """An index term as a value (i64). ``data = (term,)``."""

    __slots__ = ()
    term = _Part[Term](0)

    def _own_free(self) -> frozenset[Var]:
        return self.term.vars

    def __index__(self) -> int:
        if not self.term.is_const:
            raise UserError(f"`{self}` is symbolic; a Python integer is needed here")
        return self.term.const


class Param(Expr):
    """A placeholder ``data = (position,)``: the operands of a carrier's formulas."""

    __slots__ = ()


class Read(Expr):
    """One element of a tensor. ``data = (tensor, slots)`` where each slot is a Term, or None for the next of ``args`` (a gather)."""

    __slots__ = ()
    tensor = _Part["Tensor"](0)

    @property
    def indices(self) -> tuple[Term | Expr, ...]:
        """One index per dimension: a term, or an integer expression for a data-dependent index."""
        rest = iter(self.args)
        return tuple(next(rest) if s is None else s for s in self.data[1])

    def _own_free(self) -> frozenset[Var]:
        return frozenset(v for s in self.data[1] if s is not None for v in s.vars)


class Op(Expr):
    """A pointwise operation of ``dsl/opset.py``. ``data = (name,)``."""

    __slots__ = ()
    name = _Part[str](0)


class Cast(Expr):
    """Conversion of ``args[0]`` to ``dtype``: floats round to nearest even, float to int truncates (saturating), to bool tests ``!= 0``."""

    __slots__ = ()


class Where(Expr):
    """``args = (cond, then, other)``. The branch not taken is not evaluated: its reads need only be in bounds under ``cond``."""

    __slots__ = ()


class Reduce(Expr):
    """``carrier`` over the box of ``axes``: ``data = (carrier, axes, out)``, the carrier's inputs as ``args``, the component ``out``."""

    __slots__ = ()
    carrier, axes, out = _Part[Carrier](0), _Part["tuple[Var, ...]"](1), _Part[int](2)

    def _binds(self) -> frozenset[Var]:
        return frozenset(self.axes)

    def _own_free(self) -> frozenset[Var]:
        return frozenset(v for a in self.axes if a.extent is not None for v in a.extent.vars)


class Scan(Expr):
    """Prefix reduction: the carrier over ``axis`` in ``[0, at]`` (``[0, at)`` when exclusive, ``[at, n)`` when reverse).

    ``data = (carrier, axis, at, out, exclusive, reverse)``; ``at`` is the output position, a Term.
    """

    __slots__ = ()
    carrier, axis, at = _Part[Carrier](0), _Part[Var](1), _Part[Term](2)
    out, exclusive, reverse = _Part[int](3), _Part[bool](4), _Part[bool](5)

    def _binds(self) -> frozenset[Var]:
        return frozenset((self.axis,))

    def _own_free(self) -> frozenset[Var]:
        return self.at.vars | (self.axis.extent.vars if self.axis.extent is not None else frozenset())

    @property
    def free(self) -> frozenset[Var]:
        """Free variables; the position is outside the scope of the scanned axis."""
        if self._free is None:
            inner = frozenset().union(*(a.free for a in self.args)) - self._binds()
            self._free = inner | self._own_free()
        return self._free


# -- tensors -------------------------------------------------------------------------------------------------------
class Tensor:
    """A named array: shape (terms over sizes) and dtype. ``t[i, j]`` reads one element; ``dsl/ops`` adds array operators."""

    __dlc_array__ = True
    __array_priority__ = 1000

    def __init__(self, name: str, shape: tuple[Term, ...], dtype: Dtype, loc: Loc | None = None) -> None:
        self.name, self.shape, self.dtype, self.loc = name, shape, dtype, loc or here()

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def read(self, *indices: Any) -> Expr:
        """The element at ``indices``: ints, index expressions, or integer expressions (data-dependent)."""
        return read(self, indices)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    def __bool__(self) -> bool:
        raise _no_truth()


class Input(Tensor):
    """A tensor the kernel is called with."""


class Compute(Tensor):
    """``name[axes] = body`` for every point of the box of ``axes``; ``body`` is of the tensor's dtype."""

    def __init__(self, name: str, axes: tuple[Var, ...], body: Expr, loc: Loc | None = None, dtype: Dtype | None = None) -> None:
        super().__init__(name, tuple(a.extent for a in axes if a.extent is not None), dtype or body.dtype, loc)
        self.axes, self.body = axes, body


Value = Expr | Tensor


# -- construction --------------------------------------------------------------------------------------------------
def const(value: bool | int | float, dtype: Dtype | None = None) -> Const:
    """A literal of ``dtype`` (bool, i64 or f32 by the Python type when omitted)."""
    dtype = dtype or of_python(value)
    v: Any = bool(value) if dtype is bool_ else float(value) if dtype.is_float else int(value)
    text = "nan" if v != v else "-0.0" if v == 0 and math.copysign(1, v) < 0 else None
    return Const((), (v if text is None else text,), dtype)


def index(term: Term | Var | int) -> Index:
    """An index term as an expression."""
    return Index((), (as_term(term),), i64)


def as_expr(value: Any, like: Expr | None = None) -> Expr:
    """A Python number or expression as an expression; a number takes the dtype of ``like`` as torch's scalars do."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, (Term, Var)):
        return index(value)
    if hasattr(value, "item") and not isinstance(value, (bool, int, float)):
        value = _number(value)
    if isinstance(value, (bool, int, float)):
        if like is not None and isinstance(like, Index) and isinstance(value, int):
            return index(int(value))
        return const(value, promote_scalar(like.dtype, value) if like is not None else None)
    raise DtypeError(f"cannot use a {type(value).__name__} in an expression",
                     remedy="expressions, index variables and Python numbers can be mixed")


def _number(array: Any) -> Any:
    """The one element of an array that is not the kernel's."""
    if math.prod(array.shape) != 1:
        raise DtypeError(f"an array of shape {tuple(array.shape)} in a definition", "a definition knows its parameters and numbers alone",
                         "make it a parameter of the kernel")
    return array.item()


_INDEX_OPS: dict[str, Callable[[Term, Term], Term]] = {n: getattr(operator, n) for n in ("add", "sub", "mul", "floordiv", "mod")}


def op(name: str, *args: Any) -> Expr:
    """Apply a pointwise operation with torch's promotion; index arithmetic stays an index, constants are folded by later passes."""
    exprs = _operands(args)
    if name in ("floordiv", "mod") and _is_zero(exprs[1]) and exprs[0].dtype.is_int:
        raise DtypeError(f"`{exprs[0]}` divided by zero", remedy="divide by another number")
    terms = [e.term for e in exprs if isinstance(e, Index)]
    if name in _INDEX_OPS and len(terms) == len(exprs):
        a, b = terms
        if name in ("add", "sub", "mul") or b.bounds[0] > 0:  # quasi-affine
            return index(_INDEX_OPS[name](a, b))
    if name == "neg" and terms:
        return index(-terms[0])
    rule = result_dtype(name, [e.dtype for e in exprs])
    if isinstance(rule, str):
        raise DtypeError(rule)
    operand, result = rule
    return Op(tuple(cast(e, operand) for e in exprs), (name,), result)


def _operands(args: tuple[Any, ...]) -> tuple[Expr, ...]:
    like = next((a for a in args if isinstance(a, Expr)), None)
    return tuple(as_expr(a, like) for a in args)


def _is_zero(e: Expr) -> bool:
    return isinstance(e, Index) and e.term == 0 or isinstance(e, Const) and e.dtype.is_int and e.value == 0


def cast(x: Any, dtype: Dtype) -> Expr:
    """``x`` converted to ``dtype``; the same object when it already has it."""
    e = as_expr(x)
    if e.dtype == dtype:
        return e
    if isinstance(e, Const) and not dtype.is_low and (not dtype.is_int or lowest(dtype) <= e.value <= highest(dtype)):
        return const(int(e.value) if dtype.is_int else e.value, dtype)
    return Cast((e,), (), dtype)


def where(cond: Any, a: Any, b: Any) -> Expr:
    """``a`` where ``cond`` else ``b``. Reads in a branch need only be in bounds where the branch is taken."""
    c = cast(cond, bool_)
    x, y = _operands((a, b))
    rule = result_dtype("min", [x.dtype, y.dtype])
    assert not isinstance(rule, str)
    return Where((c, cast(x, rule[0]), cast(y, rule[0])), (), rule[0])


def read(tensor: Tensor, indices: tuple[Any, ...]) -> Expr:
    """The element of ``tensor`` at ``indices``.

    Raises:
        IndexingError: the number of indices is not the tensor's rank, or an index is not an integer.
    """
    if len(indices) != tensor.ndim:
        raise IndexingError(f"{tensor.name} has {tensor.ndim} dimensions and is read with {len(indices)} indices",
                          f"{tensor}", "give one index per dimension")
    slots: list[Term | None] = []
    args: list[Expr] = []
    for n, i in enumerate(indices):
        e = index(i) if isinstance(i, (Term, Var)) else as_expr(i)
        if isinstance(e, Index):
            slots.append(e.term)
        elif isinstance(e, Const) and e.dtype.is_int:
            slots.append(as_term(int(e.value)))
        elif e.dtype.is_int:
            slots.append(None)
            args.append(e)
        else:
            raise IndexingError(f"index {n} of {tensor.name} is {e.dtype}, not an integer", f"the index is `{e}`", "cast it to i64")
    return Read(tuple(args), (tensor, tuple(slots)), tensor.dtype, here())


def reduce(carrier: Carrier, args: tuple[Any, ...], axes: tuple[Var, ...], out: int = 0) -> Expr:
    """Reduce ``args`` (the carrier's inputs) over the box of ``axes``; component ``out`` of the finalised state is the value."""
    exprs = tuple(as_expr(a) for a in args)
    return Reduce(exprs, (carrier, axes, out), carrier.result(tuple(e.dtype for e in exprs))[out], here())


def scan(carrier: Carrier, args: tuple[Any, ...], axis: Var, at: Term, *, out: int = 0, exclusive: bool = False,
         reverse: bool = False) -> Expr:
    """Prefix reduction of ``args`` over ``axis`` up to position ``at``."""
    exprs = tuple(as_expr(a) for a in args)
    dtype = carrier.result(tuple(e.dtype for e in exprs))[out]
    return Scan(exprs, (carrier, axis, at, out, exclusive, reverse), dtype, here())


def _install_operators() -> None:
    binary = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floordiv", "mod": "mod", "pow": "pow",
              "and": "and", "or": "or", "xor": "xor", "lshift": "shl", "rshift": "shr"}
    for dunder, name in binary.items():
        setattr(Expr, f"__{dunder}__", lambda self, other, n=name: self._binary(n, other))
        setattr(Expr, f"__r{dunder}__", lambda self, other, n=name: self._binary(n, other, swap=True))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Expr, f"__{name}__", lambda self, other, n=name: self._binary(n, other))
    for dunder, name in {"neg": "neg", "abs": "abs", "invert": "not"}.items():
        setattr(Expr, f"__{dunder}__", lambda self, n=name: op(n, self))


_install_operators()
assert set(_INDEX_OPS) <= set(OPS)
