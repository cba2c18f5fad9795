"""What a misused operator says: the whole message, without the place."""

import numpy as np
import pytest
import torch

import dsl as dlc
from dsl import f32, u8
from dsl.dim import as_term
from dsl.errors import UserError
from dsl.expr import Input

M, N, K = dlc.dims("M N K")


def _input(name, *shape, dtype=f32):
    return Input(name, tuple(as_term(s) for s in shape), dtype)


NAMES = {
    "dlc": dlc, "M": M, "N": N, "K": K, "x": _input("x", M, K), "w": _input("w", N, M), "y": _input("y", N, K), "v": _input("v", M),
    "m": _input("m", M), "s": _input("s"), "p": _input("p", 2, M, K), "q": _input("q", 3, K, N), "image": _input("image", 2, 3, 8, 8),
    "small": _input("small", 2, 3, 4, 4), "bytes": _input("bytes", M, dtype=u8), "array": np.ones(3), "torch": torch,
}

CASES = [
    ('dlc.hardtanh(bytes)', """
error: hardtanh: u8 has no numbers as low as -1
"""),
    ('v + array', """
dtype error: an array of shape (3,) in a definition
  because: a definition knows its parameters and numbers alone
  instead: make it a parameter of the kernel
"""),
    ('torch.exp(v)', """
error: torch's exp in a definition
  because: a definition is traced on symbols, before there are numbers
  instead: the language's own: dlc.exp
"""),
    ('dlc.compute((M,), lambda i: torch.sin(v[i]))', """
error: torch's sin in a definition
  because: a definition is traced on symbols, before there are numbers
  instead: the language's own: dlc.sin
"""),
    ('dlc.compute((M,), lambda i: v[i % 0])', """
dtype error: `i` divided by zero
  instead: divide by another number
"""),
    ('bytes // 0', """
dtype error: `bytes[i]` divided by zero
  instead: divide by another number
"""),
    ('dlc.dims(3)', """
shape error: dims(3): sizes need names
  instead: M, N = dlc.dims("M N")
"""),
    ('dlc.dims("A B A")', """
shape error: dims('A B A'): `A` is there twice
  instead: M, N = dlc.dims("M N")
"""),
    ('x @ w', """
shape error: cannot multiply `x` [M, K] with `w` [N, M]
  because: the last dimension of `x` is K, the second to last one of `w` is N
  instead: declare both with the same symbol
"""),
    ('dlc.matmul(x, s)', """
shape error: a matrix product of a scalar
  because: x: f32[M, K] @ s: f32[]
  instead: use *
"""),
    ('dlc.matmul(p, q)', """
shape error: cannot multiply the stacks `p` [2] with `q` [3]
  because: dimension -1 has sizes 2 and 3, which are neither equal nor 1
"""),
    ('dlc.mm(p, x)', """
shape error: mm of `p` [2, M, K] and `x` [M, K]
  because: it takes a matrix and a matrix
  instead: dlc.matmul takes any ranks and broadcasts
"""),
    ('dlc.bmm(p, q)', """
shape error: bmm of `p` [2, M, K] and `q` [3, K, N]
  because: there are 2 and 3 matrices
  instead: dlc.matmul broadcasts
"""),
    ('dlc.outer(x, v)', """
shape error: outer of `x` [M, K] and `v` [M]
  because: it takes two vectors
  instead: flatten them
"""),
    ('dlc.linear(x, w)', """
shape error: linear: `x` [M, K] and the weights `w` [N, M] do not fit
  because: `x` has K features, the weights take M
  instead: weights are [features out, features in]
"""),
    ('dlc.linear(x, y, v)', """
shape error: linear: the bias `v` [M] does not fit the weights `y` [N, K]
  because: there are N features out
  instead: a bias of shape [N]
"""),
    ('x + w', """
shape error: cannot broadcast `x` [M, K] with `w` [N, M]
  because: dimension -2 has sizes M and N, which are neither equal nor 1
"""),
    ("dlc.einsum('ij,jk->ik', x, w)", """
shape error: einsum: the index 'j' of 'ij,jk->ik' has two sizes, K and N
  because: in `x` [M, K] and in `w` [N, M]
  instead: declare both with the same symbol
"""),
    ("dlc.einsum('ijk->k', x)", """
shape error: einsum: `ijk` in 'ijk->k' does not fit `x` [M, K]
  because: it has 2 dimensions
  instead: one letter for each, or `...`
"""),
    ("dlc.einsum('ij->z', x)", """
error: einsum: the result of 'ij->z' has the index 'z' that no operand has
"""),
    ('dlc.conv2d(x, w)', """
shape error: conv2d takes an input of rank 4 (or 3, without batch) and weights of rank 4
  because: the arguments are x: f32[M, K] and w: f32[N, M]
  instead: [batch, channels, ...] and [filters, channels, ...]
"""),
    ('dlc.conv2d(image, dlc.zeros(8, 4, 3, 3))', """
shape error: conv2d: the channels of image: f32[2, 3, 8, 8] and those of full: f32[8, 4, 3, 3] do not agree
  because: their sizes are 3 and 4
"""),
    ("dlc.conv2d(image, dlc.zeros(8, 3, 3, 3), padding='same', stride=2)", """
shape error: conv2d: padding='same' with stride (2, 2)
  because: the result has another size than the input
  instead: give the padding as numbers
"""),
    ('dlc.conv2d(small, dlc.zeros(8, 3, 5, 5))', """
shape error: conv2d: the window is larger than the padded input
  because: small: f32[2, 3, 4, 4] and full: f32[8, 3, 5, 5]
  instead: pad more, or use a smaller window
"""),
    ('dlc.conv2d(image, dlc.zeros(8, 1, 3, 3), groups=3)', """
shape error: conv2d: the filters of full: f32[8, 1, 3, 3] do not part into 3 groups
  because: 8 is not a multiple of 3
"""),
    ('dlc.conv_transpose2d(image, dlc.zeros(3, 4, 3, 3), output_padding=1)', """
shape error: conv_transpose2d: output_padding (1, 1) is not smaller than stride (1, 1) or dilation (1, 1)
  because: such elements would receive nothing
  instead: pad the result: dlc.pad
"""),
    ('dlc.max_pool2d(image, 2, padding=2)', """
error: max_pool2d: padding 2 is more than half of the window 2
  because: a window could lie outside the input
  instead: pad with dlc.pad first
"""),
    ('dlc.zeros(2, 3).reshape(4, 2)', """
shape error: cannot reshape full [2, 3] to [4, 2]
  because: they have 6 and 8 elements
  instead: sizes must multiply to the same number; -1 stands for what is left
"""),
    ('x.reshape(N, M)', """
shape error: cannot reshape x [M, K] to [N, M]
  because: they have K*M and M*N elements, which are not seen to be equal
  instead: give the dimension a size that is a number, or declare it as a product: f32[M, H * D] with H, D = dlc.dims('H D')
"""),
    ('x.reshape(4, -1)', """
shape error: cannot reshape x [M, K] to [4, -1]
  because: K*M elements are not known to be a multiple of 4
  instead: give the dimension a size that is a number, or declare it as a product: f32[M, H * D] with H, D = dlc.dims('H D')
"""),
    ('dlc.permute(x, 0, 0)', """
shape error: permute of x: f32[M, K]: (0, 0) is not an order of its 2 dimensions
  instead: name every dimension once
"""),
    ('dlc.broadcast_to(x, (M, N))', """
shape error: cannot broadcast x [M, K] to [M, N]
  because: dimension 1 has size K, which is neither 1 nor N
"""),
    ('dlc.concat([x, w], 1)', """
shape error: cannot concat x [M, K] and w [N, M] along axis 1
  because: dimension 0 has sizes M and N
  instead: only the sizes along the axis may differ
"""),
    ('dlc.concat([x, v])', """
shape error: cannot concat x [M, K] and v [M]
  because: they have 2 and 1 dimensions
  instead: give them the same rank, or use dlc.stack for a new axis
"""),
    ('dlc.stack([x, w])', """
shape error: cannot stack x [M, K] and w [N, M]
  because: their shapes differ
  instead: broadcast them first: dlc.broadcast_tensors(a, b)
"""),
    ('dlc.split(x, 2, 1)', """
shape error: split: the number of parts of x: f32[M, K] along axis 1 is not known
  because: its size is the symbol K
  instead: list the sizes, dlc.split(x, [n, N - n]), or declare the dimension as a number
"""),
    ('dlc.split(dlc.zeros(4, 5), [2, 2], 1)', """
shape error: split: the sizes [2, 2] do not make up dimension 1 of full: f32[4, 5]
  because: they add up to 4, it has 5
  instead: list sizes that add up to it
"""),
    ('dlc.layer_norm(x, (N,))', """
shape error: layer_norm: [N] are not the last dimensions of `x` [M, K]
  instead: normalized_shape and the weights have the shape of the dimensions to normalise
"""),
    ('dlc.batch_norm(x, training=True, weight=v)', """
shape error: batch_norm: `v` [M] and the channels of `x` [M, K] do not agree
  because: their sizes are M and K
"""),
    ('dlc.group_norm(image, 2)', """
shape error: group_norm: 3 channels of `image` [2, 3, 8, 8] do not part into 2 groups
  because: 3 is not a multiple of 2
"""),
    ('dlc.cross_entropy(x, dlc.cast(w, dlc.i64))', """
shape error: cross_entropy: the target `i64` [N, M] does not fit `x` [M, K]
  because: dimension 1 of `x` has the classes; one target is needed for each of [M]
  instead: class numbers have the shape of x without its classes
"""),
    ('dlc.cross_entropy(x, m)', """
dtype error: cross_entropy: the target `m` is f32
  because: class numbers are integers
  instead: cast it: dlc.cast(target, dlc.i64)
"""),
    ('dlc.mse_loss(x, w)', """
shape error: mse_loss: `x` [M, K] and the target `w` [N, M] differ
  because: each element has a target of its own
  instead: broadcast one: dlc.broadcast_to
"""),
    ('dlc.scaled_dot_product_attention(x, w, w)', """
shape error: attention: query and key differ in their features: `x` [M, K], `w` [N, M], `w` [N, M]
  because: they have K and M
  instead: query [.., L, E], key [.., S, E], value [.., S, V]
"""),
    ('dlc.scaled_dot_product_attention(x, y, x)', """
shape error: attention: there is not one value for each key: `x` [M, K], `y` [N, K], `x` [M, K]
  because: there are N keys and M values
  instead: query [.., L, E], key [.., S, E], value [.., S, V]
"""),
    ('dlc.embedding(x, dlc.cast(m, dlc.i64))', """
shape error: embedding: the table i64: i64[M] is not a matrix
  because: the positions are x: f32[M, K]
  instead: the positions come first: dlc.embedding(positions, weight)
"""),
    ('dlc.gather(x, 0, dlc.cast(m, dlc.i64))', """
shape error: gather: x [M, K] and the positions i64 [M] differ in rank
  because: they have 2 and 1 dimensions
  instead: for positions along one axis: dlc.index_select
"""),
    ("dlc.pad(dlc.zeros(2, 3), (3, 0), mode='reflect')", """
shape error: pad: 3 elements of mode 'reflect' beside dimension 1 of full: f32[2, 3]
  because: there are 2 to take
  instead: pad less, or with mode='replicate'
"""),
    ('dlc.pad(x, (1,))', """
shape error: pad of x: f32[M, K] by (1,)
  because: 1 numbers are not pairs for at most 2 dimensions
  instead: (before, after) of the last dimension first
"""),
    ("dlc.interpolate(image, scale_factor=2, mode='linear')", """
shape error: interpolate: mode 'linear' of image: f32[2, 3, 8, 8]
  because: it has 2 spatial dimensions
  instead: x is [batch, channels, ...]
"""),
    ('dlc.pixel_shuffle(image, 2)', """
shape error: pixel_shuffle: the 3 channels of image: f32[2, 3, 8, 8] do not part into blocks of 2 x 2
  because: 3 is not a multiple of 4
"""),
    ('dlc.sum(x, 2)', """
index error: sum: axis 2 is out of range
  because: the tensor has 2 dimensions
"""),
    ("dlc.mse_loss(x, x, reduction='avg')", """
error: mse_loss: reduction is 'avg'
  instead: 'mean', 'sum' or 'none'
"""),
    ('1 if x > 0 else 2', """
error: the truth value of an expression is not known while the kernel is being defined
  because: Python's `if`, `and`, `or`, `not` and chained comparisons need a value now
  instead: use dlc.where(cond, a, b), and `&`, `|`, `~` on conditions
"""),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=[c for c, _ in CASES])
def test_message(call, message):
    with pytest.raises(UserError) as e:
        eval(call, dict(NAMES))
    lines = [line for line in str(e.value).splitlines() if not line.startswith("  -->") and not line.lstrip()[:1].isdigit()]
    assert "\n".join(lines) == message.strip("\n")
