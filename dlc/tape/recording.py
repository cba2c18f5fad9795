"""What is noted while a function is recorded to be run again without its Python: see :mod:`dlc.jit`.

While a recording is on (``mode.recording``), nothing is computed: what would be looked at cannot be, and what would be computed in
passing waits for the end. Noted are the tensors of the world outside that the function reads, those that it makes stand for other numbers,
and the Python that must run at every call all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dlc.tape.graph import Node, Value, next_number
from dlc.tape.mode import mode
from dsl.errors import UserError

T = TypeVar("T")


class Recording:
    """One call of a function, noted.

    Args:
        arguments: the tensors among the arguments; whether they have gradients is known otherwise.
        realize: computes values, outside of any recording.

    Attributes:
        start: the number of the first node made inside.
        nodes: the nodes made inside, in order.
        sources: value -> tensors of the world outside that stood for it, the first that was read first.
        grads: id of a gradient from outside -> the tensor whose gradient it is, and the gradient.
        graded: tensors whose gradient was set, by id.
        replaced: tensors that stand for other numbers now, by id.
        calls: Python that runs at every call, in order.
        live: value -> which of ``calls`` gives its number.
        guards: functions with what they returned: where one returns something else, the recording does not hold any more.
    """

    def __init__(self, arguments: Sequence[Any], realize: Callable[[Sequence[Value]], None]) -> None:
        self.start = next_number()
        self.arguments = frozenset(map(id, arguments))
        self.nodes: list[Node] = []
        self.sources: dict[Value, list[Any]] = {}
        self.grads: dict[int, tuple[Any, Any]] = {}
        self.graded: dict[int, Any] = {}
        self.replaced: dict[int, Any] = {}
        self.calls: list[Callable[[], Any]] = []
        self.live: dict[Value, int] = {}
        self.guards: dict[Any, tuple[Callable[[], Any], Any]] = {}
        self._inner: dict[int, Any] = {}
        self._realize = realize

    def made(self, value: Value) -> bool:
        """Whether a value is made inside."""
        return value.node is not None and value.node.number > self.start

    def read(self, t: Any) -> None:
        """A tensor is read: from now on it is known where its numbers come from.

        Raises:
            UserError: gradients would flow from it out of the function.
        """
        value = t._value
        if self.made(value) or value in self.live:
            return
        known = self.sources.get(value)
        if known is None:
            if value.node is not None:
                self._outside(value)
            if mode.grad and isinstance(t._edge, tuple):
                raise UserError("a tensor from outside of the recorded function was computed from others that require grad",
                                "gradients would flow through it out of the function, which happens once and never again",
                                "detach() it, or compute it inside")
            known = self.sources[value] = []
        if id(t) not in self._inner and all(t is not k for k in known):
            known.append(t)

    def grad_read(self, t: Any) -> None:
        """The gradient of a tensor is looked at: whether there is one decides what is recorded."""
        if id(t) in self.graded:
            return
        if id(t) not in self.arguments:
            self.guard(("grad", id(t)), lambda: t._grad is None)
        if t._grad is not None:
            self.grads[id(t._grad)] = (t, t._grad)
            self.read(t._grad)

    def grad_set(self, t: Any) -> None:
        """A tensor gets another gradient, or none."""
        self.graded[id(t)] = t

    def inside(self, t: Any) -> None:
        """A tensor made inside stands for numbers of the world outside: it is no source of its own."""
        self._inner[id(t)] = t

    def guard(self, key: Any, look: Callable[[], Any]) -> None:
        """What was recorded holds as long as ``look`` returns what it returns now."""
        if key not in self.guards:
            self.guards[key] = (look, look())

    def _outside(self, value: Value) -> None:
        before, mode.recording = mode.recording, None
        try:
            self._realize((value,))
        finally:
            mode.recording = before


def each_call(fn: Callable[[], T]) -> T:
    """What ``fn`` returns; in a recorded function, ``fn`` runs again at every later call, before anything is computed."""
    if mode.recording is not None:
        mode.recording.calls.append(fn)
    return fn()


def guard(key: Any, look: Callable[[], Any]) -> None:
    """In a recorded function: it holds as long as ``look`` returns what it returns now; ``key`` tells guards apart."""
    if mode.recording is not None:
        mode.recording.guard(key, look)


def unreadable(what: str) -> UserError:
    """The error for numbers that are looked at in a recorded function."""
    return UserError(f"{what} is looked at inside of a recorded function", "nothing is computed while dlc.jit records: Python's `if`, "
                     "`while`, float(), print() and numpy() cannot depend on numbers there",
                     "use dlc.where instead of if, return what you want to see, and look at it outside")
