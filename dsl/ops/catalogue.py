"""Every operation of the language by subject: what ``dlc`` exports, and the table in the documentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dsl.ops import (
    activation,
    attention,
    compound,
    conv,
    creation,
    cumulative,
    einsum,
    indexing,
    joining,
    loss,
    matmul,
    norm,
    padding,
    pointwise,
    pooling,
    random,
    reduction,
    resize,
    shape,
)

_SUBJECTS: dict[str, tuple[Any, str]] = {
    "Arithmetic": (pointwise, "add sub mul div true_divide floordiv remainder fmod pow neg abs sign square reciprocal maximum minimum"),
    "Elementary functions": (pointwise, "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan atan2 sinh cosh tanh "
                                        "asinh acosh atanh erf erfc lgamma sigmoid"),
    "Rounding and limits": (pointwise, "floor ceil round trunc clip clamp clamp_min clamp_max"),
    "Comparisons, logic and bits": (pointwise, "equal not_equal less less_equal greater greater_equal isnan isinf isfinite logical_and "
                                               "logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not "
                                               "left_shift right_shift"),
    "Selection and conversion": (pointwise, "where cast detach precision"),
    "Compound functions": (compound, "lerp logaddexp logaddexp2 hypot xlogy copysign heaviside nan_to_num frac logit sinc deg2rad rad2deg "
                                     "signbit isclose addcmul addcdiv digamma"),
    "Activations": (activation, "relu relu6 leaky_relu prelu elu celu selu gelu silu mish softplus softsign logsigmoid hardtanh "
                                "hardsigmoid hardswish hardshrink softshrink tanhshrink threshold glu swiglu geglu"),
    "Reductions": (reduction, "sum prod mean max min amax amin aminmax any all argmax argmin count_nonzero logsumexp var std var_mean "
                              "std_mean norm"),
    "Prefixes": (cumulative, "scan cumsum cumprod cummax cummin logcumsumexp"),
    "Products": (matmul, "matmul mm bmm mv dot outer kron linear addmm addmv baddbmm"),
    "Einstein summation": (einsum, "einsum"),
    "Convolutions": (conv, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    "Pools": (pooling, " ".join(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3))),
    "Norms": (norm, "softmax softmin log_softmax layer_norm rms_norm batch_norm group_norm instance_norm normalize"),
    "Losses": (loss, "cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy "
                     "binary_cross_entropy_with_logits kl_div soft_margin_loss hinge_embedding_loss poisson_nll_loss cosine_similarity "
                     "pairwise_distance"),
    "Attention": (attention, "scaled_dot_product_attention"),
    "Other shapes": (shape, "reshape flatten ravel unflatten squeeze unsqueeze permute transpose swapaxes matrix_transpose moveaxis "
                            "broadcast_to expand expand_as broadcast_tensors tile repeat repeat_interleave flip roll rot90"),
    "Parts and joins": (joining, "concat cat stack hstack vstack split chunk tensor_split unbind select narrow meshgrid"),
    "Positions as data": (indexing, "gather take_along_dim index_select take embedding one_hot masked_fill triu tril diagonal diag "
                                    "diag_embed diff"),
    "Padding": (padding, "pad"),
    "Images": (resize, "interpolate pixel_shuffle pixel_unshuffle unfold fold"),
    "Made of indices": (creation, "arange linspace full zeros ones eye iota tri full_like zeros_like ones_like"),
    "Random numbers": (random, "rand randn randint bernoulli dropout"),
}

SYNONYMS: dict[str, str] = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "subtract": "sub",
    "multiply": "mul", "divide": "div", "floor_divide": "floordiv", "mod": "remainder", "negative": "neg", "absolute": "abs",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "bitwise_left_shift": "left_shift", "bitwise_right_shift": "right_shift", "fix": "trunc", "expand_dims": "unsqueeze",
    "permute_dims": "permute", "movedim": "moveaxis", "swapdims": "swapaxes",
    "concatenate": "concat", "stop_gradient": "detach", "bce_loss": "binary_cross_entropy",
    "bce_with_logits_loss": "binary_cross_entropy_with_logits", "vector_norm": "norm", "special_expit": "sigmoid",
}


def operations() -> dict[str, Callable[..., Any]]:
    """Every operation by its name, synonyms too."""
    own = {name: getattr(module, name) for module, names in _SUBJECTS.values() for name in names.split()}
    return own | {name: own[of] for name, of in SYNONYMS.items()}


def subjects() -> Mapping[str, Mapping[str, Callable[..., Any]]]:
    """The operations by subject, in the order of the documentation."""
    return {title: {name: getattr(module, name) for name in names.split()} for title, (module, names) in _SUBJECTS.items()}


def markdown() -> str:
    """The operations as tables for the documentation: call, and what it gives."""
    other: dict[str, list[str]] = {}
    for name, of in SYNONYMS.items():
        other.setdefault(of, []).append(name)
    out = []
    for title, group in subjects().items():
        out += [f"### {title}", "", "| call | result |", "|---|---|"]
        for name, fn in group.items():
            also = f" Also `{'`, `'.join(other[name])}`." if name in other else ""
            out.append(f"| `{name}{_arguments(fn)}` | {_summary(fn)}{also} |")
        out.append("")
    return "\n".join(out)


def _arguments(fn: Callable[..., Any]) -> str:
    parts = []
    starred = False
    for p in inspect.signature(fn).parameters.values():
        text = f"*{p.name}" if p.kind is p.VAR_POSITIONAL else p.name
        starred = starred or p.kind is p.VAR_POSITIONAL
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        parts.append(text if p.default is p.empty else f"{text}={p.default!r}")
    return f"({', '.join(parts)})".replace("|", "\\|")


def _summary(fn: Callable[..., Any]) -> str:
    first = (inspect.getdoc(fn) or "").split("\n\n")[0].replace("\n", " ")
    return first.replace("``", "`").replace("|", "\\|").replace(":func:", "")
