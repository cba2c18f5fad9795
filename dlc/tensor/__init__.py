"""``dlc.Tensor``: arrays that are computed when somebody looks, in kernels made of the operations that led there."""

from dlc.tensor.create import arange, each_call, empty, from_dlpack, from_numpy, from_torch, ones, tensor, zeros
from dlc.tensor.gradients import GradFn, backward, grad
from dlc.tensor.methods import install
from dlc.tensor.tensor import Tensor, compute_now

install(Tensor)

__all__ = ["GradFn", "Tensor", "arange", "backward", "compute_now", "each_call", "empty", "from_dlpack", "from_numpy", "from_torch",
           "grad", "ones", "tensor", "zeros"]
