"""The language: what a user imports to write kernels. ``dlc`` gives the same names."""

from dsl.carrier import Carrier
from dsl.dtype import bf16, bool_, f8e4m3, f8e5m2, f16, f32, f64, i8, i16, i32, i64, u8, u32
from dsl.ops.activation import (
    celu,
    elu,
    geglu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    silu,
    softplus,
    softshrink,
    softsign,
    swiglu,
    tanhshrink,
    threshold,
)
from dsl.ops.attention import (
    scaled_dot_product_attention,
)
from dsl.ops.compound import (
    addcdiv,
    addcmul,
    copysign,
    deg2rad,
    digamma,
    frac,
    heaviside,
    hypot,
    isclose,
    lerp,
    logaddexp,
    logaddexp2,
    logit,
    nan_to_num,
    rad2deg,
    signbit,
    sinc,
    xlogy,
)
from dsl.ops.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from dsl.ops.creation import (
    arange,
    eye,
    full,
    full_like,
    iota,
    linspace,
    ones,
    ones_like,
    tri,
    zeros,
    zeros_like,
)
from dsl.ops.cumulative import (
    cummax,
    cummin,
    cumprod,
    cumsum,
    logcumsumexp,
    scan,
)
from dsl.ops.einsum import (
    einsum,
)
from dsl.ops.indexing import (
    diag,
    diag_embed,
    diagonal,
    diff,
    embedding,
    gather,
    index_select,
    masked_fill,
    one_hot,
    take,
    take_along_dim,
    tril,
    triu,
)
from dsl.ops.joining import (
    cat,
    chunk,
    concat,
    hstack,
    meshgrid,
    narrow,
    select,
    split,
    stack,
    tensor_split,
    unbind,
    vstack,
)
from dsl.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_similarity,
    cross_entropy,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    pairwise_distance,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
)
from dsl.ops.matmul import (
    addmm,
    addmv,
    baddbmm,
    bmm,
    dot,
    kron,
    linear,
    matmul,
    mm,
    mv,
    outer,
)
from dsl.ops.norm import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    log_softmax,
    normalize,
    rms_norm,
    softmax,
    softmin,
)
from dsl.ops.padding import (
    pad,
)
from dsl.ops.pointwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    clamp,
    clamp_max,
    clamp_min,
    clip,
    cos,
    cosh,
    detach,
    div,
    equal,
    erf,
    erfc,
    exp,
    exp2,
    expm1,
    floor,
    floordiv,
    fmod,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    left_shift,
    less,
    less_equal,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mul,
    neg,
    not_equal,
    pow,
    precision,
    reciprocal,
    remainder,
    right_shift,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    tanh,
    true_divide,
    trunc,
    where,
)
from dsl.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from dsl.ops.random import (
    bernoulli,
    dropout,
    rand,
    randint,
    randn,
)
from dsl.ops.reduction import (
    all,
    amax,
    amin,
    aminmax,
    any,
    argmax,
    argmin,
    count_nonzero,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    std,
    std_mean,
    sum,
    var,
    var_mean,
)
from dsl.ops.resize import (
    fold,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    unfold,
)
from dsl.ops.shape import (
    broadcast_tensors,
    broadcast_to,
    expand,
    expand_as,
    flatten,
    flip,
    matrix_transpose,
    moveaxis,
    permute,
    ravel,
    repeat,
    repeat_interleave,
    reshape,
    roll,
    rot90,
    squeeze,
    swapaxes,
    tile,
    transpose,
    unflatten,
    unsqueeze,
)
from dsl.program import compute, dims, reduce_axis, trace

eq = equal
ne = not_equal
lt = less
le = less_equal
gt = greater
ge = greater_equal
subtract = sub
multiply = mul
divide = div
floor_divide = floordiv
mod = remainder
negative = neg
absolute = abs
arcsin = asin
arccos = acos
arctan = atan
arctan2 = atan2
arcsinh = asinh
arccosh = acosh
arctanh = atanh
bitwise_left_shift = left_shift
bitwise_right_shift = right_shift
fix = trunc
expand_dims = unsqueeze
permute_dims = permute
movedim = moveaxis
swapdims = swapaxes
concatenate = concat
stop_gradient = detach
bce_loss = binary_cross_entropy
bce_with_logits_loss = binary_cross_entropy_with_logits
vector_norm = norm
special_expit = sigmoid

__all__ = [n for n in dir() if not n.startswith("_") and n not in ("carrier", "dtype", "ops", "program")]
