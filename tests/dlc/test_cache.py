"""Artifacts on disk: found again without compiling, by several processes at once, whatever happens to the files."""

import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import dlc
from codegen import pipelines
from dlc import cache, compiler, errors, f32, i64

ROOT = Path(__file__).resolve().parents[2]
M, N = dlc.dims("M N")


def make():
    @dlc.kernel
    def tripled(x: f32[M, N]):
        return x * 3.0

    return tripled


def run(kernel):
    x = torch.randn(5, 7)
    assert torch.equal(kernel(x), x * 3)


@pytest.fixture
def compiled(monkeypatch):
    """Counts what LLVM compiles."""
    seen, real = [], compiler.compile_object

    def counting(text, target):
        seen.append(text)
        return real(text, target)

    monkeypatch.setattr(compiler, "compile_object", counting)
    monkeypatch.setattr(cache, "_warned", set())
    return seen


def files(cache_dir):
    return sorted(p for p in (cache_dir / "objects").glob("*/*") if p.is_file())


def test_a_second_process_compiles_nothing_and_does_not_even_plan(cache_dir, compiled, monkeypatch):
    run(make())
    assert len(compiled) == 1
    monkeypatch.setattr(pipelines, "make_tile", None)  # whoever lowers, fails
    run(make())
    assert len(compiled) == 1


def test_what_decides_the_code_decides_the_artifact(cache_dir, compiled, monkeypatch):
    kernel = make()
    run(kernel)
    assert torch.equal(kernel(torch.ones(7, 5).T), torch.full((5, 7), 3.0)) and len(compiled) == 2
    run(dlc.kernel(kernel.fn, reproducible=True))
    assert len(compiled) >= 2
    monkeypatch.setattr(cache, "version", lambda: "another compiler")
    before = len(files(cache_dir))
    run(make())
    assert len(files(cache_dir)) > before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "foreign"])
def test_damage_is_noticed_and_mended(cache_dir, compiled, damage):
    run(make())
    for path in files(cache_dir):
        data = bytearray(path.read_bytes())
        if damage == "flipped":
            data[-9] ^= 0x40
        path.write_bytes({"truncated": data[:len(data) // 2], "flipped": data, "emptied": b"", "foreign": b"\x7fELF" + data}[damage])
    run(make())
    assert len(compiled) == 2
    run(make())
    assert len(compiled) == 2, "what was damaged has been replaced"


def test_a_directory_that_cannot_be_written(compiled, monkeypatch):
    monkeypatch.setenv("DLC_CACHE_DIR", "/proc/no/such/place")
    with pytest.warns(UserWarning, match="cannot write the kernel cache in /proc/no/such/place"):
        run(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(make())
    assert len(compiled) == 2


def test_a_file_in_the_place_of_the_directory(tmp_path, compiled, monkeypatch):
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("DLC_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="cannot write the kernel cache"):
        run(make())


def test_a_full_disk(cache_dir, compiled):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.warns(UserWarning, match="cannot write the kernel cache"):
            run(make())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(cache_dir) == [], "nothing half written stays"
    run(make())
    assert files(cache_dir)


def test_processes_that_compile_the_same_kernel(cache_dir):
    code = ("import torch, dlc; from dlc import f32; M = dlc.dims('M')\n@dlc.kernel\ndef same(x: f32[M]):\n    return dlc.exp(x) * 2.0\n"
            "x = torch.randn(100); torch.testing.assert_close(same(x), x.exp() * 2)")
    path = cache_dir / "same.py"
    path.write_text(code)
    many = [subprocess.Popen([sys.executable, str(path)], stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
            for _ in range(3)]
    for process in many:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0 and said == b"", said
    assert all(cache.get(p.name) is not None for p in files(cache_dir))


def test_what_was_used_longest_ago_goes_first(cache_dir, monkeypatch):
    for n in range(10):
        cache.put(f"{n:02}abc", bytes(1000))
        os.utime(cache._path(f"{n:02}abc"), (time.time() - 10000 + n,) * 2)
    assert cache.get("01abc") is not None, "used just now"
    assert cache.shrink(6000) == 6
    assert [p.name for p in files(cache_dir)] == ["01abc", "07abc", "08abc", "09abc"]
    assert cache.stats().artifacts == 4 and cache.stats().directory == cache_dir / "objects" and cache.shrink(6000) == 0
    monkeypatch.setenv("DLC_CACHE_SIZE", "2K")
    monkeypatch.setattr(cache, "_written", 0)
    cache.put("11abc", bytes(500))
    assert cache.stats().bytes <= 2048 == cache.stats().limit
    assert cache.clear() == len([*files(cache_dir)]) or not files(cache_dir)


def test_checks_name_the_place_of_the_kernel_at_hand(cache_dir):
    def one(i: i64[M], w: f32[N]):
        return dlc.compute((M,), lambda m: w[i[m]])

    def other(where: i64[M], table: f32[N]):
        return dlc.compute((M,), lambda m: table[where[m]])

    args = torch.tensor([0, 9]), torch.ones(3)
    for fn in (one, other):
        with pytest.raises(errors.BoundsError) as e:
            dlc.kernel(fn)(*args)
        line = fn.__code__.co_firstlineno + 1
        assert f"a data-dependent index of {fn.__name__}" in str(e.value) and f"test_cache.py:{line}" in str(e.value)
    assert "where[1] is 9" in str(e.value)
