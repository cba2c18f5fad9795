"""Small functions in machine code that stand between CPython, torch and compiled kernels: text of LLVM in, something to call out.

They are compiled once, kept on disk as kernels are, and stay to the very end of a process: memory that they hand out may be freed by them
after the interpreter is gone.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from typing import Any

from dlc import cache
from dlc.lazy import lazy

llvm = lazy("llvmlite.binding")

FASTCALL, ONE = 0x80, 0x08  # CPython's METH_FASTCALL, METH_O
_CPYTHON = re.compile(r"^declare [^@]*@(_?Py\w+)\(", re.MULTILINE)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


def compiled(text: str, symbols: Mapping[str, int] | None = None) -> Callable[[str], int]:
    """From the names of the functions in a module of LLVM to their addresses.

    Args:
        text: the module, the same in every process. What it declares by a name of CPython's interface is found.
        symbols: addresses of what else it declares.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in _CPYTHON.findall(text):
        llvm.add_symbol(name, address(getattr(ctypes.pythonapi, name)))
    for name, where in (symbols or {}).items():
        llvm.add_symbol(name, where)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic")
    name = cache.key("native", text, llvm.get_default_triple(), repr(llvm.llvm_version_info))
    code = cache.get(name)
    if code is None:
        code = machine.emit_object(llvm.parse_assembly(text))
        cache.put(name, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    immortal(engine)
    found: Callable[[str], int] = engine.get_function_address
    return found


def builtin(where: int, name: str, convention: int, doc: str, owner: Any = None) -> Any:
    """A function of CPython's from the address of its code.

    Args:
        where: of ``ptr code(ptr owner, ...)``.
        name: for ``repr``.
        convention: :data:`FASTCALL` or :data:`ONE`.
        doc: its docstring.
        owner: what the code gets first, held by the function.
    """
    definition = _MethodDef(name.encode(), where, convention, doc.encode())
    immortal(definition)
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(_MethodDef), ctypes.c_void_p, ctypes.c_void_p)
    return prototype(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.byref(definition), None if owner is None else id(owner), None)


def address(function: Any) -> int:
    """Where the code of a function that :mod:`ctypes` found lies; 0 for nowhere."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def immortal(thing: Any) -> None:
    """Keep an object to the end of the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
