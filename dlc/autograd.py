"""Derived kernels inside torch autograd and torch.func."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dlc.derivatives import Followed

Launcher = Callable[..., Any]


class Derived(torch.autograd.Function):
    """Runs a kernel forward and its derived kernels backward; differentiable again, since those are kernels too."""

    @staticmethod
    def forward(call: Followed, launcher: Launcher | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The results of the kernel, then what is saved."""
        return call.run(launcher, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        """Keep what the backward reads, and what forward mode does."""
        call, _, *tensors = inputs
        ctx.call, ctx.made = call, len(output)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*call.keep(tensors, output))
        ctx.save_for_forward(*tensors)
        if call.silent:
            ctx.mark_non_differentiable(*[output[n] for n in call.silent])

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """The gradients."""
        grads: tuple[torch.Tensor | None, ...] = ctx.call.gradients(ctx.needs_input_grad[2:], cotangents, ctx.saved_tensors)
        return (None, None, *grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Run the forward derivative along the inputs that move."""
        call = ctx.call
        outputs = call.derived.kernel.program.outputs
        moving = tuple(n for n, t in enumerate(tangents[2:]) if t is not None)
        kernel, read = call.derived.pushforward(moving)
        values = ctx.saved_tensors
        found = kernel(*(values[n] for n in read), *(t for t in tangents[2:] if t is not None))
        moved = iter([found] if kernel.program.single else found)
        return (*(next(moved) if t.dtype.is_float else None for t in outputs), *[None] * (ctx.made - len(outputs)))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], call: Followed, launcher: Launcher | None,
             *tensors: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        """The kernel over the mapped dimension as its first."""
        dims = in_dims[2:]
        kernel = call.derived.batched(tuple(d is not None for d in dims))
        found = kernel(*(t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims)))
        results = (found,) if kernel.program.single else tuple(found)
        return results, (0,) * len(results)


class Plain(torch.autograd.Function):
    """The same for backward mode alone, outside of torch.func and forward mode: nothing is kept for what cannot be asked for."""

    @staticmethod
    def forward(ctx: Any, call: Followed, launcher: Launcher | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The results of the kernel, then what is saved."""
        made = call.run(launcher, tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*call.keep(tensors, made))
        if call.silent:
            ctx.mark_non_differentiable(*[made[n] for n in call.silent])
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """The gradients."""
        grads: tuple[torch.Tensor | None, ...] = ctx.call.gradients(ctx.needs_input_grad[2:], cotangents, ctx.saved_tensors)
        return (None, None, *grads)


#: What ``Plain.apply`` comes to where no tensor is one of torch.func's, without the Python that looks whether one is.
_apply: Callable[..., tuple[torch.Tensor, ...]] = super(torch.autograd.Function, Plain).apply


def record(call: Followed, launcher: Launcher | None, tensors: Sequence[torch.Tensor]) -> Any:
    """The results of a call with tensors that autograd follows, and no transform or mode of torch's."""
    if torch._C._are_functorch_transforms_active():
        return transform(call, launcher, tensors)
    made = _apply(call, launcher, *tensors)
    return made[0] if call.single else made[:call.results]


def transform(call: Followed, launcher: Launcher | None, tensors: Sequence[torch.Tensor]) -> Any:
    """The results of a call that any transform or mode of torch's may follow."""
    made = Derived.apply(call, launcher, *tensors)
    return made[0] if call.single else made[:call.results]
