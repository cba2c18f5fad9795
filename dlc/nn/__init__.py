"""Models: modules with parameters, layers, losses and initialisers, by the names and the meaning of torch's."""

from dlc.nn import init
from dlc.nn.activations import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from dlc.nn.attention import MultiheadAttention, TransformerBlock
from dlc.nn.containers import ModuleList, Sequential
from dlc.nn.layers import Conv1d, Conv2d, Dropout, Embedding, Flatten, Identity, Linear
from dlc.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
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
from dlc.nn.module import Module, Parameter
from dlc.nn.norms import BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupNorm, LayerNorm, RMSNorm
from dlc.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from dsl.ops.attention import scaled_dot_product_attention

__all__ = [
    "AdaptiveAvgPool2d", "AvgPool2d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d",
    "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "GELU", "GroupNorm", "HuberLoss", "Identity", "KLDivLoss", "L1Loss",
    "LayerNorm", "LeakyReLU", "Linear", "MSELoss", "MaxPool2d", "Module", "ModuleList", "MultiheadAttention", "NLLLoss", "Parameter",
    "RMSNorm", "ReLU", "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Tanh", "TransformerBlock", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "init", "kl_div", "l1_loss", "mse_loss", "nll_loss",
    "scaled_dot_product_attention", "smooth_l1_loss",
]
