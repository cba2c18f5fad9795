"""What an object file needs from elsewhere."""

import pytest

from codegen.target import by_name
from dlc.runtime.cpu import compile_object
from dlc.runtime.elf import undefined_symbols

CALLS = """
target triple = "x86_64-unknown-linux-gnu"
declare float @nowhere(float)
declare float @llvm.fma.f32(float, float, float)
define float @here(float %x) {
  %y = call float @nowhere(float %x)
  %z = call float @llvm.fma.f32(float %y, float %y, float %x)
  ret float %z
}
"""


def test_undefined_symbols_are_found():
    found = undefined_symbols(compile_object(CALLS, by_name("x86-64")))
    assert "nowhere" in found and "fmaf" in found and "here" not in found
    assert "fmaf" not in undefined_symbols(compile_object(CALLS, by_name("x86-64-avx2")))


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF object"):
        undefined_symbols(b"\x7fELF\x01\x01" + bytes(60))
