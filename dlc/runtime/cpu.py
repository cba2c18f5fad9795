"""LLVM IR to machine code in this process, and the symbols that generated code calls."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from codegen.target import Target
from dlc.lazy import lazy
from dlc.runtime.device import host_features
from dlc.runtime.elf import undefined_symbols
from dsl.errors import InternalError, TargetError

llvm = lazy("llvmlite.binding")

_PASSES = ("sroa", "new_gvn", "instruction_combine")
_LINKER = frozenset({"_GLOBAL_OFFSET_TABLE_"})  # made by the linker itself
_SWITCH = threading.Lock()
_LIVE: list[Any] = []  # engines own the code that callers hold the addresses of


@functools.cache
def initialize() -> None:
    """Prepare LLVM, and make the OpenMP entry points of torch's own runtime visible to generated code."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    library = openmp()
    for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"):
        llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value if library else _serial(name))


def keep(*owners: Any) -> None:
    """Hold on to what owns code or data that native code refers to, for the life of the process."""
    _LIVE.extend(owners)


@functools.cache
def openmp() -> Any | None:
    """The OpenMP library that torch has loaded, so that one pool of threads serves both; None when it has none."""
    torch.get_num_threads()
    try:
        with open("/proc/self/maps", encoding="utf-8") as f:
            found = re.search(r"(/\S*lib(?:gomp|iomp5|omp)\S*\.so\S*)", f.read())
    except OSError:
        return None
    library = ctypes.CDLL(found.group(1)) if found else None
    return library if library is not None and hasattr(library, "GOMP_parallel") else None


_SERIAL = {
    "GOMP_parallel": ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(
        lambda fn, data, threads, flags: ctypes.CFUNCTYPE(None, ctypes.c_void_p)(fn)(data)),
    "omp_get_thread_num": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0),
    "omp_get_num_threads": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1),
}


def _serial(name: str) -> int:
    """The address of a stand-in that runs a region on the calling thread alone."""
    return ctypes.cast(_SERIAL[name], ctypes.c_void_p).value or 0


def _machine(target: Target) -> Any:
    """LLVM's target machine; on the host every feature it has beyond the target's list is switched off."""
    initialize()
    if target.arch == "aarch64" and "neon" not in host_features():
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    features = ",".join(f"+{f}" for f in target.features)
    prefer = ",-prefer-256-bit" if target.vector_bits == 512 else ""
    return llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, features=features + prefer, opt=3, reloc="pic")


@contextmanager
def _addresses_kept() -> Iterator[None]:
    """LLVM without its search for cheap addresses in loops (loop strength reduction), which takes a third of its time in large kernels.

    Generated addresses are a base made before the loop and what the loop adds (:class:`codegen.emit.llvm_terms.Terms`). LLVM has this
    switch for a process, not for a module, so it is set for no longer than it takes to make code; another user of llvmlite that compiles
    at that very moment gets code without the search, right all the same.
    """
    with _SWITCH:
        llvm.set_option("dlc", "-disable-lsr")
        try:
            yield
        finally:
            llvm.set_option("dlc", "-disable-lsr=false")


def _silent(step: str) -> None:
    """For who does not want to know how long a step takes."""


def _optimized(text: str, machine: Any, done: Callable[[str], None] = _silent) -> Any:
    """The module after LLVM's passes: common values, constants and identities.

    Generated code is vectorised, unrolled and free of invariants in loops (``codegen/passes``), so the rest of LLVM's usual pipeline
    finds nothing to do, and takes two thirds of its time to find that out.
    """
    module = llvm.parse_assembly(text)
    done("llvm parse")
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
    for name in _PASSES:
        passes = llvm.create_new_module_pass_manager()
        getattr(passes, f"add_{name}_pass")()
        passes.run(module, builder)
        done(f"llvm {name}")
    return module


def compile_object(text: str, target: Target, done: Callable[[str], None] = _silent) -> bytes:
    """Object code of an LLVM module.

    Args:
        text: the module.
        target: the machine.
        done: told the name of each step when it is over.

    Raises:
        InternalError: LLVM rejects the text.
    """
    machine = _machine(target)
    try:
        module = _optimized(text, machine, done)
        with _addresses_kept():
            code: bytes = machine.emit_object(module)
    except RuntimeError as e:
        raise InternalError("LLVM rejects generated code", str(e).splitlines()[0]) from e
    done("machine code")
    return code


def assembly(text: str, target: Target) -> str:
    """Assembly of an LLVM module, for reading."""
    machine = _machine(target)
    module = _optimized(text, machine)
    with _addresses_kept():
        return str(machine.emit_assembly(module))


@functools.cache
def _known(name: str) -> bool:
    """Whether the linker will find a symbol: made by itself, in this process, or in the C library's mathematics, which are then added."""
    if name in _LINKER or llvm.address_of_symbol(name):
        return True
    function = getattr(_maths_library(), name, None)
    if function is not None:
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return function is not None


@functools.cache
def _maths_library() -> Any | None:
    """The C library's mathematics, which a process may have loaded privately; generated code calls few of its functions (fmod)."""
    try:
        return ctypes.CDLL("libm.so.6")
    except OSError:
        found = ctypes.util.find_library("m")
        return ctypes.CDLL(found) if found else None


def load_object(code: bytes, target: Target, entry: str) -> int:
    """Link object code into this process; returns the address of ``entry``.

    Raises:
        InternalError: the code calls something that this process does not have. (The linker would leave a null address to jump to.)
        TargetError: it uses tile registers, which the system does not let this process use.
    """
    if "amx-tile" in target.features and "amx-tile" not in host_features():
        raise TargetError(f"{entry} for {target.name} uses tile registers", "this process may not use them here",
                          "compile it for another target")
    machine = _machine(target)
    missing = [name for name in undefined_symbols(code) if not _known(name)]
    if missing:
        raise InternalError(f"the code of {entry} for {target.name} needs {', '.join(missing)}, which this process does not have",
                            "an operation was emitted that the target has no instructions for")
    empty = llvm.parse_assembly("")
    empty.triple = target.triple
    engine = llvm.create_mcjit_compiler(empty, machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(entry)
    keep(engine)
    if not address:
        raise InternalError(f"{entry} is missing from its object code")
    return address
