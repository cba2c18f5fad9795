"""A call of a kernel: from what the user passes to the code that runs, on the way that fits the arguments.

The first call with arguments of some kind takes the slow way: every argument is checked against its declaration, the kernel is compiled
or found, and a function written for exactly these arguments (``dlc/runtime/fastcall.py``) is kept. Later calls go straight to that
function, which does all checks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.autograd import forward_ad

from codegen.target import Target
from dlc import operator
from dlc.autograd import record, transform
from dlc.compiler import Plan, Request, recorded, specialize
from dlc.derivatives import Derivatives, Followed
from dlc.lazy import lazy
from dlc.outs import checked_outs
from dlc.runtime.arguments import as_tensor, give_back
from dlc.runtime.fastcall import MISS, Call, Fill, Functions, Hooks, takes_number
from dlc.runtime.launch import Launcher
from dlc.runtime.recipe import contiguous
from dlc.runtime.written import Given
from dlc.varying import Many, Often, Sizes, compile_for
from dsl.bind import bind_sizes
from dsl.dim import Var
from dsl.errors import ArgumentError, TargetError, UserError
from dsl.expr import Expr, Tensor
from dsl.program import Program

if TYPE_CHECKING:
    from dlc import gpu_launch
    from dlc.gpu_launch import GpuLauncher
else:
    gpu_launch = lazy("dlc.gpu_launch")

_MANY = 4096  # kinds of arguments whose functions are kept by shape
_WAYS = 8  # functions kept for arguments of the same shapes: other strides, other kinds of arrays


class Callee(Protocol):
    """What a caller needs to know of its kernel."""

    @property
    def program(self) -> Program:
        """The definition."""

    @property
    def key(self) -> str:
        """Its name for torch's operator."""

    def request(self, shapes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], target: Target | None = None) -> Request:
        """What the compiler is asked for."""

    @property
    def derivatives(self) -> Derivatives:
        """What is derived from it."""

    fast: Call
    save: tuple[str, ...] | None


