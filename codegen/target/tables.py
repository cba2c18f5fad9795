"""The targets dlc knows by name."""

from __future__ import annotations

from codegen.target.model import Target

_LINUX = "x86_64-unknown-linux-gnu"
_SSE = ("sse4.2", "popcnt")
_AVX2 = ("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "sse4.2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")

TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("x86-64", "cpu", "x86-64", _LINUX, "x86-64", _SSE, 128, 16),
        Target("x86-64-avx2", "cpu", "x86-64", _LINUX, "haswell", _AVX2, 256, 16),
        Target("x86-64-avx512", "cpu", "x86-64", _LINUX, "skylake-avx512", _AVX512, 512, 32),
        Target("aarch64-neon", "cpu", "aarch64", "aarch64-unknown-linux-gnu", "generic", ("neon",), 128, 32, (64 << 10, 1 << 20, 16 << 20)),
        Target("sm_80", "cuda", "sm_80"),
        Target("sm_90", "cuda", "sm_90"),
        Target("sm_100", "cuda", "sm_100"),
        Target("gfx942", "hip", "gfx942"),
    )
}
