"""``@dlc.kernel``: a definition, compiled for the arguments it is called with."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd import forward_ad

from dlc import operator
from dlc.asking import Asked
from dlc.bound import Bound
from dlc.calling import Caller
from dlc.derivatives import Derivatives
from dlc.lazy import lazy
from dlc.runtime.arguments import TORCH
from dlc.runtime.fastcall import MISS
from dsl.check import verify
from dsl.errors import ArgumentError, DlcError, UserError
from dsl.loc import Loc
from dsl.program import Program, trace

if TYPE_CHECKING:
    from dlc import scheduling
    from dsl import parse as parser
    from dsl import portable, text
    from dsl.schedule import Schedule
else:
    scheduling = lazy("dlc.scheduling")
    parser, portable, text = lazy("dsl.parse"), lazy("dsl.portable"), lazy("dsl.text")

is_compiling = torch.compiler.is_dynamo_compiling


class Kernel(Asked):
    """A kernel: call it with arrays; ask it for its source, its schedule, its machine code.

    Args:
        fn: the definition: parameters annotated with dtypes and symbolic shapes.
        statics: values of its keyword-only parameters.
    """

    def __init__(self, fn: Callable[..., Any], statics: Mapping[str, Any] | None = None) -> None:
        self.fn, self.statics = fn, dict(statics or {})
        functools.update_wrapper(self, fn, updated=())
        self._program: Program | None = None
        self._calls = Caller(self)
        self._keywords = keyword_only(fn)
        self._key: str | None = None
        self._partials: dict[Any, Kernel] = {}
        self.derivatives = Derivatives(self, Kernel.of)

    @property
    def program(self) -> Program:
        """The traced definition, checked: types, and every access proved in bounds for all sizes."""
        if self._program is None:
            program = _traced_program(self.fn, self.statics)
            verify(program)
            self._program = program
        return self._program

    def __repr__(self) -> str:
        try:
            return text.show(self.program)
        except DlcError as e:
            return f"<kernel {self.__name__}, which cannot be traced: {e.title}>"

    # -- calling -----------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """Run the kernel.

        Args:
            args: one per parameter: torch tensors, numpy arrays, DLPack objects, numbers for scalars.
            out: a contiguous tensor, or a tuple of them, to write the results to; an input itself where the kernel is done with
                every element of it when it writes there, as pointwise kernels and normalised rows are.
            named: parameters by name; keyword-only parameters of the definition fix their value for this call.

        Returns:
            The results in the kind of the inputs: numpy arrays when every array given is one, else torch tensors.

        Raises:
            UserError: the arguments do not fit the declaration; the message names parameter and symbol.
        """
        if is_compiling():
            return operator.put(self._traced(args, named), out)
        if out is None and not named:
            results = self.fast(args)
            if results is not MISS:
                return results
        if forward_ad._current_level >= 0:
            return self._calls.moving(args, named, out)
        if out is not None and not named:
            results = self._calls.fill(args, out)
            if results is not MISS:
                return results
        if named and (fixed := {n: v for n, v in named.items() if n in self._keywords}):
            return self.partial(**fixed)(*args, out=out, **{n: v for n, v in named.items() if n not in fixed})
        return self._calls.slowly(args, named, out)

    @property
    def key(self) -> str:
        """The kernel's name for torch's operator ``dlc::call``."""
        if self._key is None:
            self._key = operator.register(self, self.__name__)
        return self._key

    def _facts(self) -> tuple[str, bool, tuple[str, ...], tuple[torch.dtype, ...]]:
        """What a trace must know, a constant to torch.compile: name, whether there is one result, names and dtypes of the parameters."""
        inputs = self.program.inputs
        return self.key, self.program.single, tuple(t.name for t in inputs), tuple(TORCH[t.dtype.name] for t in inputs)

    # What torch.compiler.assume_constant_result does, without its import.
    _facts._dynamo_marked_constant = True  # type: ignore[attr-defined]  # functions have no such attribute

    def _traced(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """The call as torch.compile records it: one operator."""
        key, single, names, dtypes = self._facts()
        given = [*args, *[named[n] for n in names[len(args):]]]
        results = torch.ops.dlc.call(key, [a if isinstance(a, torch.Tensor) else torch.tensor(a, dtype=d) for a, d in zip(given, dtypes)])
        return results[0] if single else tuple(results)

    def gradient(self, wanted: tuple[int, ...]) -> tuple[Kernel, tuple[int, ...]]:
        """The derived backward for some inputs, and the positions of the inputs that it reads before the gradients of the outputs."""
        back = self.derivatives.back(wanted)
        return back.kernel, tuple(n for _, n in back.sources)

    def partial(self, **statics: Any) -> Kernel:
        """The kernel with these values of its keyword-only parameters; made once for each set of values.

        Raises:
            ArgumentError: the definition has no such keyword-only parameter.
        """
        for name in statics:
            if name not in self._keywords:
                raise ArgumentError(f"{self.__name__} has no keyword-only parameter `{name}`",
                                    f"it has {', '.join(self._keywords) or 'none'}", "declare it after a * in the definition")
        values = {**self.statics, **statics}
        try:
            key = tuple((n, type(v), v) for n, v in sorted(values.items()))
            return self._partials.get(key) or self._partials.setdefault(key, self._like(self.fn, values))
        except TypeError:  # a value that cannot be hashed
            return self._like(self.fn, values)

    def bind(self, **constants: torch.Tensor) -> Bound:
        """The kernel with some arguments given once and for all, weights say: what a product reads along its lanes is packed once.

        Args:
            constants: parameter -> torch tensor on the CPU. A change through torch is noticed, and the tensor packed again.

        Raises:
            UserError: no such parameter, or a tensor that does not fit or does not count its changes.
        """
        return Bound(self, constants, Kernel.of)

    @property
    def free_schedule(self) -> bool:
        """Whether the heuristics make its schedule on CPUs: none was given by hand, no choice preset."""
        return self.scheduler is None and not self.decisions and "cpu" not in self.schedules

    def _backward(self, wrt: tuple[str, ...]) -> Kernel:
        names = [t.name for t in self.program.inputs]
        return cast("Kernel", self.derivatives.back(tuple(names.index(n) for n in wrt)).kernel)

    @property
    def scheduled(self) -> bool:
        """Whether its schedule was chosen for just this program: by hand, by a scheduler of the user's or by decisions."""
        return bool(self.schedules) or self.scheduler is not None or bool(self.decisions)

    @property
    def vjp(self) -> Kernel:
        """The derived backward, itself a kernel: from the inputs it needs and ``d_<output>`` to ``d_<input>`` of every float input.

        Raises:
            DerivativeError: the definition has no derivative.
        """
        return self._backward(tuple(t.name for t in self.program.inputs if t.dtype.is_float))

    @property
    def jvp(self) -> Kernel:
        """The forward derivative, itself a kernel.

        It goes from the inputs it needs and a tangent ``t_<input>`` of every float input to ``t_<output>``.

        Raises:
            DerivativeError: the definition has no derivative.
        """
        moving = tuple(n for n, t in enumerate(self.program.inputs) if t.dtype.is_float)
        return cast("Kernel", self.derivatives.pushforward(moving)[0])

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

    def with_schedule(self, *schedules: Schedule) -> Kernel:
        """This kernel with schedules given by hand: each is used on targets of its kind, and replayed for arguments of other shapes.

        On targets of other kinds the default schedule is used, as before.

        Raises:
            ScheduleError: it is the schedule of another kernel.
        """
        out = copy.copy(self)
        out.schedules = {**self.schedules, **{scheduling.kind_of(s, self.program): s.copy() for s in schedules}}
        return out

    # -- as a value and as a method ----------------------------------------------------------------------------
    def _like(self, fn: Callable[..., Any], statics: Mapping[str, Any]) -> Kernel:
        """Another kernel with the same settings."""
        other = Kernel(fn, statics)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name in _SETTINGS})
        return other

    def __get__(self, owner: Any, kind: type | None = None) -> Kernel:
        """As a method: a definition whose first parameter has no type takes the object there.

        It may read the object's attributes while it is traced.
        """
        if owner is None or not _takes_owner(self.fn):
            return self
        bound = self._like(types.MethodType(self.fn, owner), self.statics)
        if hasattr(owner, "__dict__"):
            owner.__dict__.setdefault(self.__name__, bound)
        return bound

    def __copy__(self) -> Kernel:
        other = self._like(self.fn, self.statics)
        other._program = self._program
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Kernel:
        fn = copy.deepcopy(self.fn, memo)
        return copy.copy(self) if fn is self.fn else self._like(fn, copy.deepcopy(self.statics, memo))

    def __reduce__(self) -> Any:
        """By name where the kernel can be imported, else by what it computes."""
        module, name = getattr(self, "__module__", None), getattr(self, "__qualname__", "")
        if _found(module, name) is self:
            return _found, (module, name)
        settings = {n: v for n, v in self.__dict__.items() if n in _SETTINGS}
        if isinstance(self.fn, types.MethodType):
            return _method, (self.fn.__self__, self.__name__), settings
        return _loaded, (portable.dumps(self.program),), settings


