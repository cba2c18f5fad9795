"""``@dlc.kernel``: a definition, compiled for the arguments it is called with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import llvmlite
import numpy as np
import torch

from codegen.emit.llvm import CpuModule, emit_llvm
from codegen.heuristics import default_schedule
from codegen.lower import lower
from codegen.target import Target, by_name
from codegen.tile.ir import TileProgram
from dlc import cache
from dlc.autograd import Derived
from dlc.runtime.arguments import as_tensor, give_back, torch_dtype
from dlc.runtime.cpu import assembly, compile_object, load_object
from dlc.runtime.device import host_target
from dsl.bind import bind_sizes
from dsl.check import prove_bounds, verify
from dsl.derivative import vjp
from dsl.dim import Term, as_term, product
from dsl.errors import ArgumentError, BoundsError, TargetError, UserError
from dsl.expr import Tensor
from dsl.interp import evaluate
from dsl.nest import Nest
from dsl.program import Program, trace
from dsl.stages import build_nest
from dsl.text import show_compute

_FORMAT = "1"


@dataclass
class Launcher:
    """A compiled kernel for one set of shapes, strides and dtypes on this CPU.

    Attributes:
        entry: callable on (argument array, scratch, threads), returning the code of a failed check or 0.
        outputs: (shape, dtype) of each result.
    """

    program: Program
    entry: Any
    outputs: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    workspaces: tuple[tuple[int, torch.dtype], ...]
    scratch: int
    checks: tuple[str, ...]
    loads: int
    empty: bool
    arguments: Any = field(default=None)

    def __call__(self, tensors: Sequence[torch.Tensor], outs: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Run on tensors of exactly the shapes, strides and dtypes compiled for; returns the outputs."""
        results = list(outs) if outs is not None else [torch.empty(s, dtype=d) for s, d in self.outputs]
        if self.empty:
            return results
        spaces = [torch.empty(n, dtype=d) for n, d in self.workspaces]
        threads = torch.get_num_threads()
        scratch = torch.empty(self.scratch * threads, dtype=torch.uint8) if self.scratch else None
        pointers = self.arguments(*[t.data_ptr() for t in tensors], *[t.data_ptr() for t in results], *[t.data_ptr() for t in spaces])
        code = self.entry(pointers, scratch.data_ptr() if scratch is not None else None, threads)
        if code:
            raise BoundsError(f"a data-dependent index of {self.program.name} is out of range", self.checks[code - 1],
                              "check the index data, or clamp it in the definition", self.program.loc)
        return results


