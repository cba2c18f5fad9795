"""The operators against torch: how each is called in both, and on what. Data for test_against_torch.py and test_gradients.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

import dlc

Spec = Any


@dataclass(frozen=True)
class Case:
    """One call: ``dlc(*args)`` must give what ``torch(*args)`` gives.

    Attributes:
        name: of the test.
        ours, theirs: functions of the arguments.
        args: shapes; or (shape, kind) with a kind of ``values``; with a ``!`` when torch has no gradient for it.
        grad: whether the gradients are compared.
        fixed: sizes are numbers in the declaration, not symbols.
        tol: relative tolerance in f32; f64 takes 1e-11.
    """

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    args: tuple[Spec, ...]
    grad: bool = True
    fixed: bool = False
    tol: float = 3e-6
    dtypes: tuple[str, ...] = field(default=("f32", "f64"))


def values(spec: Spec, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """A random argument: ``(shape, kind)``."""
    shape, kind = spec if len(spec) == 2 and isinstance(spec[0], tuple) else (spec, "normal")
    kind = kind.rstrip("!")
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    if kind == "bool":
        return unit > 0.4
    if kind.startswith("int"):
        low, high = (int(n) for n in kind.split(":")[1:])
        return torch.randint(low, high, shape, generator=generator)
    table = {"normal": normal, "positive": unit * 3 + 0.1, "unit": unit * 0.9 + 0.05, "wide": normal * 4, "ties": torch.round(normal * 1.5),
             "above": unit * 3 + 1.1, "sign": torch.sign(normal), "log": torch.log_softmax(normal, -1) if shape else normal,
             "shares": torch.softmax(normal, min(1, len(shape) - 1)) if shape else normal, "apart": normal + 3 * torch.sign(normal)}
    return table[kind].to(dtype)


def _one(names: str, kind: str = "normal", **more: Any) -> list[Case]:
    """Functions of one tensor with the same name in both."""
    return [Case(n, getattr(dlc, n), getattr(torch, n, None) or getattr(torch.special, n, None) or getattr(F, n), (((3, 5), kind),), **more)
            for n in names.split()]


def _two(names: str, kinds: tuple[str, str] = ("normal", "normal"), **more: Any) -> list[Case]:
    return [Case(n, getattr(dlc, n), getattr(torch, n), (((3, 1, 5), kinds[0]), ((4, 5), kinds[1])), **more) for n in names.split()]


def _c(name: str, ours: Callable[..., Any], theirs: Callable[..., Any], *args: Spec, **more: Any) -> Case:
    return Case(name, ours, theirs, args, **more)


def _same(name: str, fn: Callable[[Any, Any], Any], *args: Spec, **more: Any) -> Case:
    """A call that is spelled alike: ``fn(module, tensors)``."""
    def ours(*t: Any) -> Any:
        return fn(dlc, *t)

    def theirs(*t: Any) -> Any:
        return fn(_Torch, *t)

    return Case(name, ours, theirs, args, **more)


class _TorchNames:
    """torch and torch.nn.functional by one name."""

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name) if hasattr(F, name) and name not in ("scaled",) else getattr(torch, name)


_Torch = _TorchNames()
A, B = (3, 5), (4, 5)
CUBE = (2, 3, 4)

POINTWISE = [
    *_one("exp exp2 expm1 sin cos tan atan sinh cosh tanh asinh erf erfc sigmoid square sinc deg2rad rad2deg frac"),
    *_one("log log2 log10 log1p sqrt rsqrt reciprocal", "positive"),
    *_one("lgamma digamma", "positive", tol=2e-5),
    *_one("asin acos atanh logit", "unit"),
    *_one("acosh", "above"),
    *_one("abs neg sign floor ceil round trunc nan_to_num"),
    *_one("isnan isinf isfinite signbit logical_not", grad=False),
    *_one("relu relu6 elu celu selu gelu silu mish softplus softsign logsigmoid hardtanh hardswish hardshrink softshrink tanhshrink "
          "leaky_relu",
          "wide"),
    *_one("hardsigmoid", "wide", grad=False),  # torch's own derivative has a float32 1/6 in it
    *_two("add sub mul maximum minimum atan2 hypot logaddexp logaddexp2 copysign"),
    *_two("div remainder fmod true_divide", ("wide", "apart")),
    *_two("xlogy pow", ("positive", "positive")),
    *_two("eq ne lt le gt ge isclose logical_and logical_or logical_xor", ("ties", "ties"), grad=False),
    *_two("maximum minimum", ("ties", "ties")),
    _same("floor_divide", lambda m, a, b: m.floor_divide(a, b), (A, "wide"), (A, "apart"), grad=False),
    _same("div_trunc", lambda m, a, b: m.div(a, b, rounding_mode="trunc"), (A, "wide"), (A, "apart"), grad=False),
    _same("heaviside", lambda m, a, b: m.heaviside(a, b), (A, "ties"), A, grad=False),
    _same("clamp", lambda m, a: m.clamp(a, -0.5, 0.7), A),
    _same("clamp_by_tensors", lambda m, a, b, c: m.clamp(a, b, c), A, (A, "sign"), (A, "positive")),
    _same("clamp_min", lambda m, a: m.clamp_min(a, 0.25), A),
    _same("lerp", lambda m, a, b, w: m.lerp(a, b, w), A, A, A),
    _same("where", lambda m, c, a, b: m.where(c, a, b), (A, "bool"), A, (5,)),
    _same("addcmul", lambda m, a, b, c: m.addcmul(a, b, c, value=0.5), A, A, A),
    _same("addcdiv", lambda m, a, b, c: m.addcdiv(a, b, c, value=0.5), A, A, (A, "positive")),
    _same("masked_fill", lambda m, a, c: m.masked_fill(a, c, 2.5) if m is dlc else a.masked_fill(c, 2.5), A, (A, "bool")),
    _same("gelu_tanh", lambda m, a: m.gelu(a, approximate="tanh"), (A, "wide")),
    _same("softplus_beta", lambda m, a: m.softplus(a, beta=2.0, threshold=3.0), (A, "wide")),
    _same("threshold", lambda m, a: m.threshold(a, 0.1, 20.0), A),
    _same("threshold_of_integers", lambda m, a: m.threshold(a, 1.5, 20.7), (A, "int:-9:9"), grad=False),
    _same("hardtanh_of_integers", lambda m, a: m.hardtanh(a, -2.5, 2.5), (A, "int:-9:9"), grad=False),
    _same("prelu", lambda m, a, w: m.prelu(a, w), (2, 3, 4), (3,)),
    _same("prelu_one", lambda m, a, w: m.prelu(a, w), (2, 3, 4), (1,)),
    _same("glu", lambda m, a: m.glu(a, 1) if m is not dlc else m.glu(a, axis=1), (3, 6), fixed=True),
    *[_same(f"power_{n}", lambda m, a, n=n: a ** n, (A, "positive")) for n in (2, 3, -1, 0.5, -0.5, 2.5, 0, 1)],
    _same("power_of_negative", lambda m, a: a ** 3 + a ** 2 - a, A),
    _same("scalar_left", lambda m, a: 2.0 - 1.0 / a + 2 ** a, (A, "positive")),
    _same("operators", lambda m, a, b: -a + abs(b) * a / (b * b + 1) - a % 0.7 + (a > b) * 1.0, A, A),
]

REDUCTIONS = [
    *[_same(f"{n}_{label}", lambda m, a, n=n, kw=kw: getattr(m, n)(a, **kw), CUBE)
      for n in ("sum", "mean", "amax", "amin", "logsumexp", "var", "std")
      for label, kw in (("axis", {"dim": 1}), ("last", {"dim": -1, "keepdim": True}), ("two", {"dim": (0, 2)}))],
    *[_same(f"{n}_all", lambda m, a, n=n: getattr(m, n)(a), CUBE) for n in ("sum", "mean", "prod", "amax", "amin", "var", "std")],
    *[_c(f"{n}_with_indices_{dim}", lambda a, n=n, dim=dim: getattr(dlc, n)(a, dim, return_indices=True),
         lambda a, n=n, dim=dim: tuple(getattr(torch, n)(a, dim)), (CUBE, "ties")) for n in ("max", "min") for dim in (1, -1)],
    _c("max_with_indices_keepdim", lambda a: dlc.max(a, 0, True, return_indices=True), lambda a: tuple(torch.max(a, 0, True)), CUBE),
    _c("max_values", lambda a: dlc.max(a, 1), lambda a: torch.amax(a, 1), CUBE),
    _c("min_all", dlc.min, torch.min, (CUBE, "ties")),
    _c("max_all_ties", dlc.max, torch.max, (CUBE, "ties")),
    _same("max_of_two", lambda m, a, b: m.max(a, b), A, A),
    _same("amax_ties", lambda m, a: m.amax(a, 1), (CUBE, "ties")),
    _same("prod_axis", lambda m, a: m.prod(a, 1), CUBE),
    _same("prod_zeros", lambda m, a: m.prod(a, 1), (CUBE, "ties")),
    _same("prod_keepdim", lambda m, a: m.prod(a, 2, True), CUBE),
    _same("sum_positional", lambda m, a: m.sum(a, (0, 1), True), CUBE),
    _same("sum_dtype", lambda m, a: m.sum(a, 1, dtype=m.float64 if m is not dlc else dlc.f64), CUBE),
    _same("argmax", lambda m, a: m.argmax(a, 1), (CUBE, "ties"), grad=False),
    _same("argmin_keepdim", lambda m, a: m.argmin(a, 2, keepdim=True), (CUBE, "ties"), grad=False),
    _same("argmax_all", lambda m, a: m.argmax(a), CUBE, grad=False),
    _same("any", lambda m, a: m.any(a, 1), ((3, 2), "bool"), grad=False),
    _same("all", lambda m, a: m.all(a, 0, keepdim=True), ((2, 5), "bool"), grad=False),
    _same("any_of_numbers", lambda m, a: m.any(a), (CUBE, "ties"), grad=False),
    _same("count_nonzero", lambda m, a: m.count_nonzero(a, 1), (CUBE, "ties"), grad=False),
    _same("count_nonzero_all", lambda m, a: m.count_nonzero(a), (CUBE, "ties"), grad=False),
    _same("var_population", lambda m, a: m.var(a, 1, correction=0), CUBE),
    _same("var_unbiased", lambda m, a: m.var(a, 1, False), CUBE),
    _same("var_mean", lambda m, a: m.var_mean(a, 1), CUBE),
    _same("std_mean", lambda m, a: m.std_mean(a, 1), CUBE),
    _same("aminmax", lambda m, a: (m.amin(a, 1), m.amax(a, 1)), CUBE),
    *[_c(f"norm_{p}", lambda a, p=p: dlc.norm(a, p, axis=1), lambda a, p=p: torch.linalg.vector_norm(a, p, 1), CUBE)
      for p in (2, 1, 3, 0.5, float("inf"), float("-inf"))],
    _c("norm_0", lambda a: dlc.norm(a, 0, axis=1), lambda a: torch.linalg.vector_norm(a, 0, 1), (CUBE, "ties"), grad=False),
    _c("norm_all", lambda a: dlc.norm(a), lambda a: torch.linalg.vector_norm(a), CUBE),
    *[_same(n, lambda m, a, n=n: getattr(m, n)(a, 1), CUBE) for n in ("cumsum", "cumprod", "logcumsumexp")],
    _c("cummax", lambda a: dlc.cummax(a, 1)[0], lambda a: torch.cummax(a, 1)[0], CUBE),
    _same("methods",
          lambda m, a: a.sum(1).mean() + a.std() + a.amax(dim=(0, 1)).sum() - a.max() + a.abs().exp().sum(-1, keepdim=True).mean(), CUBE),
]

PRODUCTS = [
    *[_same(f"matmul_{n}", lambda m, a, b: m.matmul(a, b), a, b) for n, (a, b) in enumerate([
        ((3, 4), (4, 5)), ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (6, 4, 5)), ((3, 4), (2, 4, 5)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,)), ((1, 3, 4), (2, 4, 5))])],
    _same("operator", lambda m, a, b: a @ b, A, (5, 2)),
    _same("mm", lambda m, a, b: m.mm(a, b), A, (5, 2)),
    _same("bmm", lambda m, a, b: m.bmm(a, b), CUBE, (2, 4, 5)),
    _same("mv", lambda m, a, b: m.mv(a, b), A, (5,)),
    _same("dot", lambda m, a, b: m.dot(a, b), (5,), (5,)),
    _same("outer", lambda m, a, b: m.outer(a, b), (3,), (5,)),
    _same("kron", lambda m, a, b: m.kron(a, b), (2, 3), (4, 5)),
    _same("kron_ranks", lambda m, a, b: m.kron(a, b), (3,), (4, 5)),
    _same("linear", lambda m, a, w, b: m.linear(a, w, b), (2, 3, 5), (4, 5), (4,)),
    _same("linear_vector", lambda m, a, w: m.linear(a, w), (3, 5), (5,)),
    _same("addmm", lambda m, c, a, b: m.addmm(c, a, b, beta=0.5, alpha=2.0), (2,), A, (5, 2)),
    _same("addmv", lambda m, c, a, b: m.addmv(c, a, b), (3,), A, (5,)),
    _same("baddbmm", lambda m, c, a, b: m.baddbmm(c, a, b, alpha=0.5), (2, 3, 5), CUBE, (2, 4, 5)),
    *[_same(f"einsum_{e}", lambda m, *t, e=e: m.einsum(e, *t), *shapes) for e, *shapes in [
        ("ij,jk->ik", A, (5, 2)), ("bij,bjk->bik", CUBE, (2, 4, 5)), ("ij->ji", A), ("ij->", A), ("ii->i", (4, 4)), ("ii", (4, 4)),
        ("ij,kj", A, B), ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)), ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 6)),
        ("i,j,k->ijk", (2,), (3,), (4,)), ("ij,jk,kl->il", A, (5, 2), (2, 4)), ("ij,ij->i", A, A), ("...i->i...", CUBE),
        ("i,i", (5,), (5,)), ("ij,i,j->", A, (3,), (5,)), ("bi,bj->bij", A, (3, 2))]],
]

SHAPES = [
    _same("reshape", lambda m, a: m.reshape(a, (6, 4)), CUBE, fixed=True),
    _same("reshape_split", lambda m, a: a.reshape(2, 3, 2, -1), CUBE, fixed=True),
    _same("reshape_crossing", lambda m, a: a.reshape(3, 8), CUBE, fixed=True),
    _same("reshape_units", lambda m, a: a.reshape(1, 2, 1, 12, 1), CUBE, fixed=True),
    _same("reshape_symbolic", lambda m, a: a.reshape(a.shape[0], -1), CUBE),
    _same("flatten", lambda m, a: m.flatten(a), CUBE),
    _same("flatten_some", lambda m, a: a.flatten(1), CUBE),
    _same("unflatten", lambda m, a: a.unflatten(1, (2, -1)), (3, 6), fixed=True),
    _same("flatten_and_back", lambda m, a: (a.flatten() * 2).reshape(a.shape), CUBE),
    _same("squeeze", lambda m, a: m.squeeze(a), (1, 3, 1, 2)),
    _same("squeeze_axis", lambda m, a: m.squeeze(a, 0), (1, 3, 1, 2)),
    _same("unsqueeze", lambda m, a: m.unsqueeze(a, -1) + a.unsqueeze(1), (3, 3)),
    _same("permute", lambda m, a: m.permute(a, (2, 0, 1)), CUBE),
    _same("permute_method", lambda m, a: a.permute(1, 0, 2), CUBE),
    _same("transpose", lambda m, a: m.transpose(a, 0, 2), CUBE),
    _same("transpose_T", lambda m, a: a.T * 2, A),
    _same("transpose_mT", lambda m, a: a.mT * 2, CUBE),
    _same("moveaxis", lambda m, a: m.moveaxis(a, (0, 1), (2, 0)), CUBE),
    _same("swapaxes", lambda m, a: m.swapaxes(a, 0, 1), CUBE),
    _same("broadcast_to", lambda m, a: m.broadcast_to(a, (4, 3, 5)), (3, 1), fixed=True),
    _same("expand", lambda m, a: a.expand(4, -1, 5), (3, 1)),
    _c("tile", lambda a: dlc.tile(a, 2, 3), lambda a: torch.tile(a, (2, 3)), A),
    _same("repeat", lambda m, a: a.repeat(2, 1, 3), A),
    _same("repeat_interleave", lambda m, a: m.repeat_interleave(a, 3, dim=1), A),
    _same("repeat_interleave_flat", lambda m, a: m.repeat_interleave(a, 2), A),
    _same("flip", lambda m, a: m.flip(a, (0, 2)), CUBE),
    _same("roll", lambda m, a: m.roll(a, 2, 1), CUBE),
    _same("roll_two", lambda m, a: m.roll(a, (-1, 2), (0, 2)), CUBE),
    _same("roll_flat", lambda m, a: m.roll(a, 5), CUBE),
    *[_same(f"rot90_{k}", lambda m, a, k=k: m.rot90(a, k), A) for k in (1, 2, 3)],
    _same("concat", lambda m, a, b, c: m.cat([a, b, c], 1), (3, 2), A, (3, 1)),
    _same("concat_first", lambda m, a, b: m.cat((a, b)), A, B),
    _same("stack", lambda m, a, b: m.stack([a, b], 1), A, A),
    _same("hstack_vstack", lambda m, a, b: (m.hstack((a, b)), m.vstack((a, b))), A, A),
    _same("split", lambda m, a: m.split(a, 2, 1), A, fixed=True),
    _same("split_sizes", lambda m, a: m.split(a, [1, 4], dim=1), A, fixed=True),
    _same("chunk", lambda m, a: m.chunk(a, 3, 1), A, fixed=True),
    _same("tensor_split", lambda m, a: m.tensor_split(a, 3, 1), A, fixed=True),
    _same("unbind", lambda m, a: m.unbind(a, 0), A, fixed=True),
    _same("iteration", lambda m, a: sum(row * (n + 1) for n, row in enumerate(a)), A, fixed=True),
    _same("select_narrow", lambda m, a: (a.select(1, -1), a.narrow(1, 1, 3)), A),
    _same("meshgrid", lambda m, a, b: m.meshgrid(a, b, indexing="ij"), (3,), (4,)),
    _c("slices", lambda a: (a[:, ::2], a[1:], a[..., 0], a[None], a[:, 1:4:2], a[-1], a[:, -2:]),
       lambda a: (a[:, ::2], a[1:], a[..., 0], a[None], a[:, 1:4:2], a[-1], a[:, -2:]), (3, 5)),
    _c("negative_step", lambda a: a[:, ::-2], lambda a: a.flip(1)[:, ::2], A),
    _same("gather_by_index", lambda m, a, i: a[i], A, ((2, 4), "int:-3:3")),
    _same("gather_two", lambda m, a, i, j: a[i, :, j], CUBE, ((5,), "int:0:2"), ((5,), "int:-4:4")),
    _same("triu_tril", lambda m, a: (m.triu(a, 1), m.tril(a), m.triu(a, -1), m.tril(a, 2)), A),
    _same("diagonal", lambda m, a: (m.diagonal(a, 1, 0, 2), a.diagonal(-1)), CUBE, fixed=True),
    _same("diag", lambda m, a, b: (m.diag(a), m.diag(a, 1), m.diag(b), m.diag(b, -1)), (4,), A, fixed=True),
    _same("diag_embed", lambda m, a: (m.diag_embed(a), m.diag_embed(a, -1)), A),
    _same("trace_method", lambda m, a: a.trace(), A),
    _same("diff", lambda m, a: m.diff(a, 2, 0), (5, 3)),
    _same("pad_constant", lambda m, a: m.pad(a, (1, 2, 0, 3), value=1.5), A),
    _same("pad_crop", lambda m, a: m.pad(a, (-1, 2, 1, -1)), A, fixed=True),
    *[_same(f"pad_{mode}", lambda m, a, mode=mode: m.pad(a, (2, 1, 1, 2), mode=mode), (1, 2, 4, 5), fixed=mode != "replicate")
      for mode in ("reflect", "replicate", "circular")],
]

INDEXED = [
    _same("gather", lambda m, a, i: m.gather(a, 1, i), A, ((3, 2), "int:0:5")),
    _same("take_along_dim", lambda m, a, i: m.take_along_dim(a, i, 1), CUBE, ((2, 2, 1), "int:-3:3")),
    _same("take_along_flat", lambda m, a, i: m.take_along_dim(a, i), A, ((4,), "int:0:15")),
    _same("index_select", lambda m, a, i: m.index_select(a, 1, i), A, ((7,), "int:0:5")),
    _same("take", lambda m, a, i: m.take(a, i), A, ((2, 2), "int:-15:15")),
    _same("embedding", lambda m, i, w: m.embedding(i, w), ((2, 3), "int:0:4"), (4, 5)),
    _same("embedding_padding", lambda m, i, w: m.embedding(i, w, padding_idx=1), ((2, 3), "int:0:3"), (3, 5)),
    _same("one_hot", lambda m, i: m.one_hot(i, 4), ((2, 3), "int:0:4"), grad=False),
]

CREATED = [
    _c("arange", lambda a: (dlc.arange(5), dlc.arange(2, 9), dlc.arange(9, 1, -2), dlc.arange(0.0, 1.0, 0.3), dlc.arange(5.0)),
       lambda a: (torch.arange(5), torch.arange(2, 9), torch.arange(9, 1, -2), torch.arange(0.0, 1.0, 0.3), torch.arange(5.0)), (2,),
       grad=False, dtypes=("f32",)),
    _c("linspace", lambda a: (dlc.linspace(-1, 2, 7), dlc.linspace(0, 1, 1)), lambda a: (torch.linspace(-1, 2, 7), torch.linspace(0, 1, 1)),
       (2,), grad=False, dtypes=("f32",)),
    _c("constants",
       lambda a: (dlc.zeros(2, 3), dlc.ones((2,), dtype=dlc.f64), dlc.full((3,), 2), dlc.full((2, 2), 1.5), dlc.eye(3), dlc.eye(2, 4)),
       lambda a: (torch.zeros(2, 3), torch.ones(2, dtype=torch.float64), torch.full((3,), 2), torch.full((2, 2), 1.5), torch.eye(3),
                  torch.eye(2, 4)), (2,),
       grad=False, dtypes=("f32",)),
    _same("like", lambda m, a: (m.zeros_like(a), m.ones_like(a), m.full_like(a, 2.5)), A, grad=False),
]


def _conv(rank: int, n: int, x: tuple[int, ...], w: tuple[int, ...], bias: bool = True, **kw: Any) -> Case:
    name = f"conv{rank}d"
    args = (x, w, (w[0],)) if bias else (x, w)
    return _same(f"{name}_{n}", lambda m, a, w, *b: getattr(m, name)(a, w, *b, **kw), *args, fixed=True, tol=2e-5)


def _convt(rank: int, n: int, x: tuple[int, ...], w: tuple[int, ...], bias: bool = True, **kw: Any) -> Case:
    name = f"conv_transpose{rank}d"
    args = (x, w, (w[1] * kw.get("groups", 1),)) if bias else (x, w)
    return _same(f"{name}_{n}", lambda m, a, w, *b: getattr(m, name)(a, w, *b, **kw), *args, fixed=True, tol=2e-5)


CONVOLUTIONS = [
    _conv(1, 0, (2, 3, 9), (4, 3, 3)), _conv(1, 1, (2, 4, 9), (6, 2, 3), stride=2, padding=1, groups=2),
    _conv(1, 2, (3, 9), (4, 3, 2), padding="same"), _conv(1, 3, (2, 3, 9), (4, 3, 4), padding="same", dilation=2),
    _conv(1, 4, (2, 3, 9), (4, 3, 3), False, padding="valid", stride=3),
    _conv(2, 0, (2, 3, 6, 7), (4, 3, 3, 2)), _conv(2, 1, (2, 3, 6, 7), (4, 3, 3, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    _conv(2, 2, (1, 4, 5, 5), (4, 1, 3, 3), False, padding=1, groups=4), _conv(2, 3, (1, 4, 5, 5), (8, 1, 3, 3), padding="same", groups=4),
    _conv(2, 4, (1, 2, 5, 6), (3, 2, 1, 1), stride=2), _conv(3, 0, (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), padding=1, stride=(1, 2, 1)),
    _conv(3, 1, (1, 4, 4, 4, 4), (2, 2, 2, 2, 2), groups=2, dilation=2, padding=1),
    _convt(1, 0, (2, 3, 5), (3, 4, 3)), _convt(1, 1, (2, 4, 5), (4, 3, 3), stride=2, padding=1, output_padding=1, groups=2),
    _convt(1, 2, (2, 3, 5), (3, 4, 4), stride=3, dilation=2),
    _convt(1, 3, (2, 3, 5), (3, 4, 4), stride=4, dilation=2, padding=2, output_padding=3),
    _convt(1, 4, (2, 3, 5), (3, 4, 3), stride=2, dilation=3, output_padding=2), _convt(1, 5, (2, 2, 4), (2, 2, 2), stride=4),
    _convt(2, 0, (2, 3, 4, 5), (3, 4, 3, 3), stride=2, padding=1),
    _convt(2, 1, (1, 4, 3, 4), (4, 2, 2, 3), stride=(2, 3), groups=2, output_padding=(1, 0)),
    _convt(2, 2, (1, 3, 4, 4), (3, 2, 3, 3), False, dilation=2),
    _convt(3, 0, (1, 2, 3, 3, 2), (2, 3, 2, 3, 2), stride=2, padding=(0, 1, 0)),
]


def _pool(kind: str, rank: int, n: int, x: tuple[int, ...], *args: Any, kindx: str = "normal", **kw: Any) -> Case:
    name = f"{kind}_pool{rank}d"
    return _same(f"{name}_{n}", lambda m, a: getattr(m, name)(a, *args, **kw), (x, kindx), fixed=True)


POOLS = [
    _pool("max", 1, 0, (2, 3, 8), 3), _pool("max", 1, 1, (2, 3, 8), 3, 2, 1, ceil_mode=True), _pool("max", 1, 2, (3, 8), 2, 1, 0, 2),
    _pool("max", 2, 0, (2, 3, 6, 7), 2), _pool("max", 2, 1, (2, 3, 6, 7), (3, 2), (2, 1), (1, 0)),
    _pool("max", 2, 2, (1, 2, 7, 7), 3, 2, 1, kindx="ties"), _pool("max", 2, 3, (1, 2, 6, 6), 3, 2, 1, ceil_mode=True, kindx="ties"),
    _pool("max", 3, 0, (1, 2, 4, 5, 4), 2, 2, 1), _pool("max", 3, 1, (1, 1, 4, 4, 4), 2),
    _same("max_pool2d_indices", lambda m, a: m.max_pool2d(a, 3, 2, 1, return_indices=True)[1], ((1, 2, 7, 6), "ties"), fixed=True,
          grad=False),
    _pool("avg", 1, 0, (2, 3, 8), 3), _pool("avg", 1, 1, (2, 3, 8), 3, 2, 1, ceil_mode=True), _pool("avg", 2, 0, (2, 3, 6, 7), 2),
    _pool("avg", 2, 1, (2, 3, 6, 7), (3, 2), (2, 1), (1, 0)), _pool("avg", 2, 2, (2, 3, 6, 7), 3, 2, 1, count_include_pad=False),
    _pool("avg", 2, 3, (2, 3, 6, 7), 3, 2, 1, True, False), _pool("avg", 2, 4, (2, 3, 6, 8), 3, 2, 1, True, True),
    _pool("avg", 2, 5, (2, 3, 6, 7), 3, 2, 1, divisor_override=5), _pool("avg", 3, 0, (1, 2, 4, 5, 4), 2, 1, 1),
    _pool("adaptive_avg", 1, 0, (2, 3, 8), 4), _pool("adaptive_avg", 1, 1, (2, 3, 8), 3), _pool("adaptive_avg", 2, 0, (2, 3, 6, 8), 1),
    _pool("adaptive_avg", 2, 1, (2, 3, 6, 8), (4, 3)), _pool("adaptive_avg", 2, 2, (2, 3, 6, 8), (None, 5)),
    _pool("adaptive_avg", 3, 0, (1, 2, 4, 5, 4), (2, 3, 1)), _pool("adaptive_max", 1, 0, (2, 3, 8), 3),
    _pool("adaptive_max", 2, 0, (2, 3, 6, 8), (4, 3), kindx="ties"), _pool("adaptive_max", 2, 1, (2, 3, 6, 8), 2),
    _pool("adaptive_max", 3, 0, (1, 2, 4, 5, 4), 3),
    _same("global_pool", lambda m, a: m.adaptive_avg_pool2d(a, 1) + a.amax((2, 3), keepdim=True), (2, 3, 4, 5)),
]

NORMS = [
    _same("softmax", lambda m, a: m.softmax(a, 1), CUBE), _same("softmax_last", lambda m, a: a.softmax(-1), CUBE),
    _same("softmin", lambda m, a: m.softmin(a, 1), CUBE), _same("log_softmax", lambda m, a: m.log_softmax(a, dim=1), CUBE),
    _same("softmax_dtype", lambda m, a: m.softmax(a, 1, dtype=dlc.f64 if m is dlc else torch.float64), CUBE),
    _same("layer_norm", lambda m, a, w, b: m.layer_norm(a, (4,), w, b), CUBE, (4,), (4,), fixed=True, tol=1e-5),
    _same("layer_norm_two", lambda m, a, w, b: m.layer_norm(a, (3, 4), w, b, 1e-3), CUBE, (3, 4), (3, 4), fixed=True, tol=1e-5),
    _same("layer_norm_plain", lambda m, a: m.layer_norm(a, a.shape[1:]), CUBE, tol=1e-5),
    _c("layer_norm_short", lambda a, w, b: dlc.layer_norm(a, w, b), lambda a, w, b: F.layer_norm(a, (4,), w, b), CUBE, (4,),
       (4,), tol=1e-5),
    _same("rms_norm", lambda m, a, w: m.rms_norm(a, (4,), w), CUBE, (4,), fixed=True, tol=1e-5),
    _same("rms_norm_eps", lambda m, a, w: m.rms_norm(a, (3, 4), w, 1e-3), CUBE, (3, 4), fixed=True, tol=1e-5),
    _c("rms_norm_short", lambda a, w: dlc.rms_norm(a, w), lambda a, w: F.rms_norm(a, (4,), w, 1e-6), CUBE, (4,), tol=1e-5),
    _same("batch_norm_eval", lambda m, a, u, v, w, b: m.batch_norm(a, u, v, w, b), (2, 3, 4), ((3,), "normal!"), ((3,), "positive!"), (3,),
          (3,), tol=1e-5),
    _same("batch_norm_batch", lambda m, a, w, b: m.batch_norm(a, None, None, w, b, True), (4, 3, 2), (3,), (3,), tol=1e-5),
    _same("group_norm", lambda m, a, w, b: m.group_norm(a, 2, w, b), (2, 4, 3, 2), (4,), (4,), fixed=True, tol=1e-5),
    _same("group_norm_one", lambda m, a: m.group_norm(a, 1), (2, 4, 3), tol=1e-5),
    _same("instance_norm", lambda m, a, w, b: m.instance_norm(a, None, None, w, b), (2, 3, 4, 2), (3,), (3,), tol=1e-5),
    _same("normalize", lambda m, a: m.normalize(a, dim=1), CUBE), _same("normalize_1", lambda m, a: m.normalize(a, 1.0, -1), CUBE),
]

LOSSES = [
    *[_same(f"{n}_{r}", lambda m, a, b, n=n, r=r: getattr(m, n)(a, b, reduction=r), A, A)
      for n in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss") for r in ("mean", "sum", "none")],
    _same("smooth_l1_beta", lambda m, a, b: m.smooth_l1_loss(a, b, beta=0.3), A, A),
    _same("huber_delta", lambda m, a, b: m.huber_loss(a, b, delta=0.3), A, A),
    _same("bce", lambda m, a, b: m.binary_cross_entropy(a, b), (A, "unit"), (A, "unit")),
    _same("bce_weight", lambda m, a, b, w: m.binary_cross_entropy(a, b, w, reduction="sum"), (A, "unit"), (A, "unit"), (A, "positive!")),
    _same("bce_logits", lambda m, a, b: m.binary_cross_entropy_with_logits(a, b), (A, "wide"), (A, "unit")),
    _same("bce_logits_weights", lambda m, a, b, w, p: m.binary_cross_entropy_with_logits(a, b, w, pos_weight=p, reduction="none"),
          (A, "wide"), (A, "unit"), (A, "positive!"), ((5,), "positive!")),
    *[_same(f"kl_div_{r}", lambda m, a, b, r=r: m.kl_div(a, b, reduction=r), (A, "log"), (A, "shares"))
      for r in ("mean", "sum", "none", "batchmean")],
    _same("kl_div_log", lambda m, a, b: m.kl_div(a, b, reduction="sum", log_target=True), (A, "log"), (A, "log")),
    _same("soft_margin_loss", lambda m, a, b: m.soft_margin_loss(a, b), A, (A, "sign!")),
    _same("hinge_embedding_loss", lambda m, a, b: m.hinge_embedding_loss(a, b), A, (A, "sign")),
    _same("poisson_nll_loss", lambda m, a, b: m.poisson_nll_loss(a, b), A, (A, "positive")),
    *[_same(f"cross_entropy_{r}", lambda m, a, t, r=r: m.cross_entropy(a, t, reduction=r), A, ((3,), "int:0:5"))
      for r in ("mean", "sum", "none")],
    _same("cross_entropy_weight", lambda m, a, t, w: m.cross_entropy(a, t, w), (6, 5), ((6,), "int:0:5"), ((5,), "positive!")),
    _same("cross_entropy_ignore", lambda m, a, t: m.cross_entropy(a, t, ignore_index=2), (6, 5), ((6,), "int:0:5")),
    _same("cross_entropy_ignore_outside", lambda m, a, t: m.cross_entropy(a, t - 1, ignore_index=-1), (6, 5), ((6,), "int:0:5")),
    _same("cross_entropy_smooth", lambda m, a, t, w: m.cross_entropy(a, t, w, label_smoothing=0.2, ignore_index=1), (6, 5),
          ((6,), "int:0:5"), ((5,), "positive!")),
    _same("cross_entropy_planes", lambda m, a, t: m.cross_entropy(a, t), (2, 5, 3, 4), ((2, 3, 4), "int:0:5")),
    _same("cross_entropy_vector", lambda m, a, t: m.cross_entropy(a, t), (5,), ((), "int:0:5")),
    _same("cross_entropy_shares", lambda m, a, t: m.cross_entropy(a, t), A, (A, "shares")),
    _same("cross_entropy_shares_weighted", lambda m, a, t, w: m.cross_entropy(a, t, w, label_smoothing=0.1, reduction="sum"),
          (2, 5, 3), ((2, 5, 3), "shares"), (5,)),
    _same("nll_loss", lambda m, a, t: m.nll_loss(a, t), (A, "log"), ((3,), "int:0:5")),
    _same("nll_loss_weight", lambda m, a, t, w: m.nll_loss(a, t, w, ignore_index=0), (2, 5, 3), ((2, 3), "int:0:5"), ((5,), "positive!")),
    _same("cosine_similarity", lambda m, a, b: m.cosine_similarity(a, b, dim=1), CUBE, (1, 3, 4)),
    _c("pairwise_distance", lambda a, b: dlc.pairwise_distance(a, b), lambda a, b: F.pairwise_distance(a, b), A, A),
]

Q, K, V = (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)
ATTENTION = [
    _same("attention", lambda m, q, k, v: m.scaled_dot_product_attention(q, k, v), Q, K, V, fixed=True, tol=1e-5),
    _same("attention_symbolic", lambda m, q, k, v: m.scaled_dot_product_attention(q, k, v), Q, K, V, tol=1e-5),
    _same("attention_causal", lambda m, q, k, v: m.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3), Q, K, V, tol=1e-5),
    _same("attention_mask", lambda m, q, k, v, a: m.scaled_dot_product_attention(q, k, v, a), Q, K, V, ((4, 6), "bool"), tol=1e-5),
    _same("attention_bias", lambda m, q, k, v, a: m.scaled_dot_product_attention(q, k, v, a), Q, K, V, (1, 4, 6), tol=1e-5),
    _same("attention_groups", lambda m, q, k, v: m.scaled_dot_product_attention(q, k, v, enable_gqa=True), (2, 6, 4, 5), K, V,
          fixed=True, tol=1e-5),
    _same("attention_plain", lambda m, q, k, v: m.scaled_dot_product_attention(q, k, v), (1, 4, 5), (1, 6, 5), (1, 6, 5), tol=1e-5),
]

IMAGES = [
    *[_same(f"interpolate_{n}", lambda m, a, kw=kw: m.interpolate(a, **kw), x, fixed=True, tol=1e-5) for n, (x, kw) in enumerate([
        ((2, 3, 5), {"scale_factor": 2}), ((2, 3, 5), {"size": 8}), ((2, 2, 4, 5), {"scale_factor": 2, "mode": "nearest"}),
        ((1, 2, 4, 5), {"size": (7, 3)}), ((1, 2, 4, 5), {"size": (7, 3), "mode": "nearest-exact"}), ((1, 1, 2, 3, 2), {"scale_factor": 2}),
        ((2, 3, 5), {"size": 9, "mode": "linear"}), ((2, 3, 5), {"size": 9, "mode": "linear", "align_corners": True}),
        ((1, 2, 4, 5), {"scale_factor": 2, "mode": "bilinear"}), ((1, 2, 4, 5), {"size": (7, 3), "mode": "bilinear"}),
        ((1, 2, 4, 5), {"size": (7, 3), "mode": "bilinear", "align_corners": True}),
        ((1, 2, 4, 6), {"scale_factor": 0.5, "mode": "bilinear"}), ((1, 2, 4, 5), {"scale_factor": 1.5, "mode": "bilinear"}),
        ((1, 2, 4, 5), {"scale_factor": 1.3, "recompute_scale_factor": True, "mode": "bilinear"}),
        ((1, 1, 2, 3, 2), {"size": (3, 4, 5), "mode": "trilinear"}), ((1, 2, 4, 5), {"scale_factor": 1.5}),
        ((1, 2, 4, 5), {"size": (1, 1), "mode": "bilinear"})])],
    _same("pixel_shuffle", lambda m, a: m.pixel_shuffle(a, 2), (2, 8, 3, 2), fixed=True),
    _same("pixel_unshuffle", lambda m, a: m.pixel_unshuffle(a, 2), (2, 2, 4, 6), fixed=True),
    _same("unfold", lambda m, a: m.unfold(a, (2, 3), padding=1, stride=2), (2, 3, 5, 6), fixed=True),
    _same("unfold_dilated", lambda m, a: m.unfold(a, 2, dilation=2), (3, 5, 6), fixed=True),
    _same("unfold_axis", lambda m, a: a.unfold(1, 3, 2), (2, 7), fixed=True),
    _same("fold", lambda m, a: m.fold(a, (5, 6), (2, 3), padding=1, stride=2), (2, 18, 9), fixed=True),
]

CASES = [*POINTWISE, *REDUCTIONS, *PRODUCTS, *SHAPES, *INDEXED, *CREATED, *CONVOLUTIONS, *POOLS, *NORMS, *LOSSES, *ATTENTION, *IMAGES]
