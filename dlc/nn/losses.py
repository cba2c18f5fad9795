"""Losses as modules; as functions they are operations of the language, so they work inside a kernel too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dlc.nn.module import Module
from dsl.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)


class _Loss(Module):
    """A loss with its settings, such as ``reduction="sum"``."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return type(self).function(x, target, **self.settings)

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items())


class MSELoss(_Loss):
    """See :func:`mse_loss`."""

    function = staticmethod(mse_loss)


class L1Loss(_Loss):
    """See :func:`l1_loss`."""

    function = staticmethod(l1_loss)


class SmoothL1Loss(_Loss):
    """See :func:`smooth_l1_loss`."""

    function = staticmethod(smooth_l1_loss)


class HuberLoss(_Loss):
    """See :func:`huber_loss`."""

    function = staticmethod(huber_loss)


class BCELoss(_Loss):
    """See :func:`binary_cross_entropy`."""

    function = staticmethod(binary_cross_entropy)


class BCEWithLogitsLoss(_Loss):
    """See :func:`binary_cross_entropy_with_logits`."""

    function = staticmethod(binary_cross_entropy_with_logits)


class KLDivLoss(_Loss):
    """See :func:`kl_div`."""

    function = staticmethod(kl_div)


class NLLLoss(_Loss):
    """See :func:`nll_loss`."""

    function = staticmethod(nll_loss)


class CrossEntropyLoss(_Loss):
    """See :func:`cross_entropy`."""

    function = staticmethod(cross_entropy)
