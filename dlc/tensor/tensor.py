"""The class: what a tensor knows, how it is computed, how it leaves for other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dlc.realize import explain, realize
from dlc.tape import Edge, Leaf, Reshape, Value, apply, spec_of, unreadable
from dlc.tape.graph import LONGEST
from dlc.tape.mode import mode
from dlc.tensor import convert
from dlc.tensor.constants import ARITHMETIC, varying
from dlc.tensor.gradients import Differentiable
from dlc.tensor.operators import Operators
from dlc.tensor.record import Layout, Recorder, Result, trace_call, trace_kernel
from dlc.tensor.shapes import complete, is_view
from dsl.dtype import Dtype
from dsl.errors import ArgumentError, DtypeError
from dsl.ops.dispatch import build
from dsl.ops.pointwise import cast
from dsl.ops.shape import flatten, permute, ravel, reshape, squeeze, unsqueeze
from dsl.ops.slicing import getitem
from dsl.program import Program

_foreign = (torch.Tensor, np.ndarray)


class Tensor(Operators, Differentiable):
    """An array that is computed when somebody looks at it.

    Every operation of ``dlc`` takes tensors as it takes the tensors of a kernel's definition; nothing runs until the numbers are
    needed (``numpy``, ``torch``, ``item``, ``print``, or :meth:`realize`). Then the operations on the way are fused into generated
    kernels. Tensors are never changed in place: ``t += 1`` makes another one.

    Args:
        data: an array, a number, or nested lists of numbers; the elements are copied. See :func:`dlc.from_torch` and
            :func:`dlc.from_numpy` for tensors that share memory.
        dtype: of the elements; that of the array, or f32, i64 or bool by the numbers, when None.
        requires_grad: whether gradients are wanted with respect to it.
    """

    __slots__ = ("__weakref__", "_edge", "_grad", "_value")
    __array_ufunc__ = None  # numpy arrays leave operators with a tensor to the tensor

    def __init__(self, data: Any, dtype: Dtype | None = None, requires_grad: bool = False) -> None:
        memory = data.torch() if isinstance(data, Tensor) else data
        self._value, self._edge, self._grad = _leaf(convert.copied(memory, dtype)), None, None
        self._value.handles += 1
        if requires_grad:
            self.requires_grad_()

    @classmethod
    def _of(cls, value: Value, edge: Edge | None) -> Tensor:
        """A tensor of a value."""
        t = Tensor.__new__(Tensor)
        t._value, t._edge, t._grad = value, edge, None
        value.handles += 1
        return t

    def __del__(self) -> None:
        try:
            self._value.handles -= 1
        except AttributeError:  # the constructor refused
            pass

    # -- facts -------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self._value.spec.shape

    @property
    def dtype(self) -> Dtype:
        """Of the elements."""
        return self._value.spec.dtype

    @property
    def device(self) -> str:
        """Where the memory is."""
        return "cpu"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._value.spec.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self._value.spec.shape, dtype=np.int64))

    def numel(self) -> int:
        """Number of elements, in torch's word."""
        return self.size

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def is_realized(self) -> bool:
        """Whether the numbers are in memory already."""
        return self._value.buffer is not None

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentError("len() of a tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise ArgumentError("a tensor without dimensions cannot be iterated")
        return (self[n] for n in range(len(self)))

    # -- looking -----------------------------------------------------------------------------------------------
    def realize(self) -> Tensor:
        """Compute the numbers, if they are not in memory; returns the tensor."""
        if self._value.buffer is None:
            realize((self._value,))
        return self

    def torch(self) -> torch.Tensor:
        """The numbers as a torch tensor over the same memory."""
        if mode.recording is not None:
            raise unreadable(f"a tensor {self._value.spec}")
        if self._value.buffer is None:
            realize((self._value,))
        return self._value.buffer

    def numpy(self) -> np.ndarray:
        """The numbers as a numpy array over the same memory."""
        return convert.numpy_of(self.torch())

    def item(self) -> Any:
        """The one element, as a Python number.

        Raises:
            ArgumentError: there is not just one.
        """
        if self.size != 1:
            raise ArgumentError(f"item() of a tensor with {self.size} elements", remedy="reduce it first, or use tolist()")
        return self.torch().item()

    def tolist(self) -> Any:
        """The numbers as nested lists."""
        return self.torch().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=bool(copy)) if copy or dtype is not None else self.numpy()

    def __dlpack__(self, **options: Any) -> Any:
        return self.torch().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.torch().__dlpack_device__()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.shape or not self.dtype.is_int:
            raise ArgumentError(f"a tensor {self._value.spec} is not an index", remedy="a whole number without dimensions is")
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item() if not self.shape and spec else repr(self) if not spec else self.item(), spec)

    def __repr__(self) -> str:
        body = repr(self.torch())[len("tensor("):-1].split(", dtype=")[0].replace("\n       ", "\n           ")
        note = ", requires_grad=True" if isinstance(self._edge, Leaf) else f", grad_fn={self.grad_fn}" if self._edge is not None else ""
        return f"dlc.tensor({body}, {self._value.spec}{note})"

    def explain(self) -> str:
        """The kernels that would compute this tensor, as mathematics; empty when it is in memory."""
        return "" if self.is_realized else explain((self._value,))

    # -- recording ---------------------------------------------------------------------------------------------
    def __dlc_function__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An operation of the language meets a tensor."""
        own = _SHAPES.get(function)
        return record(function, args, kwargs) if own is None else own(*args, **kwargs)

    def __dlc_kernel__(self, kernel: Any, program: Program, args: Sequence[Any]) -> Any:
        """A kernel of the user meets a tensor: it becomes one operation of the graph, with its derived backward."""
        recorder = Recorder(kernel)
        for a, declared in zip(args, program.inputs):
            t = (a if isinstance(a, Tensor)
                 else wrapped(_leaf(convert.copied(a, declared.dtype) if isinstance(a, (int, float)) else convert.wrap(a)), None))
            if t.dtype != declared.dtype:
                raise DtypeError(f"`{declared.name}` is {t.dtype}, its declaration {declared.dtype}", f"it is declared {declared}",
                                 f"convert it: {declared.name}.to(dlc.{declared.dtype})", declared.loc)
            _read(t)
            recorder.array(t._value, t._edge)
        return _given(*recorder.finish(lambda: trace_kernel(program, [v.spec for v in recorder.values], kernel.reproducible)))

    def __getitem__(self, key: Any) -> Tensor:
        """Part of the tensor: ints, slices with steps, None, ``...``, integer tensors, as in a kernel's definition."""
        out: Tensor = record(getitem, (self, key), {})
        buffer = self._value.buffer
        if buffer is not None and out._value.buffer is None and mode.recording is None and is_view(key):
            out._value.fill(buffer[key])
        return out

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, in row-major order, under another shape; one size may be -1.

        Raises:
            ShapeError: the shape has another number of elements.
        """
        sizes = complete(shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape, self.size, self.shape)
        if sizes == self.shape:
            return self
        _read(self)
        value, buffer = self._value, self._value.buffer
        if buffer is not None and not buffer.is_contiguous():
            return record(_copied, (self,), {}).reshape(sizes)
        ((made, edge),) = apply(Reshape.of(value.spec, sizes), (value,), (self._edge,))
        if buffer is not None and mode.recording is None:
            made.fill(buffer.view(sizes))
        return wrapped(made, edge)

    view = reshape

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """The dimensions from ``start_axis`` to ``end_axis`` as one."""
        first, last = start_axis % max(self.ndim, 1), end_axis % max(self.ndim, 1)
        return self.reshape(*self.shape[:first], int(np.prod(self.shape[first:last + 1], dtype=np.int64)), *self.shape[last + 1:])

    def squeeze(self, axis: Any = None) -> Tensor:
        """Without the dimensions of size 1, or without some of them."""
        named = None if axis is None else {n % max(self.ndim, 1) for n in (axis if isinstance(axis, (tuple, list)) else (axis,))}
        gone = [n for n, s in enumerate(self.shape) if s == 1 and (named is None or n in named)]
        return self.reshape([s for n, s in enumerate(self.shape) if n not in gone])

    def unsqueeze(self, axis: int) -> Tensor:
        """With a dimension of size 1 at ``axis``."""
        at = axis % (self.ndim + 1)
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def permute(self, *axes: Any) -> Tensor:
        """The dimensions in another order."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return record(permute, (self, *(order or range(self.ndim)[::-1])), {})

    def transpose(self, *axes: int) -> Tensor:
        """Two dimensions exchanged, as in torch; all of them reversed when none is named."""
        if len(axes) != 2:
            return self.permute(*axes)
        order = list(range(self.ndim))
        a, b = (n % self.ndim for n in axes)
        order[a], order[b] = b, a
        return self.permute(*order)

    @property
    def T(self) -> Tensor:  # noqa: N802  (as numpy and torch call it)
        """The dimensions reversed."""
        return self.permute()

    def to(self, dtype: Dtype) -> Tensor:
        """The tensor in another dtype."""
        return self if dtype == self.dtype else record(cast, (self, dtype), {})

    def clone(self) -> Tensor:
        """The same numbers in memory of their own; gradients flow through."""
        return record(_copied, (self,), {})

    def replace(self, other: Tensor) -> None:
        """Make this tensor stand for the numbers of another: how an optimiser updates a parameter. Graphs made before are not touched.

        Raises:
            ArgumentError: another shape or dtype, or this tensor was computed from others that require grad.
        """
        if other._value.spec is not self._value.spec:
            raise ArgumentError(f"{self._value.spec} cannot be replaced by {other._value.spec}")
        if not self.is_leaf:
            raise ArgumentError("only a leaf can be replaced", "gradients flow through this tensor", "use detach()")
        if mode.recording is not None:
            mode.recording.replaced[id(self)] = self
        self._value.handles -= 1
        self._value = other._value
        self._value.handles += 1


