"""Optimisers whose update is a generated kernel, one launch for all parameters; learning-rate schedules; clipping of gradients."""

from dlc.optim.clip import clip_grad_norm_, clip_grad_value_
from dlc.optim.optimizers import SGD, Adam, AdamW, Optimizer
from dlc.optim.schedules import ConstantLR, CosineLR, LRScheduler, SequentialLR, StepLR, WarmupLR

__all__ = ["SGD", "Adam", "AdamW", "ConstantLR", "CosineLR", "LRScheduler", "Optimizer", "SequentialLR", "StepLR", "WarmupLR",
           "clip_grad_norm_", "clip_grad_value_"]
