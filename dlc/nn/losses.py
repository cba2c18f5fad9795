"""Losses as modules; as functions they are operations of the language, so they work inside a kernel too."""

from __future__ import annotations

from typing import Any

from dlc.nn.module import Module
from dsl.ops.loss import binary_cross_entropy_with_logits, cross_entropy, huber_loss, l1_loss, mse_loss, nll_loss, smooth_l1_loss


class _Loss(Module):
    """A loss with its settings, such as ``reduction="sum"``."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items())


class MSELoss(_Loss):
    """See :func:`mse_loss`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return mse_loss(x, target, **self.settings)


class L1Loss(_Loss):
    """See :func:`l1_loss`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return l1_loss(x, target, **self.settings)


class SmoothL1Loss(_Loss):
    """See :func:`smooth_l1_loss`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return smooth_l1_loss(x, target, **self.settings)


class HuberLoss(_Loss):
    """See :func:`huber_loss`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return huber_loss(x, target, **self.settings)


class BCEWithLogitsLoss(_Loss):
    """See :func:`binary_cross_entropy_with_logits`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return binary_cross_entropy_with_logits(x, target, **self.settings)


class NLLLoss(_Loss):
    """See :func:`nll_loss`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return nll_loss(x, target, **self.settings)


class CrossEntropyLoss(_Loss):
    """See :func:`cross_entropy`."""

    def forward(self, x: Any, target: Any) -> Any:
        """The loss."""
        return cross_entropy(x, target, **self.settings)