def _copied(x: Any) -> Any:
    """The elements in row-major order."""
    return build("copy", x.shape, lambda *at: x.read(*at))


def _read(t: Tensor) -> None:
    """Note, while a function is recorded, that it reads a tensor."""
    if mode.recording is not None:
        mode.recording.read(t)


def _leaf(buffer: torch.Tensor) -> Value:
    return Value(spec_of(buffer.shape, convert.dtype_of(buffer.dtype)), None, 0, buffer)


wrapped = Tensor._of
#: Operations that only change the shape, which needs no kernel.
_SHAPES: dict[Callable[..., Any], Callable[..., Any]] = {
    reshape: Tensor.reshape, ravel: Tensor.flatten, flatten: Tensor.flatten, squeeze: Tensor.squeeze, unsqueeze: Tensor.unsqueeze}


def of_memory(buffer: torch.Tensor) -> Tensor:
    """A tensor over memory."""
    return wrapped(_leaf(buffer), None)


def record(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Record an operation; arrays of other libraries among the arguments are taken as they are."""
    if function in ARITHMETIC and (number := varying(function, args)) is not None:
        args = tuple(of_memory(number[1]) if n == number[0] else a for n, a in enumerate(args))
    recorder = Recorder(function)
    recording = mode.recording
    for a in args:
        if type(a) is Tensor or isinstance(a, Tensor):
            if recording is not None:
                recording.read(a)
            recorder.key.append(a._value.spec)
            recorder.values.append(a._value)
            recorder.edges.append(a._edge)
        else:
            _collect(recorder, a)
    for name in kwargs:
        recorder.key.append(name)
        _collect(recorder, kwargs[name])
    return _given(*recorder.finish(lambda: _traced(function, args, kwargs, recorder)))


def _given(results: Sequence[Result], layout: Layout) -> Any:
    """The results as tensors; a graph that has grown too deep is computed now."""
    node = results[0][0].node if results else None
    if node is not None and node.depth > LONGEST:
        realize([v for v, _ in results])
    return wrapped(*results[0]) if layout is None else _arranged(iter(results), layout)


def _arranged(results: Iterator[Result], layout: Layout) -> Any:
    return wrapped(*next(results)) if layout is None else layout[0]([_arranged(results, inner) for inner in layout[1]])


def _collect(recorder: Recorder, a: Any) -> None:
    if isinstance(a, Tensor):
        _read(a)
        recorder.array(a._value, a._edge)
    elif isinstance(a, _foreign):
        recorder.array(_leaf(convert.wrap(a)), None)
    elif isinstance(a, (list, tuple)):
        recorder.key.append(type(a))
        for x in a:
            _collect(recorder, x)
        recorder.key.append("end")
    else:
        recorder.constant(a.item() if isinstance(a, np.generic) else a)


def _traced(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], recorder: Recorder) -> Any:
    def call(inputs: Iterator[Any]) -> Any:
        def replaced(a: Any) -> Any:
            if isinstance(a, (Tensor, *_foreign)):
                return next(inputs)
            if isinstance(a, (list, tuple)):
                return type(a)([replaced(x) for x in a])
            return a.item() if isinstance(a, np.generic) else a

        return function(*[replaced(a) for a in args], **{k: replaced(v) for k, v in kwargs.items()})

    return trace_call(function, [v.spec for v in recorder.values], call)


def compute_now(*tensors: Tensor) -> None:
    """Compute several tensors together, sharing what they have in common."""
    realize([t._value for t in tensors])
