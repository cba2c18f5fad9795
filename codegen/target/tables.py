"""The targets dlc knows by name."""

from __future__ import annotations

from codegen.target.model import Target

_LINUX = "x86_64-unknown-linux-gnu"
_SSE = ("sse4.2", "popcnt")
_AVX2 = ("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "sse4.2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")
_AVX512_BF16 = (*_AVX512, "avx512vnni", "avx512bf16")
_AMX = (*_AVX512_BF16, "avx512fp16", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512bitalg", "avx512vpopcntdq", "avxvnni", "gfni",
        "amx-tile", "amx-bf16", "amx-int8")

TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("x86-64", "cpu", "x86-64", _LINUX, "x86-64", _SSE, 128, 16),
        Target("x86-64-avx2", "cpu", "x86-64", _LINUX, "haswell", _AVX2, 256, 16),
        Target("x86-64-avx512", "cpu", "x86-64", _LINUX, "skylake-avx512", _AVX512, 512, 32),
        Target("x86-64-avx512-bf16", "cpu", "x86-64", _LINUX, "cooperlake", _AVX512_BF16, 512, 32),
        Target("x86-64-amx", "cpu", "x86-64", _LINUX, "sapphirerapids", _AMX, 512, 32, (48 << 10, 2 << 20, 32 << 20)),
        Target("x86-64-amx-fp16", "cpu", "x86-64", _LINUX, "graniterapids", (*_AMX, "amx-fp16"), 512, 32, (48 << 10, 2 << 20, 32 << 20)),
        Target("aarch64-neon", "cpu", "aarch64", "aarch64-unknown-linux-gnu", "generic", ("neon",), 128, 32, (64 << 10, 1 << 20, 16 << 20)),
        # A100 SXM 80 GB, H100 SXM, B200, MI300X: data sheets, dense figures.
        Target("sm_80", "cuda", "sm_80", caches=(163 << 10, 256 << 10, 40 << 20), threads=108, bandwidth=2.04e12, clock=1.41e9,
               peak=(("f64", 19.5e12), ("f32", 19.5e12), ("tf32", 156e12), ("bf16", 312e12), ("f16", 312e12), ("i8", 624e12))),
        Target("sm_90", "cuda", "sm_90", caches=(227 << 10, 256 << 10, 50 << 20), threads=132, bandwidth=3.35e12, clock=1.83e9,
               peak=(("f64", 67e12), ("f32", 67e12), ("tf32", 494e12), ("bf16", 989e12), ("f16", 989e12), ("f8", 1979e12),
                     ("i8", 1979e12))),
        Target("sm_100", "cuda", "sm_100", caches=(227 << 10, 256 << 10, 126 << 20), threads=148, bandwidth=8e12, clock=1.85e9,
               peak=(("f64", 37e12), ("f32", 75e12), ("tf32", 1125e12), ("bf16", 2250e12), ("f16", 2250e12), ("f8", 4500e12),
                     ("i8", 4500e12))),
        Target("gfx942", "hip", "gfx942", caches=(64 << 10, 512 << 10, 256 << 20), threads=304, warp=64, bandwidth=5.3e12, clock=2.1e9,
               peak=(("f64", 163e12), ("f32", 163e12), ("tf32", 653e12), ("bf16", 1307e12), ("f16", 1307e12), ("f8", 2614e12),
                     ("i8", 2614e12))),
    )
}
