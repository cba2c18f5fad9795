"""A recording of a function of tensors, ready to run: what it reads and where that stands, what it puts back, what it returns."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from sys import getrefcount
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch

from dlc.lazy import lazy
from dlc.realize import Collected, Frozen, Plan, Step
from dlc.tape import Recording, Value
from dlc.tensor import Tensor
from dlc.tensor.create import memory_of
from dlc.tensor.tensor import of_memory
from dlc.trees import Slot, Tree, filled, mapped, tensors

if TYPE_CHECKING:
    from dlc.realize import tuning
    from dlc.tune.steps import StepReport, Wish
else:
    tuning = lazy("dlc.realize.tuning")


class Replay:
    """A recording, ready to run.

    Args:
        recording: what was noted.
        collected: the graph.
        arguments: the tensors among the arguments.
        result: what the function returned.
    """

    def __init__(self, recording: Recording, collected: Collected, plan: Plan, arguments: Sequence[Tensor], result: Tree) -> None:
        self._plan, self.calls, self.guards = plan, recording.calls, list(recording.guards.values())
        self._positions = {value: n for n, value in enumerate(_values(collected))}
        self._read = len(collected.memory)
        grads = [t.grad for t in recording.graded.values() if t.grad is not None]
        beside = [t._value for t in (*tensors(result), *recording.replaced.values(), *grads) if t._value not in self._positions]
        self._passed = {value: n for n, value in enumerate(dict.fromkeys([*collected.given, *beside]))}
        self._given = [(_source(value, recording, arguments), value.buffer.stride()) for value in self._passed]
        self._shared = [own for own in recording.sources.values() if len(own) > 1]
        self._beside = set[int]()
        self._replaced = [(_owner(t, arguments), self._place(t._value)) for t in recording.replaced.values()]
        self._graded = [(_owner(t, arguments), None if t.grad is None else (self._place(t.grad._value), t.grad._value.spec))
                        for t in recording.graded.values()]
        self._result = mapped(result, lambda t: Slot(self._place(t._value), t._value.spec))
        self._renewed = self._in_their_places()
        self._own: dict[int, ref[Value]] = {}
        del self._positions, self._passed  # values hold the memory of the first results

    def _place(self, value: Value) -> tuple[bool, int]:
        """(whether it is computed, number among the results or the arrays given)."""
        if value in self._positions:
            return True, self._positions[value]
        self._beside.add(self._passed[value])
        return False, self._passed[value]

    def _in_their_places(self) -> list[tuple[Tensor, int, int]]:
        """Tensors from outside that are read and then made to stand for a result: with the numbers of that array and of the result."""
        read = {id(what): n for n, ((kind, what), _) in enumerate(self._given[:self._read]) if kind == "tensor" and n not in self._beside}
        return [(t, read[id(t)], at) for (kind, t), (computed, at) in self._replaced if kind == "tensor" and computed and id(t) in read]

    @functools.cached_property
    def frozen(self) -> Frozen:
        """The plan with memory of its own, from the first call on that runs it."""
        return Frozen(self._plan)

    @property
    def bytes(self) -> int:
        """Of that memory, once there is any."""
        return self.frozen.bytes if "frozen" in vars(self) else 0

    @property
    def launches(self) -> int:
        """Of kernels, in every call."""
        return sum(isinstance(step, Step) for step in self._plan.steps)

    def tune(self, name: str, memory: Sequence[torch.Tensor], wish: Wish) -> StepReport:
        """Tune its kernels, on the arrays that a call has read."""
        return tuning.tune_step(name, self.frozen, memory[:self._read], wish)

    def memory(self, arguments: Sequence[Tensor]) -> list[torch.Tensor] | None:
        """What the plan reads; None where the recording does not hold any more. What ``calls`` gives is still missing."""
        if not self._holds():
            return None
        out: list[torch.Tensor] = []
        for (kind, what), strides in self._given:
            if kind == "memory":
                buffer = what
            elif kind == "live":
                buffer = None
            else:
                t = _found(what, arguments).grad if kind == "grad" else _found((kind, what), arguments)
                buffer = None if t is None else t.realize()._value.buffer
                if buffer is None or buffer.stride() != strides:
                    return None
            out.append(buffer)
        return out

    def _holds(self) -> bool:
        """Whether the world outside is what it was, as far as it was looked at."""
        if any([look() != seen for look, seen in self.guards]):
            return False
        return all([t._value is own[0]._value for own in self._shared for t in own])

    def run(self, memory: list[torch.Tensor], arguments: Sequence[Tensor]) -> Any:
        """Launch the kernels, put the new numbers in their places; the results."""
        live = [fn() for fn in self.calls]
        for n, ((kind, what), _) in enumerate(self._given):
            if kind == "live":
                memory[n] = memory_of(live[what])
        values = self._written_over()
        over = {number: v.buffer for (_, number), v in values.items() if v.buffer is not None}
        results = self.frozen.run(memory[:self._read], over)

        def value(place: tuple[bool, int], spec: Any) -> Value:
            found = values.get(place)
            if found is None:
                found = values[place] = Value(spec, None, 0, results[place[1]] if place[0] else memory[place[1]])
            return found

        for owner, place in self._replaced:
            t = _found(owner, arguments)
            if place in values and values[place] is t._value:
                continue
            t._value.handles -= 1
            t._value = value(place, t._value.spec)
            t._value.handles += 1
        for t, _, number in self._renewed:
            if number not in over:
                self._own[number] = ref(t._value)
        for owner, made in self._graded:
            _found(owner, arguments).grad = None if made is None else Tensor._of(value(*made), None)
        return filled(self._result, lambda slot: Tensor._of(value(slot.place, slot.spec), None))

    def _written_over(self) -> dict[tuple[bool, int], Value]:
        """Values that an earlier call has made and that nobody holds but the tensors that stand for them: where results are put.

        Whoever looks at a tensor's numbers, by whatever library, holds them: then a result gets memory of its own.
        """
        over, alone = self.frozen.over(), _alone()
        found = {}
        for t, given, number in self._renewed:
            own = self._own.get(number)
            if own is not None and own() is t._value and (given, number) in over and _references(t) == alone:
                found[True, number] = t._value
        return found


def _references(t: Tensor) -> tuple[int, ...]:
    """How many there are to a tensor's value and to its memory, on every level on which they are counted."""
    v = t._value
    memory = v.buffer
    assert memory is not None
    return getrefcount(v), getrefcount(memory), memory._use_count(), torch._C._storage_Use_Count(memory.untyped_storage()._cdata)


@functools.cache
def _alone() -> tuple[int, ...]:
    """The references to what nobody holds but its tensor and the list of arrays that a call reads."""
    t = of_memory(torch.empty(1))
    arrays = [t._value.buffer]
    return _references(t) if arrays else ()


def _values(collected: Collected) -> list[Value]:
    return [collected.nodes[n].value(index) for n, index in collected.wanted]


def _source(value: Value, recording: Recording, arguments: Sequence[Tensor]) -> tuple[str, Any]:
    """Where the memory of a value comes from at a later call."""
    if value in recording.live:
        return "live", recording.live[value]
    own = recording.sources.get(value)
    if not own:
        return "memory", value.buffer
    t = own[0]
    if id(t) in recording.grads:
        return "grad", _owner(recording.grads[id(t)][0], arguments)
    return _owner(t, arguments)


def _owner(t: Tensor, arguments: Sequence[Tensor]) -> tuple[str, Any]:
    """A tensor, or which of the arguments it is."""
    at = next((n for n, a in enumerate(arguments) if a is t), None)
    return ("tensor", t) if at is None else ("argument", at)


def _found(owner: tuple[str, Any], arguments: Sequence[Tensor]) -> Tensor:
    kind, what = owner
    return arguments[what] if kind == "argument" else what
