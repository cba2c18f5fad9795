"""``@dlc.jit``: a function of tensors, recorded once for each kind of arguments and run again without its Python.

The first call with arguments of some kind runs the function as it is. The second records it: every operation, what it reads of the world
outside (weights, states of an optimiser), which tensors it makes stand for other numbers. Everything is cut into kernels as one graph.
Later calls launch those kernels: they read the tensors where they stand then, and put the results back in their places, in the same
memory where nobody else holds it.

What is recorded is the Python of one call. Its decisions stay as they were, so they must not depend on numbers; what must run every time
(a counter, a rate) goes through :func:`dlc.each_call`, as the optimisers', the schedules' and dropout's do.
"""

from __future__ import annotations

import functools
import gc
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlc.config import settings
from dlc.lazy import lazy
from dlc.realize import Collected, realize
from dlc.replay import Replay
from dlc.tape import Recording, Value
from dlc.tape.mode import mode
from dlc.tensor import Tensor
from dlc.tensor.convert import wrap
from dlc.tensor.tensor import of_memory
from dlc.trees import mapped, rebuilt, tensors
from dsl.errors import ArgumentError, UserError

if TYPE_CHECKING:
    from dlc.tune import steps
else:
    steps = lazy("dlc.tune.steps")

_MANY = 16  # recordings of one function from which on somebody is told


class Jit:
    """A function that is recorded and run again; :func:`jit` makes it.

    Args:
        fn: the function, or anything else that can be called.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())
        self._lock = threading.RLock()
        self._known: dict[Any, list[Replay]] = {}
        self._bound: weakref.WeakKeyDictionary[Any, Jit] = weakref.WeakKeyDictionary()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function, its recording, or record it.

        Arrays of other libraries among the arguments arrive as tensors over the same memory. The results carry no graph: gradients
        are taken inside.

        Raises:
            UserError: while recording: numbers were looked at, a tensor made inside was kept outside, or an argument carries a graph.
        """
        if mode.recording is not None:
            return self.fn(*args, **kwargs)
        key, arguments, (args, kwargs) = _arguments(args, kwargs)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                self._known[key] = []
                return _plainly(self.fn, args, kwargs)
            for n, replay in enumerate(known):
                memory = replay.memory(arguments)
                if memory is not None:
                    if n:
                        known.insert(0, known.pop(n))
                    return replay.run(memory, arguments)
            replay, result = _recorded(self.fn, args, kwargs, arguments)
            known[:] = [replay, *known[:_MANY - 1]]
            self._tell()
            return result

    def tune(self, *args: Any, budget: float = 60.0, reproducible: bool = True, candidates: int | None = None, again: bool = False,
             progress: bool | None = None, seed: int = 0) -> steps.StepReport:
        """Search for faster schedules of the kernels that the function launches, those that take most of its time first, and use them.

        Every recording and every other graph that launches these kernels uses them at once, later processes too. Where the function has
        no recording for these arguments yet it is called until it has, and once more to see what its kernels work on: a step of training
        makes one to three updates here. What is measured after that changes nothing.

        Args:
            args: as for a call.
            budget: seconds for everything.
            reproducible: admit only schedules that keep the default's order of every sum, and the bits of its results; False also admits
                other orders of summation, within four times the default's error against float64.
            candidates: try no more than so many for a kernel; None for as many as its share of the budget allows.
            again: search anew for kernels that have a record of this machine already.
            progress: whether to show a progress bar; None where standard error is a terminal.
            seed: of the searches.

        Raises:
            UserError: the function launches no kernels, keeps no recording for these arguments, or records are switched off.
        """
        wish = steps.Wish(budget, reproducible, candidates, again, progress, seed)
        if mode.recording is not None:
            raise UserError(f"{self._title} is tuned inside of a function that is recorded", remedy="tune it outside, or tune that one")
        if mode.untuned or not settings().records:
            raise UserError("tuning records are switched off, and what is found would not be used", remedy="unset DLC_RECORDS")
        with self._lock:
            replay, memory, result = self._ready(args)
            if not replay.launches:
                raise ArgumentError(f"{self._title} launches no kernels that could be tuned", "it computes nothing from tensors",
                                    "tune a function of dlc.Tensor; a kernel is tuned by kernel.tune(...)")
            return replace(replay.tune(self._title, memory, wish), result=result)

    def _ready(self, args: Any) -> tuple[Replay, list[torch.Tensor], Any]:
        """A recording for these arguments, the arrays that a call of it has read, and its result."""
        for _ in range(3):
            key, arguments, (given, named) = _arguments(args, {})
            for replay in self._known.get(key, ()):
                memory = replay.memory(arguments)
                if memory is not None:
                    return replay, memory, replay.run(memory, arguments)
            self(*given, **named)
        raise ArgumentError(f"{self._title} is recorded anew at every call with these arguments",
                            remedy="see what changes from call to call: the modules' modes, the optimiser's settings")

    @property
    def _title(self) -> str:
        return str(getattr(self, "__name__", None) or "the function")

    def _tell(self) -> None:
        count = self.recordings
        if count == _MANY:
            warnings.warn(f"dlc: {self._title} was recorded {count} times, for every kind of its arguments "
                          "and every value of its numbers; numbers that keep changing are better given as arrays without dimensions",
                          stacklevel=4)

    @property
    def recordings(self) -> int:
        """How many recordings are kept."""
        return sum(map(len, self._known.values()))

    @property
    def memory(self) -> int:
        """Bytes of the buffers that the recordings keep for what passes between their kernels; :meth:`forget` gives them back."""
        return sum(replay.bytes for known in self._known.values() for replay in known)

    def forget(self) -> None:
        """Drop every recording, and the memory that it keeps: the next calls begin anew."""
        with self._lock:
            self._known.clear()

    def __get__(self, owner: Any, kind: type | None = None) -> Jit:
        """As a method: recorded for each object by itself."""
        if owner is None:
            return self
        bound = self._bound.get(owner)
        if bound is None:
            bound = self._bound[owner] = Jit(types.MethodType(self.fn, owner))
        return bound

    def __repr__(self) -> str:
        return f"<dlc.jit of {getattr(self, '__qualname__', self.fn)!s}, {self.recordings} recordings>"


