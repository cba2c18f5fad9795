"""The calls of a case in their variants: as in real use, with memory for the results given, and, for a kernel, tuned."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from dlc.host import cpus
from dlc.kernel import Kernel
from dlc.tune.measure import describe

Function = Callable[..., object]


class NoVariant(Exception):  # noqa: N818  (no error: the library has no such way of being called)
    """A function has no form that takes memory for its results, or nothing to tune."""


@runtime_checkable
class Tunable(Protocol):
    """A call of ours that can be tuned."""

    def __call__(self) -> object:
        """The results, by the default schedules."""

    def tuned(self, budget: float, operands: str = "cold") -> Tunable:
        """The same, tuned at its first call with operands in that state; raises :class:`NoVariant` where that is impossible."""


@dataclass(frozen=True)
class Bound:
    """A function of operands with its operands.

    ``function`` is a :class:`dlc.kernel.Kernel`, an :class:`Adapted` one, one with :class:`Constant` operands, a :class:`Compiled`
    function, or a plain function of torch's.
    """

    function: Function
    operands: tuple[torch.Tensor, ...]

    def __call__(self) -> object:
        """The results, in memory of their own."""
        return self.function(*self.operands)

    def into(self) -> Callable[[], object]:
        """The same into memory that the first call allocates; raises :class:`NoVariant` there if that is impossible."""
        return _Into(self)

    def made(self) -> Bound:
        """The same without the way to what the first call made for as many threads as there are: a tuned kernel, a compiled function."""
        function = self.function
        if isinstance(function, Adapted):
            inner = Bound(function.kernel, function.before(*self.operands)).made()
            return Bound(Adapted(inner.function, function.before, function.after), self.operands)
        if isinstance(function, Tuned):
            return Bound(function.on(self.operands), self.operands)
        return Bound(function.on(), self.operands) if isinstance(function, Compiled) else self

    def tuned(self, budget: float, operands: str = "cold") -> Bound:
        """The same kernel tuned for the operands, for ``budget`` seconds at the first call on each number of threads.

        Args:
            budget: seconds.
            operands: where they are while it is tuned, see :meth:`dlc.kernel.Kernel.tune`.

        Raises:
            NoVariant: it is no kernel.
        """
        if isinstance(self.function, Kernel):
            return Bound(Tuned(self.function, budget, operands), self.operands)
        if isinstance(self.function, Adapted):
            inner = Bound(self.function.kernel, self.function.before(*self.operands)).tuned(budget, operands)
            return Bound(Adapted(inner.function, self.function.before, self.function.after), self.operands)
        raise NoVariant("not a kernel")


@dataclass(frozen=True)
class Adapted:
    """A kernel whose arguments and results are views of the case's, other axes in another order, say."""

    kernel: Function
    before: Callable[..., tuple[torch.Tensor, ...]]
    after: Callable[[Any], Any]

    def __call__(self, *operands: torch.Tensor) -> object:
        """The results as the case wants them."""
        return self.after(self.kernel(*self.before(*operands)))


class Constant:
    """A kernel whose operands from the second on are constant: bound to it when they are first met, and packed."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._bound: Any = None
        self._of: tuple[torch.Tensor, ...] = ()

    def on(self, operands: Sequence[torch.Tensor]) -> Any:
        """The kernel with these constants."""
        constants = tuple(operands[1:])
        if len(self._of) != len(constants) or any(a is not b for a, b in zip(self._of, constants)):
            names = [t.name for t in self.kernel.program.inputs[1:]]
            self._bound, self._of = self.kernel.bind(**dict(zip(names, constants))), constants
        return self._bound

    def __call__(self, *operands: torch.Tensor) -> object:
        """The results."""
        return self.on(operands)(operands[0])


class Tuned:
    """A kernel, tuned where it is first called; for every number of threads by itself."""

    def __init__(self, kernel: Kernel, budget: float, operands: str) -> None:
        self.kernel, self.budget, self.operands = kernel, budget, operands
        self._made: dict[int, Kernel] = {}

    def on(self, operands: Sequence[torch.Tensor]) -> Kernel:
        """The kernel for the threads that there are now."""
        threads = torch.get_num_threads()
        if threads not in self._made:
            made = self._made[threads] = copy.copy(self.kernel)
            made.decisions = made.tune(*operands, budget=self.budget, operands=self.operands, progress=False).record.decisions
        return self._made[threads]

    def __call__(self, *operands: torch.Tensor) -> object:
        """The results."""
        return self.on(operands)(*operands)


def untuned(function: Function) -> Function:
    """A kernel with the heuristics' own schedule, whatever tuning records lie on this machine; anything else as it is."""
    if isinstance(function, Adapted):
        return Adapted(untuned(function.kernel), function.before, function.after)
    if isinstance(function, Constant):
        return Constant(untuned(function.kernel))  # type: ignore[arg-type]  # of a kernel that is one
    if not isinstance(function, Kernel):
        return function
    out = copy.copy(function)
    out.decisions = {}
    return out


_numbers = itertools.count()