class Kernel:
    """A kernel: call it with arrays; ask it for its source, its schedule, its machine code.

    Args:
        fn: the definition: parameters annotated with dtypes and symbolic shapes.
    """

    def __init__(self, fn: Callable[..., Any], statics: Mapping[str, Any] | None = None) -> None:
        self.fn, self.statics = fn, dict(statics or {})
        self.__name__, self.__doc__ = fn.__name__, fn.__doc__
        self._program: Program | None = None
        self._launchers: dict[Any, Launcher] = {}
        self._backwards: dict[tuple[str, ...], Kernel] = {}

    @property
    def program(self) -> Program:
        """The traced definition, checked: types, and every access proved in bounds for all sizes."""
        if self._program is None:
            program = trace(self.fn, self.statics)
            verify(program)
            self._program = program
        return self._program

    def __repr__(self) -> str:
        return "\n".join(show_compute(c) for c in self.program.computes)

    # -- calling -----------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, out: Any = None) -> Any:
        """Run the kernel.

        Args:
            args: one per parameter: torch tensors, numpy arrays, DLPack objects, numbers for scalars.
            out: a contiguous tensor, or a tuple of them, to write the results to.

        Returns:
            The results in the kind of the inputs: numpy arrays when every array given is one, else torch tensors.

        Raises:
            UserError: the arguments do not fit the declaration; the message names parameter and symbol.
        """
        key = tuple([(a.shape, a.stride(), a.dtype) if type(a) is torch.Tensor else type(a) for a in args])
        launcher = self._launchers.get(key)
        if launcher is not None and out is None and not (torch.is_grad_enabled() and any(a.requires_grad for a in args if type(a) is torch.Tensor)):
            if all([a.is_cpu and not a.data_ptr() % 8 for a in args if type(a) is torch.Tensor]) and all([type(a) is torch.Tensor for a in args]):
                results = launcher(args)
                return results[0] if launcher.program.single else tuple(results)
        return self._call_slowly(key, args, out)

    def _call_slowly(self, key: Any, args: Sequence[Any], out: Any) -> Any:
        program = self.program
        if len(args) != len(program.inputs):
            bind_sizes(program, [getattr(a, "shape", ()) for a in args])
        tensors = [as_tensor(a, t) for a, t in zip(args, program.inputs)]
        if any(t.device.type != "cpu" for t in tensors):
            raise TargetError(f"{program.name} was called with a tensor on {next(t.device for t in tensors if t.device.type != 'cpu')}",
                              "kernels run on the CPU so far; GPU code can be compiled with kernel.compile", "move the tensors: .cpu()")
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            if out is not None:
                raise ArgumentError(f"out= of {program.name} with an argument that requires grad", "autograd cannot follow writes to it",
                                    "leave out= away, or call under torch.no_grad()")
            results = Derived.apply(self._run, self._run_backward, *tensors)
            return results[0] if program.single else results
        full = tuple((t.shape, t.stride(), t.dtype) for t in tensors)
        launcher = self._launchers.get(full)
        if launcher is None:
            launcher = self._launchers[full] = self._compile([tuple(t.shape) for t in tensors], [t.stride() for t in tensors])
        if key == full:
            self._launchers[key] = launcher
        outs = self._outs(launcher, out, tensors) if out is not None else None
        results = launcher(tensors, outs)
        numpy = any(isinstance(a, np.ndarray) for a in args) and not any(isinstance(a, torch.Tensor) for a in args)
        given = out if isinstance(out, (tuple, list)) else (out,) if out is not None else [give_back(r, numpy) for r in results]
        return given[0] if program.single else tuple(given)

    def _run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        results = self(*tensors)
        return [results] if self.program.single else list(results)

    def _run_backward(self, wanted: tuple[int, ...], tensors: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Gradients of the inputs at the positions wanted."""
        back = self._backward(tuple(self.program.inputs[n].name for n in wanted))
        values = {t.name: v for t, v in zip(self.program.inputs, tensors)}
        seeds = [v for t, v in zip(self.program.outputs, cotangents) if t.dtype.is_float]
        own = back.program.inputs[:len(back.program.inputs) - len(seeds)]
        grads = back(*(values[t.name] for t in own), *seeds)
        return [grads] if back.program.single else grads

    def _backward(self, wrt: tuple[str, ...]) -> Kernel:
        if wrt not in self._backwards:
            self._backwards[wrt] = Kernel.of(vjp(self.program, wrt))
        return self._backwards[wrt]

    @property
    def vjp(self) -> Kernel:
        """The derived backward, itself a kernel: from the inputs it needs and ``d_<output>`` to ``d_<input>`` of every float input.

        Raises:
            DerivativeError: the definition has no derivative.
        """
        return self._backward(tuple(t.name for t in self.program.inputs if t.dtype.is_float))

    @staticmethod
    def of(program: Program) -> Kernel:
        """A kernel of a program that exists already (a derivative, say)."""
        def fn() -> None:
            """Stands for the definition."""

        fn.__name__ = program.name
        k = Kernel(fn)
        verify(program)
        k._program = program
        return k

    def _outs(self, launcher: Launcher, out: Any, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Check the tensors to write to: right shape and dtype, contiguous, apart from the inputs and from each other."""
        given = [torch.from_numpy(o) if isinstance(o, np.ndarray) else o for o in (out if isinstance(out, (tuple, list)) else (out,))]
        name = self.program.name
        if len(given) != len(launcher.outputs):
            raise ArgumentError(f"{name} has {len(launcher.outputs)} outputs, out= has {len(given)}")
        for n, (o, (shape, dtype)) in enumerate(zip(given, launcher.outputs)):
            if tuple(o.shape) != shape or o.dtype is not dtype:
                raise ArgumentError(f"out {n} of {name} is {o.dtype} {tuple(o.shape)}, not {dtype} {shape}")
            if not o.is_contiguous():
                raise ArgumentError(f"out {n} of {name} is not contiguous", f"its strides are {o.stride()}", "pass .contiguous() memory and copy it back")
            if any(_overlap(o, t) for t in (*tensors, *given[:n])):
                raise ArgumentError(f"out {n} of {name} overlaps another argument", "the kernel may read an element after writing it",
                                    "give it memory of its own")
        return given

    # -- compiling ---------------------------------------------------------------------------------------------
    def _specialized(self, shapes: Sequence[Sequence[int]]) -> Program:
        sizes = bind_sizes(self.program, shapes)
        special = self.program.specialize(sizes)
        prove_bounds(special)
        return special

    def _nest(self, program: Program, strides: Mapping[Tensor, tuple[Term, ...]], target: Target) -> Nest:
        nest = build_nest(program)
        moved = {t: strides[t] for t in nest.program.inputs if t in strides} | _by_position(program, nest.program, strides)
        return default_schedule(nest, target, moved)

    def _lowered(self, shapes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], target: Target) -> tuple[Program, Nest, TileProgram]:
        program = self._specialized(shapes)
        steps = {t: tuple(as_term(int(n)) for n in s) for t, s in zip(program.inputs, strides)}
        nest = self._nest(program, steps, target)
        return program, nest, lower(nest, dict(_by_position(program, nest.program, steps)), _symbol(program.name))

    def _compile(self, shapes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]]) -> Launcher:
        target = host_target()
        try:
            program, _, tile = self._lowered(shapes, strides, target)
        except RecursionError as e:
            raise UserError(f"an expression of {self.__name__} is nested too deeply to compile", "the compiler walks it recursively",
                            "name its parts: give them definitions of their own with dlc.compute", self.program.loc) from e
        module = emit_llvm(tile, target.triple, target.vector_bits)
        name = cache.key(_FORMAT, llvmlite.__version__, repr(target), module.text)
        code = cache.get(name)
        if code is None:
            code = compile_object(module.text, target)
            cache.put(name, code)
        return _launcher(program, tile, module, code, target)

    def source(self, kind: str, *args: Any) -> str:
        """Readable text of one level for these arguments: ``expr``, ``schedule``, ``tile``, ``llvm`` (or ``cpu``), ``asm``.

        Raises:
            TargetError: no such level.
        """
        if kind == "expr":
            return repr(self)
        tensors = [as_tensor(a, t) for a, t in zip(args, self.program.inputs)]
        target = host_target()
        _, nest, tile = self._lowered([tuple(t.shape) for t in tensors], [t.stride() for t in tensors], target)
        if kind == "schedule":
            return show_nest(nest)
        module = emit_llvm(tile, target.triple, target.vector_bits)
        if kind in ("cpu", "llvm"):
            return module.text
        if kind == "asm":
            return assembly(module.text, target)
        by_name(kind)
        raise TargetError(f"no source of kind {kind!r}", remedy="one of expr, schedule, llvm, asm")

    def specialized(self, *args: Any) -> Program:
        """The definition with its sizes replaced by those of the arguments, every access proved in bounds."""
        return self._specialized([tuple(as_tensor(a, t).shape) for a, t in zip(args, self.program.inputs)])

    def reference(self, *args: Any, float64: bool = True) -> Any:
        """The numpy meaning of the definition: in float64, or in the dtypes declared."""
        arrays = [_as_numpy(as_tensor(a, t)) for a, t in zip(args, self.program.inputs)]
        results = evaluate(self.program, *arrays, float64=float64)
        return results[0] if self.program.single else results