def parse(text: str) -> Kernel:
    """The kernel of a program written as text: what ``kernel.source("expr")`` gives, or the like (see :mod:`dsl.text`).

    Raises:
        TextError: not a program; the message names line and column.
    """
    return Kernel.of(parser.parse(text))


def kernel(fn: Callable[..., Any] | None = None, *, reproducible: bool = False, save: Sequence[str] | None = None, **statics: Any) -> Any:
    """Make a kernel of a definition.

    Args:
        fn: the definition.
        reproducible: keep one order of every sum: the results have the same bits on any number of threads and with any schedule that
            tuning may choose, with gradients and without, on machines with the same vector instructions. :meth:`Kernel.order` names it.
        save: the definitions whose values a call that autograd follows keeps for the backward, by their names in
            :meth:`Kernel.saving`; none of them for ``()``, and those that pay by bytes for None.
        statics: values of its keyword-only parameters.

    Raises:
        UserError: ``fn`` is not a function.
    """
    if fn is None:
        return lambda f: kernel(f, reproducible=reproducible, save=save, **statics)
    if not hasattr(fn, "__code__"):
        raise UserError(f"@dlc.kernel decorates a function; this is of type {type(fn).__name__}",
                        "a definition is traced by its parameters and their types", "write def name(x: f32[M, N]): ... under it")
    made = Kernel(fn, statics)
    made.reproducible = reproducible
    made.save = None if save is None else tuple(save)
    return made


