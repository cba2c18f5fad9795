"""Autograd as its users know it: leaves, ``grad``, hooks, ``backward``, derivatives of derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import ref

from dlc.realize import realize
from dlc.tape import Edge, Leaf, Node, Value, phase, pull
from dlc.tape.backward import Grad, place
from dlc.tape.mode import mode
from dlc.tensor.record import Recorder, trace_call
from dsl.dtype import Dtype
from dsl.errors import DerivativeError, DtypeError, ShapeError
from dsl.expr import cast
from dsl.ops.dispatch import build
from dsl.ops.pointwise import add

Self = TypeVar("Self", bound="Differentiable")
Hook = Callable[[Any], Any]


class GradFn:
    """The operation that gradients of a tensor flow back through."""

    def __init__(self, node: Node, index: int) -> None:
        self.node, self.index = node, index

    @property
    def name(self) -> str:
        """Of the operation."""
        return self.node.template.name

    @property
    def next_functions(self) -> tuple[GradFn | None, ...]:
        """For each input, the operation that it came from; None for leaves and where no gradient flows."""
        return tuple(None if e is None or isinstance(e, Leaf) else GradFn(*e) for e in self.node.edges or ())

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Differentiable:
    """The part of a tensor that has to do with gradients."""

    __slots__ = ()

    _edge: Edge | None
    _grad: Any
    _value: Value

    @classmethod
    def _of(cls, value: Value, edge: Edge | None) -> Any:
        raise NotImplementedError

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it: asked for, or because of what it was computed from."""
        return self._edge is not None

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self.requires_grad_(on)

    def requires_grad_(self: Self, on: bool = True) -> Self:
        """Ask for gradients with respect to this tensor, or no longer; returns it.

        Raises:
            DtypeError: the elements are not floats.
            DerivativeError: it was computed from others that require grad.
        """
        if on and not self._value.spec.dtype.is_float:
            raise DtypeError(f"a tensor of {self._value.spec.dtype} cannot require grad", "only floats have derivatives")
        if not self.is_leaf:
            if on:
                return self
            raise DerivativeError("only leaves can stop requiring grad", "this tensor was computed from others", "use detach()")
        self._edge = (self._edge or Leaf(self)) if on else None
        return self

    @property
    def grad(self) -> Any:
        """The gradient that arrived at this leaf; None before any did."""
        if mode.recording is not None:
            mode.recording.grad_read(self)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if mode.recording is not None:
            mode.recording.grad_set(self)
        self._grad = value

    @property
    def is_leaf(self) -> bool:
        """Whether it was not computed from tensors that require grad."""
        return self._edge is None or isinstance(self._edge, Leaf)

    @property
    def grad_fn(self) -> GradFn | None:
        """The operation that gradients flow back through; None for a leaf."""
        return None if self._edge is None or isinstance(self._edge, Leaf) else GradFn(*self._edge)

    def detach(self: Self) -> Self:
        """The same numbers, without a past: no gradients flow through it."""
        out = self._of(self._value, None)
        if mode.recording is not None and not mode.recording.made(self._value):
            mode.recording.read(self)
            mode.recording.inside(out)
        return out

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Add to the ``grad`` of every leaf that this tensor depends on its derivative, times ``gradient``.

        Args:
            gradient: of this tensor's shape; 1 when it has one element.
            retain_graph: keep what is needed to walk the same graph again; so when ``create_graph``.
            create_graph: make the gradients differentiable themselves.

        Raises:
            DerivativeError: nothing requires grad, the graph was walked before, or an operation has no derivative.
        """
        backward((self,), None if gradient is None else (gradient,), retain_graph, create_graph)

    def retain_grad(self: Self) -> Self:
        """Also keep the gradient of this tensor, which is not a leaf, in its ``grad``; returns it."""
        if not self.is_leaf:
            own = ref(self)

            def keep(grad: Any) -> None:
                t = own()
                if t is not None:
                    t.grad = grad

            self.register_hook(keep)
        return self

    def register_hook(self, hook: Hook) -> Callable[[], None]:
        """Call ``hook`` with the gradient of this tensor whenever it is known; what it returns, unless None, takes the gradient's place.

        Returns:
            A function that removes the hook.

        Raises:
            DerivativeError: no gradient flows to this tensor.
        """
        edge = self._edge
        if edge is None:
            raise DerivativeError("a hook on a tensor that does not require grad", remedy="requires_grad_() first")
        if isinstance(edge, Leaf):
            hooks = edge.hooks = edge.hooks if edge.hooks is not None else {}
        else:
            node, index = edge
            node.hooks = node.hooks if node.hooks is not None else {}
            hooks = node.hooks.setdefault(index, {})
        number = max(hooks, default=-1) + 1
        hooks[number] = hook
        return lambda: hooks.pop(number, None) and None


def backward(tensors: Sequence[Any], gradients: Sequence[Any] | None = None, retain_graph: bool | None = None,
             create_graph: bool = False) -> None:
    """Add to the ``grad`` of every leaf behind some tensors the derivative of their sum, each times its gradient.

    See :meth:`Differentiable.backward`.
    """
    arrived = _pulled(tensors, gradients, retain_graph, create_graph, None)
    leaves = [(edge.tensor(), grad) for edge, grad in arrived if isinstance(edge, Leaf)]
    # Gradients of many backwards make no graph without end
    realize([t.grad._value for t, _ in leaves if t is not None and t.grad is not None])
    with phase("backward"), _Recording(create_graph):
        for t, grad in leaves:
            if t is not None:
                t.grad = t._of(*(grad if t.grad is None else total((t.grad._value, t.grad._edge), grad)))
    group([*tensors, *(t.grad for t, _ in leaves if t is not None)])


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
         allow_unused: bool = False) -> tuple[Any, ...]:
    """The derivatives of the sum of ``outputs``, each times its entry of ``grad_outputs``, with respect to ``inputs``.

    Nothing is stored in ``grad``.

    Raises:
        DerivativeError: an input does not require grad, or the outputs do not depend on it and ``allow_unused`` is False.
    """
    ys, xs = _several(outputs), _several(inputs)
    if any(x._edge is None for x in xs):
        raise DerivativeError("a derivative with respect to a tensor that does not require grad",
                              remedy="x.requires_grad_() before it is used")
    stop = frozenset(place(x._edge) for x in xs)
    given = None if grad_outputs is None else _several(grad_outputs)
    arrived = {place(e): g for e, g in _pulled(ys, given, retain_graph, create_graph, stop)}
    if not allow_unused and any(place(x._edge) not in arrived for x in xs):
        raise DerivativeError("the outputs do not depend on one of the inputs", remedy="allow_unused=True gives None for it")
    found = tuple(x._of(*arrived[place(x._edge)]) if place(x._edge) in arrived else None for x in xs)
    group([*ys, *(t for t in found if t is not None)])
    return found


def group(tensors: Sequence[Any]) -> None:
    """Let tensors be computed together: they share most of what they are made of."""
    members = [ref(t._value) for t in tensors if t._value.buffer is None]
    for t in tensors:
        if t._value.buffer is None:
            t._value.group = members


def _several(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _pulled(tensors: Sequence[Any], gradients: Sequence[Any] | None, retain: bool | None, create: bool,
            stop: Any) -> list[tuple[Edge, Grad]]:
    if gradients is not None and len(gradients) != len(tensors):
        raise DerivativeError(f"{len(gradients)} gradients for {len(tensors)} tensors")
    with phase("backward"), _Recording(create):
        seeds = [_seed(t, None if gradients is None else gradients[n]) for n, t in enumerate(tensors)]
        hook = type(tensors[0])._of if tensors else None
        arrived = pull(seeds, total, lambda g, fs: _hooked(hook, g, fs), create if retain is None else retain, stop)
        return [(e, _hooked(hook, g, e.hooks) if isinstance(e, Leaf) and e.hooks else g) for e, g in arrived]


def _seed(t: Any, gradient: Any) -> tuple[Edge, Grad]:
    if t._edge is None:
        raise DerivativeError("backward of a tensor that does not require grad", "it was not computed from a tensor that does",
                              "requires_grad=True on what you want gradients of, and no dlc.no_grad() around")
    spec = t._value.spec
    if gradient is None:
        if t.size != 1:
            raise DerivativeError(f"backward of a tensor with {t.size} elements needs a gradient",
                                  remedy="reduce it to one: t.sum().backward()")
        return t._edge, _constant(spec.shape, spec.dtype)
    g = gradient if isinstance(gradient, Differentiable) else type(t)(gradient, spec.dtype)
    if g._value.spec is not spec:
        raise ShapeError(f"the gradient is {g._value.spec}, the tensor {spec}", "a gradient has the tensor's shape and dtype")
    return t._edge, (g._value, g._edge)


def _constant(shape: tuple[int, ...], dtype: Dtype) -> Grad:
    """Ones, as a definition: nothing is written to memory."""
    recorder = Recorder(_ones)
    recorder.constant(dtype)
    recorder.key.append(shape)
    return recorder.finish(lambda: trace_call(_ones, [], lambda _: _ones(shape, dtype)))[0][0]


def _ones(shape: tuple[int, ...], dtype: Dtype) -> Any:
    return build("ones", shape, lambda *at: cast(1, dtype))


def total(a: Grad, b: Grad) -> Grad:
    """The sum of two gradients."""
    recorder = Recorder(add)
    recorder.array(*a)
    recorder.array(*b)
    return recorder.finish(lambda: trace_call(add, [a[0].spec, b[0].spec], lambda inputs: add(*inputs)))[0][0]


def _hooked(wrap: Any, grad: Grad, hooks: Mapping[int, Hook]) -> Grad:
    t = wrap(*grad)
    for hook in list(hooks.values()):
        changed = hook(t)
        t = t if changed is None else changed
    return t._value, t._edge


class _Recording:
    """Whether what is recorded inside is remembered for gradients."""

    def __init__(self, on: bool) -> None:
        self.on, self.before = on, mode.grad

    def __enter__(self) -> None:
        self.before, mode.grad = mode.grad, self.on

    def __exit__(self, *_: object) -> None:
        mode.grad = self.before
