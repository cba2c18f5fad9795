"""Pointwise operations and conversions as Triton expressions."""

from __future__ import annotations

from dataclasses import dataclass

from codegen.emit.triton_helpers import Helpers
from codegen.emit.triton_types import bare_is_safe, literal, tl, typed
from codegen.emit.writer import atom, factor
from dsl.dtype import Dtype, bool_, f32, f64, u32
from dsl.errors import TargetError

_INFIX = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
          "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ON_BOOL = {"add": "|", "max": "|", "mul": "&", "min": "&"}
_NATIVE = frozenset({"exp", "exp2", "log", "log2", "sin", "cos", "rsqrt", "erf", "sigmoid"})
_EXPANDED = frozenset({"expm1", "log10", "log1p", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erfc",
                       "atan2", "pow"})


@dataclass(frozen=True)
class Operand:
    """Text of a value, or a literal when ``value`` is set."""

    text: str
    dtype: Dtype
    value: bool | int | float | None = None

    @staticmethod
    def const(value: bool | int | float, dtype: Dtype) -> Operand:
        """A literal."""
        return Operand(literal(value, dtype), dtype, value)

    @property
    def typed(self) -> str:
        """Text with this dtype wherever it stands."""
        return self.text if self.value is None else typed(self.value, self.dtype)

    @property
    def argument(self) -> str:
        """Text for a function that takes its dtype from the other arguments."""
        return self.text if self.value is None or bare_is_safe(self.value, self.dtype) else self.typed


def pointwise(name: str, args: list[Operand], dtype: Dtype, helpers: Helpers) -> str:
    """An operation of the opset, or ``where``, as an expression of ``dtype``; operands are of one dtype and broadcast.

    Raises:
        TargetError: the operation has no meaning on these dtypes on a GPU.
    """
    if all(a.value is not None for a in args):
        args = [Operand(a.typed, a.dtype) for a in args]
    operand = args[-1].dtype
    if operand is bool_ and name in _ON_BOOL:
        return _infix(_ON_BOOL[name], args)
    if name in _INFIX or (name == "div" and operand.is_float):
        return _infix(_INFIX.get(name, "/"), args)
    if name == "where":
        return f"tl.where({args[0].typed}, {args[1].argument}, {args[2].argument})"
    if name in ("min", "max"):
        nan = ", propagate_nan=tl.PropagateNan.ALL" if operand.is_float else ""
        return f"tl.{name}imum({args[0].argument}, {args[1].argument}{nan})"
    if operand.is_float:
        return _on_floats(name, [a.typed for a in args], operand, helpers)
    return _on_integers(name, [a.typed for a in args], operand, helpers)


def _infix(symbol: str, args: list[Operand]) -> str:
    wrap = factor if symbol in "+-" else atom
    return f" {symbol} ".join(wrap(a.text) if a.value is None else a.text for a in args)


def _on_floats(name: str, args: list[str], dtype: Dtype, helpers: Helpers) -> str:
    x, text = args[0], ", ".join(args)
    simple = {
        "neg": f"-{atom(x)}", "abs": f"tl.abs({x})", "detach": x, "floor": f"tl.floor({x})", "ceil": f"tl.ceil({x})",
        "fma": f"tl.fma({text})", "isnan": f"{atom(x)} != {atom(x)}", "isinf": f'tl.abs({x}) == float("inf")',
        "isfinite": f'tl.abs({x}) < float("inf")', "sqrt": f"tl.sqrt_rn({x})" if dtype == f32 else f"tl.sqrt({x})",
    }
    if name in simple:
        return simple[name]
    if name in _NATIVE:
        return f"tl.{name}({x})"
    if name in ("sign", "trunc"):
        return f"{helpers.use(name)}({x})"
    if name == "round":
        return f"{helpers.use('rint_' + dtype.name)}({x})"
    if name in ("mod", "floordiv"):
        return f"{helpers.remainder(name, dtype)}({text})"
    if name == "lgamma":
        call = f"{helpers.use('lgamma_f64')}({x if dtype == f64 else f'{atom(x)}.to(tl.float64)'})"
        return call if dtype == f64 else f"{call}.to(tl.float32)"
    if name in _EXPANDED:
        return f"{helpers.maths(name, dtype)}({text})"
    raise TargetError(f"`{name}` of {dtype} is not available on a GPU")


def _on_integers(name: str, args: list[str], dtype: Dtype, helpers: Helpers) -> str:
    x, text = args[0], ", ".join(args)
    simple = {
        "neg": f"-{atom(x)}", "abs": f"tl.abs({x})" if dtype.signed else x,
        "not": f"~{atom(x)}" if dtype.signed or dtype is bool_ else f"{atom(x)} ^ {(1 << dtype.bits) - 1}",
        "floor": x, "ceil": x, "round": x, "trunc": x, "detach": x,
        "isnan": f"{atom(x)} != {atom(x)}", "isinf": f"{atom(x)} != {atom(x)}", "isfinite": f"{atom(x)} == {atom(x)}",
        "fma": " + ".join((" * ".join(map(atom, args[:2])), *args[2:])),
    }
    if name in simple:
        return simple[name]
    if name in ("floordiv", "mod"):
        return f"{helpers.use(name + '_int')}({text})"
    if name == "sign":
        return f"{helpers.use(name)}({x})"
    if name == "pow":
        return f"{helpers.use('int_pow')}({text}, {dtype.bits - dtype.signed})"
    if name == "mulhi" and dtype == u32:
        return f"tl.umulhi({text})"
    raise TargetError(f"`{name}` of {dtype} is not available on a GPU")


def convert(x: Operand, to: Dtype, helpers: Helpers) -> str:
    """Conversion: floats round to nearest even, float to int truncates and saturates (NaN is 0), to bool tests ``!= 0``."""
    source, text = x.dtype, atom(x.typed)
    if source == to:
        return x.typed
    if to is bool_:
        return f"({f'{text}.to(tl.float32)' if source.is_low else text} != 0)"
    if source.is_float and to.is_int:
        held, text = (f32, f"{text}.to(tl.float32)") if source.is_low else (source, x.typed)
        return f"{helpers.saturating(held, to)}({text})"
    if to.is_low and source != f32:
        text = f"{text}.to(tl.float32)"
    if to.name in ("f8e4m3", "f8e5m2"):
        return f"{helpers.use('to_' + to.name)}({text})"
    if source.name in ("f8e4m3", "f8e5m2") and to == f64:
        text = f"{text}.to(tl.float32)"
    return f"{text}.to({tl(to)})"