class Caller:
    """The calls of one kernel.

    Args:
        kernel: what is called. Its ``fast`` is the function of the last call's arguments, and gives MISS for any others.

    Attributes:
        fill: the function of the last call with memory for its results.
    """

    def __init__(self, kernel: Callee) -> None:
        self.kernel = kernel
        self.forget()

    def forget(self) -> None:
        """Compile anew from now on: the kernel was tuned, or given another schedule."""
        self.kernel.fast = _nothing
        self.fill: Fill = _nothing
        self._by_shape: dict[Any, list[Functions]] = {}
        self._any_size: list[Functions] = []
        self._written: dict[tuple[Launcher, Given], Functions] = {}
        self._own: list[dict[tuple[int, ...], Functions | None]] = []
        self._launchers: dict[Any, Launcher] = {}
        self._many: Many[Launcher] = Many()
        self._on_gpu: dict[Any, GpuLauncher] = {}
        self._many_on_gpu: dict[torch.device, tuple[Many[GpuLauncher], Sizes]] = {}
        self._followed: set[Any] = set()
        self._sizes = Sizes()

    def slowly(self, args: tuple[Any, ...], named: Mapping[str, Any], out: Any) -> Any:
        """A call for which neither ``fast`` nor :attr:`fill` was made."""
        if named:
            args = self._positional(args, named)
            results = self.kernel.fast(args) if out is None else self.fill(args, out)
            if results is not MISS:
                return results
        kinds = _kinds(args)
        if out is None and kinds in self._followed and _tracked(args):
            return self._derived(None, args)
        for known in (*self._by_shape.get(kinds, ()), *self._any_size):
            results = self._by(known, args, out)
            if results is not MISS:
                return results
        return self._checked(args, kinds, out)

    def _by(self, functions: Functions, args: tuple[Any, ...], out: Any) -> Any:
        """Run by functions that may not be those for these arguments; if they are, they are the first to be asked next time."""
        if out is None:
            results = functions.call(args)
            if results is not MISS:
                self.kernel.fast = functions.call
            return results
        first = out[0] if type(out) in (tuple, list) and out else out
        fill = functions.fill_arrays if isinstance(first, np.ndarray) else functions.fill_tensors
        results = fill(args, out)
        if results is not MISS:
            self.fill = fill
        return results

    def _checked(self, args: tuple[Any, ...], kinds: Any, out: Any) -> Any:
        program = self.kernel.program
        if len(args) != len(program.inputs):
            bind_sizes(program, [() for _ in args])
        lazy = next((a for a in args if hasattr(type(a), "__dlc_kernel__")), None)
        if lazy is not None and out is None:
            return lazy.__dlc_kernel__(self.kernel, program, args)
        if any(isinstance(a, (Tensor, Expr)) for a in args):
            raise UserError(f"{program.name} is called inside another definition", "a kernel runs on arrays",
                            f"write {program.name}.fn(...) to use what it computes as a part of the other")
        if any(operator.is_foreign(a) for a in args):
            return operator.put(self._dispatched(program, args), out)
        tensors = _on_one_device(program, [as_tensor(a, t) for a, t in zip(args, program.inputs)])
        tracked = _tracked(tensors)
        if tracked and out is not None:
            raise ArgumentError(f"out= of {program.name} with an argument that requires grad", "autograd cannot follow writes to it",
                                "leave out= away, or call under torch.no_grad()")
        if tracked and self._by_another(args, kinds, tensors):
            return self._derived(None, tensors)
        launcher = self._launcher(tensors)
        functions = self._remember(args, kinds, launcher) if isinstance(launcher, Launcher) else None
        if functions is not None:
            results = self._by(functions, args, out)
            if results is not MISS:
                return results
        return self._derived(launcher, tensors) if tracked else self._plainly(launcher, tensors, args, out)

    def _plainly(self, launcher: Launcher | GpuLauncher, tensors: Sequence[torch.Tensor], args: tuple[Any, ...], out: Any) -> Any:
        """A call for whose arguments no function is written."""
        if out is not None:
            given = checked_outs(self.kernel.program, out, tensors, launcher.in_place)
            launcher(tensors, given)
            torch.autograd.graph.increment_version([t for t in given if not t.is_inference()])
            return out
        results = launcher(tensors)
        numpy = any(isinstance(a, np.ndarray) for a in args) and not any(isinstance(a, torch.Tensor) for a in args)
        given = [give_back(r, numpy) for r in results]
        return given[0] if self.kernel.program.single else tuple(given)

    def _by_another(self, args: tuple[Any, ...], kinds: Any, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether autograd follows a call by another kernel than this: one that also returns what its backward reads."""
        if self.kernel.derivatives.follow(tensors).forward is None:
            return False
        if all(a is t for a, t in zip(args, tensors)):
            self._followed.add(kinds)
        return True

    def _dispatched(self, program: Program, args: tuple[Any, ...]) -> Any:
        """A call with tensors that only torch can run: fake ones, and those inside torch.func."""
        tensors = [a if isinstance(a, torch.Tensor) else as_tensor(a, t) for a, t in zip(args, program.inputs)]
        if any(operator.is_transformed(t) for t in tensors):
            return self._transformed(tensors)
        results = operator.call(self.kernel.key, tensors)
        return results[0] if program.single else tuple(results)

    def moving(self, args: tuple[Any, ...], named: Mapping[str, Any], out: Any) -> Any:
        """A call inside of torch's forward mode, where tensors may carry tangents."""
        program = self.kernel.program
        args = self._positional(args, named)
        if any(operator.is_foreign(a) for a in args) or not any(
                isinstance(a, torch.Tensor) and forward_ad.unpack_dual(a).tangent is not None for a in args):
            return self.slowly(args, {}, out)
        if out is not None:
            raise ArgumentError(f"out= of {program.name} with an argument that carries a tangent", "autograd cannot follow writes to it",
                                "leave out= away")
        bind_sizes(program, [getattr(a, "shape", ()) for a in args])
        return self._transformed([as_tensor(a, t) for a, t in zip(args, program.inputs)])

    def _transformed(self, tensors: Sequence[torch.Tensor]) -> Any:
        """A call whose derivatives, if any, are asked for by a transform: nothing is kept but the arguments."""
        inputs = self.kernel.program.inputs
        wanted = tuple(n for n, t in enumerate(inputs) if t.dtype.is_float)
        return transform(self.kernel.derivatives.follow(tensors, wanted), None, tensors)

    def _positional(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Arguments given by name, in the order of the parameters."""
        program = self.kernel.program
        names = [t.name for t in program.inputs]
        for name in named:
            if name not in names or names.index(name) < len(args):
                problem = "is given twice" if name in names else "is not a parameter"
                raise ArgumentError(f"`{name}` {problem} of {program.name}", f"its parameters are {', '.join(names)}", loc=program.loc)
        missing = [n for n in names[len(args):] if n not in named]
        if missing:
            raise ArgumentError(f"{program.name} is called without `{missing[0]}`", f"its parameters are {', '.join(names)}",
                                loc=program.loc)
        return (*args, *(named[n] for n in names[len(args):]))

    def _launcher(self, tensors: Sequence[torch.Tensor]) -> Launcher | GpuLauncher:
        if tensors and not tensors[0].is_cpu:
            return self._gpu_launcher(tensors)
        key = tuple([(t.shape, canonical_strides(t)) for t in tensors])
        launcher = self._launchers.get(key)
        if launcher is None:
            launcher = self._tuned(key) or self._many.suiting(tensors, self._sizes_of(tensors)) or self._compiled(key)
        return launcher

    def _gpu_launcher(self, tensors: Sequence[torch.Tensor]) -> GpuLauncher:
        device = tensors[0].device
        key = (device, *[(t.shape, canonical_strides(t)) for t in tensors])
        many, sizes = self._many_on_gpu.setdefault(device, (Many(), Sizes()))
        known = self._on_gpu.get(key) or many.suiting(tensors, self._sizes_of(tensors))
        if known is not None:
            return known
        request = self.kernel.request([t.shape for t in tensors], [canonical_strides(t) for t in tensors], gpu_launch.target_of(device))
        launcher, serves_many = compile_for(request, sizes, gpu_launch.GpuLauncher)
        if serves_many:
            many.add({} if request.scheduler else self._sizes_of(tensors), launcher)
        else:
            self._on_gpu[key] = launcher
        return launcher

    def _sizes_of(self, tensors: Sequence[torch.Tensor]) -> Mapping[Var, int]:
        return bind_sizes(self.kernel.program, [t.shape for t in tensors])

    def _compiled(self, key: tuple[tuple[Any, tuple[int, ...]], ...]) -> Launcher:
        """Compile for arguments like these: for all values of the sizes that keep changing, if there are any, else for these alone."""
        request = self.kernel.request([shape for shape, _ in key], [strides for _, strides in key])
        launcher, many = compile_for(request, self._sizes, Plan.launcher)
        for own in self._own:  # some sizes may now be those of another kernel
            own.clear()
        if many:
            self._many.add({} if request.scheduler else bind_sizes(self.kernel.program, request.shapes), launcher)
        else:
            self._launchers[key] = launcher
        return launcher

    def _alone(self, tensors: Sequence[torch.Tensor], sizes: tuple[int, ...], often: Often) -> Launcher | GpuLauncher | None:
        """The kernel for just these sizes where they come so often that it pays, else that for many; None where that is open."""
        key = tuple([(t.shape, canonical_strides(t)) for t in tensors])
        request = self.kernel.request([shape for shape, _ in key], [strides for _, strides in key])
        pays = request.scheduler is None and often.pays(sizes, lambda: specialize(request.program, request.shapes))
        if pays:
            self._launchers[key] = Plan(request).launcher()
        return None if pays is None else self._launcher(tensors)

    def _remember(self, args: tuple[Any, ...], kinds: Any, launcher: Launcher) -> Functions | None:
        """The functions written for arguments like these, kept; None where every such call has to convert something."""
        given = _given(args)
        if not all(takes_number(args[n], self.kernel.program.inputs[n].dtype.name) for n in given.numbers):
            return None
        known = self._written.get((launcher, given))
        if known is None:
            if len(self._written) >= _MANY:
                self._written.clear()
                self._by_shape.clear()
                self._any_size.clear()
            known = self._written[launcher, given] = launcher.written(given, self._hooks(launcher, given))
        if launcher.recipe.sizes:
            _put_first(known, self._any_size)
        else:
            _put_first(known, self._by_shape.setdefault(kinds, []))
        return known

    def _hooks(self, launcher: Launcher, given: Given) -> Hooks:
        inputs, converted = self.kernel.program.inputs, given.numbers | given.arrays

        def tracked(args: tuple[Any, ...]) -> Any:
            tensors = tuple([as_tensor(a, t) if n in converted else a for n, (a, t) in enumerate(zip(args, inputs))]) if converted else args
            if launcher.recipe.sizes:
                return self._derived(launcher, tensors)
            key = self.kernel.save, tuple([t.requires_grad for t in tensors])
            call = followed.get(key)
            if call is None:
                call = followed[key] = self.kernel.derivatives.follow(tensors)
            return record(call, launcher, tensors)

        def find(sizes: tuple[int, ...], args: tuple[Any, ...]) -> Functions | None:
            """The functions of a kernel compiled for just these sizes, or scheduled for nearer ones; None where there is none."""
            if often.waits(sizes):
                return None
            tensors = [as_tensor(a, t) for a, t in zip(args, inputs)]
            best: Launcher | GpuLauncher | None = self._launcher(tensors)
            if best is launcher:
                best = self._alone(tensors, sizes, often)
                if best is None:
                    return None  # it is counted how often these sizes come: ask again
            found = self._remember(args, _kinds(args), best) if isinstance(best, Launcher) and best is not launcher else None
            if len(own) >= _MANY:
                own.clear()
            own[sizes] = found
            return found

        followed: dict[Any, Followed] = {}
        own: dict[tuple[int, ...], Functions | None] = {}
        often = Often()
        if not launcher.recipe.sizes:
            return Hooks(tracked)
        self._own.append(own)
        return Hooks(tracked, own, find)

    def _tuned(self, key: tuple[tuple[Any, tuple[int, ...]], ...]) -> Launcher | None:
        """The kernel for just these arguments, where kernels for many sizes would serve them but they were tuned; None where not."""
        request = self.kernel.request([shape for shape, _ in key], [strides for _, strides in key]) if len(self._many) else None
        if request is None or recorded(request) is None:
            return None
        launcher = self._launchers[key] = Plan(request).launcher()
        return launcher

    def _derived(self, launcher: Callable[..., Any] | None, tensors: Sequence[torch.Tensor]) -> Any:
        """A call that autograd follows."""
        return record(self.kernel.derivatives.follow(tensors), launcher, tensors)


def canonical_strides(t: torch.Tensor) -> tuple[int, ...]:
    """The strides, those of dimensions that are never walked along as if the tensor were contiguous."""
    if t.is_contiguous():
        return contiguous(t.shape)
    return tuple(s if n > 1 else 1 for n, s in zip(t.shape, t.stride()))


def _tracked(args: Sequence[Any]) -> bool:
    """Whether autograd must follow a call."""
    return torch.is_grad_enabled() and any([isinstance(a, torch.Tensor) and a.requires_grad for a in args])


def _kinds(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """By what the functions written are found: shapes, and types of what is no tensor."""
    return tuple([a.shape if isinstance(a, torch.Tensor) and not a.is_nested else
                  (a.shape, np.ndarray) if type(a) is np.ndarray else type(a) for a in args])


def _given(args: tuple[Any, ...]) -> Given:
    arrays = frozenset(n for n, a in enumerate(args) if type(a) is np.ndarray)
    return Given(frozenset(n for n, a in enumerate(args) if n not in arrays and not isinstance(a, torch.Tensor)), arrays)


def _put_first(known: Functions, among: list[Functions]) -> None:
    """Have these functions asked first; the list stays short."""
    if known in among:
        among.remove(known)
    among.insert(0, known)
    del among[_WAYS:]


def _nothing(*args: Any) -> Any:
    return MISS


def _on_one_device(program: Program, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors, scalars that lie on the CPU moved to the GPU of the others.

    Raises:
        TargetError: on the meta device, on several devices, or on one that no kernel runs on.
    """
    meta = next((n for n, t in enumerate(tensors) if t.device.type == "meta"), None)
    if meta is not None:
        declared = program.inputs[meta]
        raise TargetError(f"`{declared.name}` of {program.name} is on the meta device", "it has a shape and no elements",
                          "call the kernel with real tensors; .source and .compile take meta tensors", declared.loc)
    where = next((t.device for t in tensors if t.device.type != "cpu"), None)
    if where is None:
        return tensors
    moved = [t.to(where) if t.device.type == "cpu" and t.dim() == 0 else t for t in tensors]
    for t, declared in zip(moved, program.inputs):
        if t.device != where:
            raise TargetError(f"{program.name} was called with tensors on {where} and on {t.device}", f"`{declared.name}` is on {t.device}",
                              f"move it: {declared.name}.to({str(where)!r})", declared.loc)
    if where.type != "cuda":
        raise TargetError(f"{program.name} was called with tensors on {where}", "kernels run on CPUs and on CUDA and ROCm devices",
                          "move the tensors: .cpu()", program.loc)
    return moved
