"""Kernels of every kind compile to machine code for every CPU target, whatever machine this is."""

from __future__ import annotations

import struct

import pytest
import torch

import dlc
from codegen.target import TARGETS
from dlc import bf16, f16, f32
from dlc.compiler import Plan

M, N, K = dlc.dims("M N K")
CPUS = [t.name for t in TARGETS.values() if t.kind == "cpu"]
MACHINE = {"x86-64": 0x3E, "aarch64": 0xB7}


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N], b: f32[N]):
    return dlc.gelu(x @ w + b)


@dlc.kernel
def low_product(x: bf16[M, K], w: bf16[K, N]):
    return dlc.cast(x @ w, bf16)


@dlc.kernel
def half_product(x: f16[M, K], w: f16[N, K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k))


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


@dlc.kernel
def conv(x: f32[2, 3, M, N], w: f32[5, 3, 3, 3]):
    return dlc.relu(dlc.conv2d(x, w, None, stride=2, padding=1))


@dlc.kernel
def prefix(x: f32[M, N]):
    return dlc.cumsum(x, 1)


KERNELS = {
    "product": (product, (torch.empty(70, 65), torch.empty(65, 90), torch.empty(90))),
    "bf16 product": (low_product, (torch.empty(70, 64).bfloat16(), torch.empty(64, 90).bfloat16())),
    "f16 product": (half_product, (torch.empty(70, 64).half(), torch.empty(90, 64).half())),
    "softmax": (softmax, (torch.empty(37, 1000),)), "conv": (conv, (torch.empty(2, 3, 15, 17), torch.empty(5, 3, 3, 3))),
    "prefix": (prefix, (torch.empty(9, 100),)),
}


@pytest.mark.parametrize("target", CPUS)
@pytest.mark.parametrize("name", KERNELS)
def test_compiles(name: str, target: str) -> None:
    kernel, args = KERNELS[name]
    code = Plan(kernel.plan(*args).request.on(TARGETS[target])).object_code
    machine, = struct.unpack_from("<H", code, 18)
    assert code[:4] == b"\x7fELF" and machine == MACHINE[TARGETS[target].arch]
