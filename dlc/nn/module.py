"""Module: parameters and other modules under names, and what is done to all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from dlc.tape import guard
from dlc.tensor import Tensor
from dsl.dtype import Dtype
from dsl.errors import ArgumentError

Self = TypeVar("Self", bound="Module")
_STATE = attrgetter("training", "rebound")


class Parameter(Tensor):
    """A tensor that a module learns: found by :meth:`Module.parameters`, and requiring grad."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Dtype | None = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype, requires_grad)


class Module:
    """A part of a model. A subclass makes its parts in its constructor, as attributes, and computes in :meth:`forward`.

    Attributes that are a :class:`Parameter` are learned; those that are another module are parts; any other :class:`dlc.Tensor` is a
    buffer: saved with the model, not learned.
    """

    training: bool = True
    rebound: int = 0  #: how often a tensor or a part took the place of another as an attribute

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, (Tensor, Module)):
            self.__dict__["rebound"] = self.rebound + 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run :meth:`forward`."""
        guard(self, partial(_STATE, self))
        return self.forward(*args, **kwargs)

    # -- parts -------------------------------------------------------------------------------------------------
    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes, with their names."""
        return ((name, m) for name, m in vars(self).items() if isinstance(m, Module))

    def children(self) -> Iterator[Module]:
        """The modules that are attributes."""
        return (m for _, m in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """The module itself and everything below, with dotted names."""
        yield prefix, self
        for name, m in self.named_children():
            yield from m.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """The module itself and everything below."""
        return (m for _, m in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter, once, with its dotted name."""
        seen: set[int] = set()
        for name, t in self._named_tensors():
            if isinstance(t, Parameter) and id(t) not in seen:
                seen.add(id(t))
                yield name, t

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that is saved but not learned, with its dotted name."""
        return ((name, t) for name, t in self._named_tensors() if not isinstance(t, Parameter))

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, m in self.named_modules():
            for name, t in vars(m).items():
                if isinstance(t, Tensor):
                    yield f"{prefix}.{name}" if prefix else name, t

    # -- all at once -------------------------------------------------------------------------------------------
    def train(self: Self, on: bool = True) -> Self:
        """Behave as in training (dropout, statistics of the batch), or not; returns the module."""
        for m in self.modules():
            m.training = on
        return self

    def eval(self: Self) -> Self:
        """Behave as in use."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.zero_grad()

    def requires_grad_(self: Self, on: bool = True) -> Self:
        """Learn all parameters, or freeze them."""
        for p in self.parameters():
            p.requires_grad_(on)
        return self

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call a function with every module, parts first."""
        for m in self.children():
            m.apply(fn)
        fn(self)
        return self

    def to(self: Self, dtype: Dtype) -> Self:
        """Hold all floats in another dtype; gradients are forgotten."""
        for m in self.modules():
            for name, t in list(vars(m).items()):
                if isinstance(t, Tensor) and t.dtype.is_float:
                    new = t.detach().to(dtype).realize()
                    setattr(m, name, Parameter(new, requires_grad=t.requires_grad) if isinstance(t, Parameter) else new)
        return self

    # -- saving ------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its dotted name."""
        return {name: t.detach() for name, t in self._named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take the values of a state, ours or torch's: tensors or arrays by name.

        Args:
            state: arrays by dotted name.
            strict: refuse names that the module lacks, and a state that lacks names.

        Raises:
            ArgumentError: names are missing or left over, or a shape differs.
        """
        own = dict(self._named_tensors())
        missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
        if strict and (missing or unknown):
            raise ArgumentError("the state is that of another module",
                                "\n".join([*(f"it lacks {n}" for n in missing), *(f"it has {n}" for n in unknown)]),
                                "strict=False takes what fits")
        for name, value in state.items():
            if name in own:
                new = Tensor(value, own[name].dtype)
                if new.shape != own[name].shape:
                    raise ArgumentError(f"{name} has shape {list(own[name].shape)}, the state {list(new.shape)}")
                own[name].replace(new)

    # -- reading -----------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """What is told in the first line of the module's text."""
        return ""

    def __repr__(self) -> str:
        parts = [f"  ({name}): " + repr(m).replace("\n", "\n  ") for name, m in self.named_children()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + "\n" + "\n".join(parts) + "\n)" if parts else head + ")"


