"""Object code into this process."""

import ctypes

import pytest

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
