"""Attention, as its plain definition, and the transformer's block."""

from __future__ import annotations

from typing import Any

from dlc.nn import init
from dlc.nn.layers import Linear
from dlc.nn.module import Module, Parameter
from dlc.nn.norms import LayerNorm
from dlc.tensor import Tensor, empty, zeros
from dsl.errors import ArgumentError
from dsl.ops.activation import gelu, relu
from dsl.ops.attention import scaled_dot_product_attention
from dsl.ops.matmul import linear


class MultiheadAttention(Module):
    """Attention of several heads over ``(N, L, embed_dim)``; weights named and laid out as torch's with ``batch_first``."""

    def __init__(self, embed_dim: int, num_heads: int, bias: bool = True) -> None:
        if embed_dim % num_heads:
            raise ArgumentError(f"{embed_dim} dimensions do not fall into {num_heads} heads")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.in_proj_weight = init.xavier_uniform_(Parameter(empty(3 * embed_dim, embed_dim)))
        self.in_proj_bias = Parameter(zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, mask: Tensor | None = None,
                is_causal: bool = False) -> Any:
        """``(N, L, E) -> (N, L, E)``; keys and values are the queries when None."""
        given = (query, query if key is None else key, (query if key is None else key) if value is None else value)
        heads = [self._heads(self._projected(t, n)) for n, t in enumerate(given)]
        out = scaled_dot_product_attention(*heads, attn_mask=mask, is_causal=is_causal)
        return self.out_proj(out.transpose(1, 2).reshape(query.shape))

    def _projected(self, t: Tensor, n: int) -> Any:
        rows = slice(n * self.embed_dim, (n + 1) * self.embed_dim)
        weight = self.in_proj_weight[rows]
        return linear(t, weight) if self.in_proj_bias is None else linear(t, weight, self.in_proj_bias[rows])

    def _heads(self, t: Tensor) -> Tensor:
        n, length, _ = t.shape
        return t.reshape(n, length, self.num_heads, -1).transpose(1, 2)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"


class TransformerBlock(Module):
    """Attention and two linear layers, each after a normalisation and added to what it was given.

    The parts are named as torch's encoder layer's.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, activation: str = "relu", norm_first: bool = True,
                 is_causal: bool = False) -> None:
        if activation not in ("relu", "gelu"):
            raise ArgumentError(f"the activation {activation!r}", remedy="'relu' or 'gelu'")
        self.activation, self.norm_first, self.is_causal = activation, norm_first, is_causal
        self.self_attn = MultiheadAttention(d_model, nhead)
        self.linear1, self.linear2 = Linear(d_model, dim_feedforward), Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = LayerNorm(d_model), LayerNorm(d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        """``(N, L, d_model)`` to the same shape."""
        if self.norm_first:
            x = x + self.self_attn(self.norm1(x), mask=mask, is_causal=self.is_causal)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self.self_attn(x, mask=mask, is_causal=self.is_causal))
        return self.norm2(x + self._feed(x))

    def _feed(self, x: Tensor) -> Any:
        hidden = self.linear1(x)
        return self.linear2(relu(hidden) if self.activation == "relu" else gelu(hidden))
