"""Instructions as text, held against LLVM's own reading of them."""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir

from codegen.emit.llvm_builder import Builder, vector
from codegen.emit.llvm_types import I1, I32, I64, PTR, int_const, lane_numbers, undefined

F32 = ir.FloatType()
V8 = vector(F32, 8)


def _function(*arguments: ir.Type) -> tuple[ir.Module, ir.Function, Builder]:
    module = ir.Module()
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "f")
    return module, fn, Builder(fn.append_basic_block("entry"), ("avx2",))


def _read(module: ir.Module) -> str:
    """The module as LLVM prints it after it has read and verified it."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return str(parsed)


def test_every_instruction_is_read_by_llvm_as_it_was_meant() -> None:
    module, fn, b = _function(I64, F32, PTR, I1)
    x, y, p, c = fn.args
    for name in ("add", "sub", "mul", "udiv", "sdiv", "urem", "srem", "shl", "lshr", "ashr", "and_", "or_", "xor"):
        getattr(b, name)(x, x)
    b.add(x, x, flags=["nsw"])
    for name in ("fadd", "fsub", "fmul", "fdiv", "frem"):
        getattr(b, name)(y, y)
    b.fneg(y)
    for op in ("<", "<=", ">", ">=", "==", "!="):
        b.icmp_signed(op, x, x)
        b.icmp_unsigned(op, x, x)
        b.fcmp_ordered(op, y, y)
        b.fcmp_unordered(op, y, y)
    b.fcmp_unordered("uno", y, y)
    narrow = b.trunc(x, I32)
    b.zext(narrow, I64)
    b.sext(narrow, I64)
    b.fptrunc(b.fpext(y, ir.DoubleType()), F32)
    for to, back in (("fptosi", "sitofp"), ("fptoui", "uitofp")):
        getattr(b, back)(getattr(b, to)(y, I32), F32)
    b.bitcast(y, I32)
    b.ptrtoint(p, I64)
    b.select(c, x, x)
    b.ret_void()
    lines = [line.split(" = ")[1] for line in _read(module).splitlines() if " = " in line and line.startswith("  ")]
    words = [line.split()[0] for line in lines]
    assert words[:19] == ["add", "sub", "mul", "udiv", "sdiv", "urem", "srem", "shl", "lshr", "ashr", "and", "or", "xor", "add",
                          "fadd", "fsub", "fmul", "fdiv", "frem"]
    assert words[19] == "fneg" and words[-1] == "select" and lines[13] == "add nsw i64 %.1, %.1"
    assert [line.split()[1] for line in lines if "cmp" in line] == [
        "slt", "ult", "olt", "ult", "sle", "ule", "ole", "ule", "sgt", "ugt", "ogt", "ugt", "sge", "uge", "oge", "uge",
        "eq", "eq", "oeq", "ueq", "ne", "ne", "one", "une", "uno"]
    assert words[45:-1] == ["trunc", "zext", "sext", "fpext", "fptrunc", "fptosi", "sitofp", "fptoui", "uitofp", "bitcast", "ptrtoint"]


def test_memory_vectors_and_calls() -> None:
    module, fn, b = _function(PTR, I64)
    p, n = fn.args
    q = b.gep(p, [n], inbounds=True, source_etype=F32)
    v = b.load(q, name="x", typ=V8)
    v.align = 4
    turned = b.shuffle_vector(v, undefined(V8), lane_numbers(*range(7, -1, -1)))
    one = b.extract_element(turned, I32(3))
    s = b.store(b.insert_element(v, one, I32(0)), p)
    s.align = 32
    s.set_metadata("nontemporal", module.add_metadata([I32(1)]))
    load = ir.Function(module, ir.FunctionType(V8, [PTR, vector(I1, 8), V8]), "llvm.masked.load.v8f32.p0")
    b.call(load, [p, int_const(vector(I1, 8), 1), v], aligned={0: 4})
    b.ret_void()
    text = _read(module)
    assert "getelementptr inbounds float, ptr %.1, i64 %.2" in text
    assert "%.x.2 = load <8 x float>, ptr %.v1, align 4" in text
    assert "ptr %.1, align 32, !nontemporal !0" in text
    assert "<8 x i32> <i32 7, i32 6, i32 5, i32 4, i32 3, i32 2, i32 1, i32 0>" in text
    assert "@llvm.masked.load.v8f32.p0(ptr align 4 %.1, <8 x i1> splat (i1 true)" in text


def test_values_take_what_comes_later_and_names_differ() -> None:
    module, fn, b = _function(I64)
    before, inside, after = b.block, fn.append_basic_block("v1"), fn.append_basic_block("x.2")
    b.branch(inside)
    b.position_at_end(inside)
    i = b.phi(I64, "x")
    i.add_incoming(I64(0), before)
    step = b.add(i, I64(1))
    i.add_incoming(step, inside)
    b.cbranch(b.icmp_signed("<", step, fn.args[0]), inside, after)
    b.position_at_end(after)
    b.ret_void()
    assert "%.x.1 = phi i64 [ 0, %entry ], [ %.v2, %v1 ]" in _read(module)
    assert step.parent is inside and b.features == {"avx2"}


def test_a_cast_to_the_same_type_is_the_value_itself() -> None:
    _, fn, b = _function(I64)
    assert b.trunc(fn.args[0], ir.IntType(64)) is fn.args[0]


def test_types_and_literals_are_made_once() -> None:
    assert vector(F32, 4) is vector(ir.FloatType(), 4) and vector(I32, 0) is I32
    assert I64(5) is I64(5) and str(I64(5)) == "i64 5" and str(I1(True)) == "i1 true"
    assert lane_numbers(1, 0) is lane_numbers(1, 0) and undefined(V8) is undefined(V8)
    assert str(undefined(V8)) == "<8 x float> undef"