def jit(fn: Callable[..., Any]) -> Jit:
    """Record a function of tensors at its second call with arguments of some kind, and launch what was recorded from then on.

    A kind is the shapes, strides and dtypes of the arrays among the arguments, the values of everything else, and the number of
    threads. What the function reads besides its arguments are the tensors that stood there when it was recorded; it is recorded
    again when a module it calls changes between training and use or gets other parameters, and when an optimiser's settings other
    than the rate change.
    """
    return Jit(fn)


def _plainly(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The function as it is; its results computed, without their graph."""
    result = fn(*args, **kwargs)
    realize([t._value for t in tensors(result)])
    return mapped(result, lambda t: t.detach())


def _recorded(fn: Callable[..., Any], args: Any, kwargs: Any, arguments: Sequence[Tensor]) -> tuple[Replay, Any]:
    """Record a call, and run what was recorded."""
    recording = mode.recording = Recording(arguments, realize)
    try:
        for t in arguments:
            recording.read(t)
        result = fn(*args, **kwargs)
        del args, kwargs
    finally:
        mode.recording = None
    result = mapped(result, lambda t: t if t._edge is None else Tensor._of(t._value, None))
    for node in recording.nodes:
        node.release()  # nobody can walk the graph from here on
    grads = [t.grad for t in recording.graded.values() if t.grad is not None]
    wanted = list(dict.fromkeys([t._value for t in (*recording.replaced.values(), *tensors(result), *grads)]))
    _refuse_kept(recording, wanted)
    collected = Collected(wanted)
    plan = collected.plan()
    replay = Replay(recording, collected, plan, arguments, result)
    collected.fill(plan.run(collected.memory))
    return replay, result


def _refuse_kept(recording: Recording, wanted: Sequence[Value]) -> None:
    """An error where a tensor made inside is held outside, other than as a result: later calls would not renew it.

    Raises:
        UserError: there is one.
    """
    for again in (True, False):
        kept = _kept(recording, wanted)
        if kept is None:
            return
        if again:
            gc.collect()
    raise UserError(f"a result of `{kept}`, made inside of the recorded function, is kept outside",
                    "later calls launch what was recorded, and would not renew it",
                    "return it; or let a tensor from outside stand for it: t.replace(new)")


def _kept(recording: Recording, wanted: Sequence[Value]) -> str | None:
    """The name of an operation whose result somebody holds."""
    known = set(wanted)
    for node in recording.nodes:
        for found in node.results.values():
            value = found()
            if value is not None and value.handles > 0 and value not in known and value.buffer is None:
                return node.template.name
    return None


def _arguments(args: Any, kwargs: Any) -> tuple[Any, list[Tensor], tuple[Any, Any]]:
    """(kind of the arguments, the tensors among them, the arguments with arrays as tensors)."""
    found: list[Tensor] = []
    key: list[Any] = [mode.grad, mode.untuned, torch.get_num_threads()]

    def one(a: Any) -> Any:
        if isinstance(a, (torch.Tensor, np.ndarray)):
            a = of_memory(wrap(a))
        if isinstance(a, Tensor):
            if isinstance(a._edge, tuple) and mode.grad:
                raise ArgumentError("an argument of a jitted function was computed from tensors that require grad",
                                    "gradients are taken inside of the function", "detach() it, or compute it inside")
            if a._value.buffer is None:
                realize((a._value,))
            assert a._value.buffer is not None
            place = next((n for n, t in enumerate(found) if t is a), None)
            key.append((a._value.spec, a._value.buffer.stride(), a._edge is None, a._grad is None, place))
            if place is None:
                found.append(a)
            return a
        if isinstance(a, (tuple, list, dict)):
            key.append((type(a), tuple(a) if isinstance(a, dict) else len(a)))
            return rebuilt(a, one)
        try:
            hash(a)
        except TypeError:
            raise ArgumentError(f"a {type(a).__name__} among the arguments of a jitted function",
                                remedy="arrays, tuples, lists and dicts of them, and what can be hashed are possible") from None
        key.append((type(a), repr(a) if isinstance(a, float) else a))
        return a

    converted = one(tuple(args)), one(kwargs)
    return tuple(key), found, converted