def kernel(fn: Callable[..., Any] | None = None, **statics: Any) -> Any:
    """Make a kernel of a definition; keyword arguments fix its keyword-only parameters.

    Raises:
        UserError: ``fn`` is not a function.
    """
    if fn is None:
        return lambda f: Kernel(f, statics)
    if not callable(fn):
        raise UserError("@dlc.kernel decorates a function")
    return Kernel(fn, statics)


def show_nest(nest: Nest) -> str:
    """The loop nest as it stands: each stage, where it is computed, its loops and their roles."""
    lines: list[str] = []
    for s in nest.stages:
        place = f" at {s.attach[1] or 'the start'} of {s.attach[0]}" if s.attach else ""
        lines.append(f"{s.name}{place}:")
        for depth, loop in enumerate(s.order):
            lines.append(f"{'  ' * (depth + 1)}for {loop}" + (f"  # {s.role(loop)}" if s.role(loop) != "serial" else ""))
        lines += [f"{'  ' * (len(s.order) + 1)}{show_compute(t)}" for t in s.tensors]
    return "\n".join(lines)


def _by_position(program: Program, other: Program, strides: Mapping[Tensor, tuple[Term, ...]]) -> dict[Tensor, tuple[Term, ...]]:
    return {new: strides[old] for old, new in zip(program.inputs, other.inputs) if old in strides}


def _symbol(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "kernel"


def _launcher(program: Program, tile: TileProgram, module: CpuModule, code: bytes, target: Target) -> Launcher:
    import ctypes  # noqa: PLC0415  (only a first call of a shape comes here)

    address = load_object(code, target, module.entry)
    entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    outputs = tuple((tuple(int(s) for s in t.shape), torch_dtype(t.dtype)) for t in program.outputs)
    spaces = tuple((int(product(b.shape)), torch_dtype(b.dtype)) for b in module.workspaces)
    count = len(program.inputs) + len(outputs) + len(spaces)
    empty = all(math.prod(s) == 0 for s, _ in outputs)
    return Launcher(program, entry, outputs, spaces, module.scratch, tile.checks, count, empty, ctypes.c_void_p * count)


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.numel() == 0 or b.numel() == 0:
        return False
    first = [(t.data_ptr(), t.data_ptr() + (sum((n - 1) * s for n, s in zip(t.shape, t.stride())) + 1) * t.element_size()) for t in (a, b)]
    return first[0][0] < first[1][1] and first[1][0] < first[0][1]


def _as_numpy(t: torch.Tensor) -> Any:
    return give_back(t.detach(), True)


