"""The native call: words arrive, the code comes back, wrong words are errors, and other threads run meanwhile."""

import ctypes
import threading
import time

import llvmlite.binding as llvm
import numpy as np
import pytest

from dlc.runtime.cpu import keep
from dlc.runtime.trampoline import array_address, native_call

_TEXT = """
declare i32 @usleep(i32)
define i32 @mixed(ptr %words, ptr %scratch, i64 %threads) {
  %a = load i64, ptr %words
  %second = getelementptr i64, ptr %words, i64 1
  %b = load i64, ptr %second
  %s = ptrtoint ptr %scratch to i64
  %1 = mul i64 %a, 1000
  %2 = mul i64 %b, 100
  %3 = mul i64 %s, 10
  %4 = add i64 %1, %2
  %5 = add i64 %3, %threads
  %6 = add i64 %4, %5
  %7 = trunc i64 %6 to i32
  ret i32 %7
}
define i32 @slow(ptr %words, ptr %scratch, i64 %threads) {
  %x = call i32 @usleep(i32 300000)
  ret i32 -5
}
"""


@pytest.fixture(scope="module")
def entries():
    native_call()
    llvm.add_symbol("usleep", ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value)
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic")
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_TEXT), machine)
    engine.finalize_object()
    keep(engine)
    return {name: engine.get_function_address(name) for name in ("mixed", "slow")}


def test_words_arrive_in_order(entries):
    assert native_call()(entries["mixed"], 3, 4, 1, 2) == 1234


def test_what_is_no_number_is_refused(entries):
    with pytest.raises(TypeError):
        native_call()(entries["mixed"], 0, 1, "a", 2)
    with pytest.raises(TypeError):
        native_call()(entries["mixed"], None, 1, 1, 2)


def test_other_threads_run_meanwhile(entries):
    codes, started = [], time.perf_counter()
    threads = [threading.Thread(target=lambda: codes.append(native_call()(entries["slow"], 0, 1))) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert codes == [-5] * 3 and time.perf_counter() - started < 0.8


def test_where_the_elements_of_an_array_lie():
    a = np.arange(24, dtype=np.int16).reshape(4, 6)
    for view in (a, a[1:], a[:, 3], a.T, a[::-1], np.empty(()), np.empty((0, 3)), np.frombuffer(b"abcdef", np.uint8)[2:]):
        assert array_address()(view) == view.ctypes.data
    assert "built-in" in repr(array_address())
