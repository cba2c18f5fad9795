"""Object code into this process."""

import ctypes

import llvmlite.binding as llvm
import pytest

from dlc.runtime import cpu
from dlc.runtime.cpu import compile_object, load_object
from dlc.runtime.device import host_target
from dsl.errors import InternalError

CALL = """
target triple = "{triple}"
declare float @{callee}(float, float)
define float @entry(float %x, float %y) {{
  %z = call float @{callee}(float %x, float %y)
  ret float %z
}}
"""


def _load(callee: str) -> int:
    target = host_target()
    return load_object(compile_object(CALL.format(triple=target.triple, callee=callee), target), target, "entry")


def test_the_mathematics_library_is_found():
    entry = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float, ctypes.c_float)(_load("fmodf"))
    assert entry(7.5, 2.0) == 1.5


def test_code_that_needs_an_unknown_symbol_is_refused():
    with pytest.raises(InternalError, match="the code of entry for .* needs no_such_function, which this process does not have"):
        _load("no_such_function")


def test_other_users_of_llvm_get_their_code_as_before():
    text = """define void @copy(ptr %a, ptr %b, i64 %n) {
    start:
      br label %loop
    loop:
      %i = phi i64 [0, %start], [%next, %loop]
      %at = mul i64 %i, 24
      %p = getelementptr i8, ptr %a, i64 %at
      %q = getelementptr i8, ptr %b, i64 %at
      %v = load i64, ptr %p
      store i64 %v, ptr %q
      %next = add i64 %i, 1
      %more = icmp ult i64 %next, %n
      br i1 %more, label %loop, label %done
    done:
      ret void
    }"""
    cpu.initialize()

    def theirs() -> str:
        return str(llvm.Target.from_default_triple().create_target_machine().emit_assembly(llvm.parse_assembly(text)))

    before = theirs()
    compile_object(text, host_target())
    assert theirs() == before
    with cpu._addresses_kept():
        assert theirs() != before