class Compiled:
    """``torch.compile(function)``, made when it is first called: it costs seconds and wants a C++ compiler.

    Shapes are constants in it, so is the number of threads: it is made anew for every one. The function compiled has code of its
    own, since torch.compile gives up on code that it has met in too many shapes.
    """

    def __init__(self, function: Function, **options: Any) -> None:
        self.function, self.options = function, {"dynamic": False, **options}
        self._made: dict[int, Function] = {}

    def on(self) -> Function:
        """What was compiled for the threads that there are now."""
        threads = torch.get_num_threads()
        made = self._made.get(threads)
        if made is None:
            made = self._made[threads] = torch.compile(_own_code(self.function), **self.options)
        return made

    def __call__(self, *operands: Any) -> object:
        """The results."""
        return self.on()(*operands)

    def into(self) -> Compiled:
        """A function of the results' memory and the operands."""
        function: Callable[..., Any] = self.function

        def filled(out: Any, *operands: Any) -> object:
            results = function(*operands)
            if isinstance(results, torch.Tensor):
                return out.copy_(results)
            for o, r in zip(out, results):
                o.copy_(r)
            return out

        return Compiled(filled, **self.options)


def _own_code(function: Function) -> Function:
    def call(*operands: Any) -> object:
        return function(*operands)

    code = call.__code__.replace(co_name=f"call_{next(_numbers)}")
    return types.FunctionType(code, call.__globals__, code.co_name, None, call.__closure__)


class _Into:
    """A call that writes to memory it has kept from its first time."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound

    def __call__(self) -> object:
        return self._call()

    @cached_property
    def _call(self) -> Callable[[], object]:
        function, operands = self.bound.function, self.bound.operands
        if isinstance(function, Adapted):
            inner = Bound(function.kernel, function.before(*operands)).into()
            return lambda: function.after(inner())
        if isinstance(function, Constant):
            bound = function.on(operands)
            kept = bound(operands[0])
            return lambda: bound(operands[0], out=kept)
        if isinstance(function, (Kernel, Tuned)):
            kernel = function.on(operands) if isinstance(function, Tuned) else function
            out = kernel(*operands)
            return lambda: kernel(*operands, out=out)
        if isinstance(function, Compiled):
            given, filled = function(*operands), function.into()
            return lambda: filled(given, *operands)
        graph, given = out_form(function, operands), function(*operands)
        return lambda: graph(given, *operands)


def out_form(function: Function, operands: Sequence[torch.Tensor]) -> GraphModule:
    """A function of torch's as a graph of its operations, the last of which writes to the first argument.

    Raises:
        NoVariant: it has several results, or its last operation cannot write to memory given (or would copy what it computed elsewhere).
    """
    try:
        made = make_fx(function)(*operands)
    except Exception as e:
        raise NoVariant(describe(e)) from e
    graph = made.graph
    last = next(n for n in graph.nodes if n.op == "output")
    (result,) = last.args
    target = getattr(result, "target", None)
    if not isinstance(target, torch._ops.OpOverload):
        raise NoVariant("several results")
    with graph.inserting_before(next(iter(graph.nodes))):
        out = graph.placeholder("out")
    with graph.inserting_before(last):
        if target in (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default):
            filled = graph.call_function(torch.ops.aten.copy_.default, (out, result.args[0]))
        else:
            filled = graph.call_function(_with_out(target), result.args, {**result.kwargs, "out": out})
    last.args = (filled,)
    graph.erase_node(result)
    return GraphModule(made, graph)


def _with_out(target: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """The overload that takes ``out`` and is written for CPUs (the generic ones compute elsewhere and copy)."""
    names = [a.name for a in target._schema.arguments]
    for overload in target.overloadpacket.overloads():
        found: torch._ops.OpOverload = getattr(target.overloadpacket, overload)
        own = [a.name for a in found._schema.arguments]
        if own == [*names, "out"] and torch._C._dispatch_has_kernel_for_dispatch_key(found.name(), "CPU"):
            return found
    raise NoVariant(f"{target} takes no memory for its result")


def absent(peers: Sequence[str]) -> dict[str, str]:
    """Which of the peers cannot run here, and why."""
    found: dict[str, str] = {}
    if "jax" in peers and importlib.util.find_spec("jax") is None:
        found["jax"] = "JAX is not installed"
    compiled = [p for p in peers if p in ("compile", "autotune")]
    if compiled and (why := _no_compiler()) is not None:
        found |= dict.fromkeys(compiled, why)
    return found


def compiles() -> bool:
    """Whether torch.compile finds a C++ compiler."""
    return _no_compiler() is None


def _no_compiler() -> str | None:
    """Why torch.compile has no C++ compiler here; None where it has."""
    from torch._inductor import cpp_builder, exc  # noqa: PLC0415  (a second of imports, for those who ask)
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return f"torch.compile finds no C++ compiler (CXX is {os.environ.get('CXX', 'not set')})"
    return None


class _Later:
    """A module that is imported when something of it is asked for: not everybody has it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


jax, jnp = _Later("jax"), _Later("jax.numpy")


class Jax:
    """A function of JAX's, compiled, of operands taken over without a copy where they are contiguous.

    JAX computes with all cores, so that on fewer threads it raises :class:`NoVariant`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._seen: dict[object, tuple[torch.Tensor, Any]] = {}

    @cached_property
    def _jitted(self) -> Callable[..., Any]:
        return jax.jit(self.function)

    def __call__(self, *operands: torch.Tensor) -> object:
        """The results, when they are there."""
        if torch.get_num_threads() != cpus():
            raise NoVariant("JAX takes all cores")
        return jax.block_until_ready(self._jitted(*map(self._taken, operands)))

    def _taken(self, t: torch.Tensor) -> Any:
        key = t.data_ptr(), t.shape, t.stride(), t.dtype
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = (t, jax.dlpack.from_dlpack(t.detach().contiguous()))
        return found[1]