_SETTINGS = ("decisions", "scheduler", "schedules", "reproducible", "save")


def _traced_program(fn: Callable[..., Any], statics: Mapping[str, Any]) -> Program:
    """The program of a definition.

    Raises:
        UserError: among others, a definition that needs itself.
    """
    try:
        return trace(fn, statics)
    except NameError as e:
        if "free variable" not in str(e):
            raise
        frame = traceback.extract_tb(e.__traceback__)[-1]
        name = str(e).split("'")[1]
        raise UserError(f"a definition in {fn.__name__} refers to itself", f"`{name}` has no value while it is being defined",
                        "elements that depend on earlier ones are scans: dlc.cumsum, dlc.scan",
                        Loc(frame.filename, frame.lineno or 0)) from e
    except RecursionError as e:
        raise UserError(f"{fn.__name__} calls itself without end", "a definition is traced once, on symbols",
                        "elements that depend on earlier ones are scans", Loc(fn.__code__.co_filename, fn.__code__.co_firstlineno)) from e


def keyword_only(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a definition's keyword-only parameters."""
    return tuple(p.name for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY)


def _takes_owner(fn: Callable[..., Any]) -> bool:
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    return first is not None and first.annotation is first.empty and first.kind is first.POSITIONAL_OR_KEYWORD


def _found(module: str | None, name: str) -> Any:
    """What stands at this name in a module that is loaded; in another process the module is imported."""
    if module is None or "<locals>" in name:
        return None
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
    except ImportError:
        return None
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _method(owner: Any, name: str) -> Any:
    return getattr(owner, name)


def _loaded(program: bytes) -> Kernel:
    return Kernel.of(portable.loads(program))
