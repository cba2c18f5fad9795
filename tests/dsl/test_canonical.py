"""dsl.canonical: one digest for one meaning, in every process; another for another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dlc
from dlc import bf16, f32, i32
from dsl.canonical import canonical, digest

M, N, K = dlc.dims("M N K")


def attention(q: f32[M, K], k: f32[N, K], v: f32[N, K]):
    return dlc.softmax(q @ k.T, 1) @ v


def digest_of(fn):
    return digest(dlc.kernel(fn).program)


def product():
    def f(x: f32[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[k, j], k))
    return f


def test_names_and_places_do_not_matter():
    A, B, C = dlc.dims("Z Y A")

    def g(left: f32[A, C], right: f32[C, B]):
        inner = dlc.reduce_axis(C)
        return dlc.compute((A, B), lambda row, column: dlc.sum(left[row, inner] * right[inner, column], inner))
    assert canonical(dlc.kernel(g).program) == canonical(dlc.kernel(product()).program)


def test_what_changes_the_meaning_changes_the_digest():
    def swapped(w: f32[K, N], x: f32[M, K]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[k, j], k))

    def other_dtype(x: bf16[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[k, j], k))

    def maximum(x: f32[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.max(x[i, k] * w[k, j], k))

    def scaled(x: f32[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[k, j] * 0.5, k))

    def tuple_(x: f32[M, K], w: f32[K, N]):
        k = dlc.reduce_axis(K)
        return (dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[k, j], k)),)

    def reused(x: f32[M, K], w: f32[K, M]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, M), lambda i, j: dlc.sum(x[i, k] * w[k, j], k))
    all_ = [product(), swapped, other_dtype, maximum, scaled, tuple_, reused]
    assert len({digest_of(f) for f in all_}) == len(all_)


def test_indices_and_constants_count():
    def shifted(by, scale):
        def f(x: f32[M]):
            return dlc.compute((M,), lambda i: dlc.where(i >= by, x[dlc.clip(i - by, 0, M - 1)], scale))
        return f
    assert digest_of(shifted(1, 0.0)) == digest_of(shifted(1, 0.0))
    assert len({digest_of(shifted(b, s)) for b in (1, 2) for s in (0.0, -0.0, 1.0, float("nan"))}) == 8


def test_terms_are_written_in_one_order_whatever_the_names():
    def flattened(names):
        A, B = dlc.dims(names)

        def f(x: f32[A, B]):
            return dlc.compute((A * B,), lambda n: x[n // B, n % B])
        return f
    assert digest_of(flattened("A B")) == digest_of(flattened("Q P"))


def test_specialised_programs_differ_by_size():
    program = dlc.kernel(product()).program
    assert digest(program.specialize({d: 8 for d in program.dims})) != digest(program.specialize({d: 9 for d in program.dims}))


def test_gathers_and_derivatives_have_a_digest():
    def gathered(x: f32[M, N], at: i32[K]):
        return dlc.compute((K, N), lambda i, j: x[at[i], j])
    assert digest_of(gathered) != digest_of(attention)
    k = dlc.kernel(attention)
    assert digest(k.vjp.program) != digest(k.program)


def test_every_process_finds_the_same_digest():
    code = ("import importlib.util, sys; s = importlib.util.spec_from_file_location('t', sys.argv[1]); "
            "m = importlib.util.module_from_spec(s); s.loader.exec_module(m); "
            "print(m.digest_of(m.attention), m.digest(m.dlc.kernel(m.attention).vjp.program))")
    root = Path(__file__).resolve().parents[2]
    out = {subprocess.run([sys.executable, "-c", code, __file__], check=True, capture_output=True, text=True, cwd=root,
                          env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}).stdout for seed in ("1", "2")}
    assert len(out) == 1 and len(out.pop().split()) == 2


def test_a_program_keeps_its_digest():
    program = dlc.kernel(product()).program
    assert digest(program) is digest(program) and digest(program) == digest_of(product())
