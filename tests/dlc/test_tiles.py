"""Leave to use tile registers: asked for once, before anything else looks for them, and a refusal is respected."""

import subprocess
import sys

import pytest

from codegen.target import by_name
from dlc.runtime import cpu, device, tiles
from dsl.errors import TargetError


def test_a_refusal_hides_the_instructions(monkeypatch):
    have = dict.fromkeys([*by_name("x86-64-amx").features], True)
    for granted in (False, True):
        monkeypatch.setattr(device.llvm, "get_host_cpu_features", lambda: have)
        monkeypatch.setattr(device, "tiles_granted", lambda granted=granted: granted)
        found = device.host_features.__wrapped__()
        assert ("amx-tile" in found) is ("amx-bf16" in found) is granted and "avx512bf16" in found


def test_nobody_is_asked_on_a_processor_without_them(monkeypatch):
    monkeypatch.setattr(device.llvm, "get_host_cpu_features", lambda: {"avx2": True, "amx-tile": False})
    monkeypatch.setattr(device, "tiles_granted", lambda: pytest.fail("asked"))
    assert device.host_features.__wrapped__() == {"avx2"}


def test_code_with_tile_registers_is_not_loaded_without_leave():
    if "amx-tile" in device.host_features():
        pytest.skip("this process may use tile registers")
    with pytest.raises(TargetError, match="entry for x86-64-amx uses tile registers"):
        cpu.load_object(b"", by_name("x86-64-amx"), "entry")


def test_the_system_answers():
    assert tiles.tiles_granted() in (True, False)
    if "amx-tile" in device.host_features():
        text = ("import ctypes; from dlc.runtime.tiles import tiles_granted; tiles_granted(); mask = ctypes.c_uint64(); "
                "ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(mask)); print(mask.value >> 18 & 1)")
        assert subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.strip() == "1"
