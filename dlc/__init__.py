"""dlc: write an operator once, as mathematics over indices; get its backward, a CPU kernel and a GPU kernel.

A tour, following a matrix product with bias and gelu through every file:

1. ``@dlc.kernel`` (``dlc/kernel.py``) traces the user's function once on symbolic inputs (``dsl/program.py``). The result is
   a DAG of definitions: ``y[i, j] = gelu(sum[k](x[i, k] * w[j, k]) + b[j])`` over hash-consed scalar expressions
   (``dsl/expr.py``); indices are terms of integer arithmetic (``dsl/dim.py``), reductions carry their algebra
   (``dsl/carrier.py``). ``dsl/derivative`` makes the backward of it, an ordinary program.
2. A call (``dlc/calling.py``) binds sizes from the arguments' shapes (``dsl/bind.py``); every read is proved in bounds
   (``dsl/check.py``).
3. ``dsl/widen.py`` makes explicit where low-precision floats are held in f32; ``dsl/stages.py`` gives every reduction a
   stage of its own: the unscheduled nest (``dsl/nest.py``). ``dsl/cascade`` finds what one pass can compute.
4. ``codegen/heuristics`` chooses a schedule out of the primitives in ``dsl/primitives``, the same that a user calls on
   ``dsl/schedule.py``: what is inlined, what shares loops, which axis lies along the vector lanes, how many registers the
   accumulators take.
5. ``codegen/lower`` turns the scheduled nest into a tile program (``codegen/tile/ir.py``): loops over tiles with named axes,
   with masks only where a range could not be proved full. ``codegen/pipelines.py`` lists the passes on it; the verifier proves
   it in bounds and free of races.
6. ``codegen/emit/llvm.py`` and ``llvm_phase.py`` spell the tiles out as LLVM IR: unrolled axes become registers, the lane axis
   vectors; functions such as erf are expanded by ``codegen/micro/maths``. ``codegen/emit/triton.py`` writes the same tiles as
   Triton source.
7. ``dlc/runtime/cpu.py`` turns the text into machine code, kept by content in ``dlc/cache.py``; the kernel runs on torch's own
   OpenMP pool, through a function written for it (``dlc/runtime/fastcall.py``).

``dsl/interp.py`` and ``codegen/tile/interp.py`` give the numpy meaning of the first and last of these levels: the oracles.
"""

from dlc import errors
from dlc.bench import BenchReport, bench
from dlc.emulation import emulate
from dlc.jit import jit
from dlc.kernel import Kernel, kernel, parse
from dlc.realize import Watch
from dlc.tape import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from dlc.tensor import Tensor, backward, compute_now, create, each_call, empty, from_dlpack, from_numpy, from_torch, grad, tensor
from dsl import *  # noqa: F403  (the whole language)
from dsl import __all__ as _language

__version__ = "0.1.0"
_frontend = ["Tensor", "Watch", "backward", "compute_now", "each_call", "empty", "enable_grad", "from_dlpack", "from_numpy", "from_torch",
             "grad", "is_grad_enabled", "jit", "no_grad", "set_grad_enabled", "tensor"]
globals().update(create.CREATORS)  # makers such as zeros serve definitions and tensors
__all__ = [*_language, *_frontend, "BenchReport", "Kernel", "bench", "emulate", "errors", "kernel", "parse"]  # noqa: PLE0604  (two of them are lists)
