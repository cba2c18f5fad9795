"""Tracing: from functions to programs, sizes by number, and what is refused with the user's line."""

from __future__ import annotations

import threading

import pytest

import dsl as dlc
from dsl import f32, f64, i64
from dsl.dim import Var
from dsl.errors import IndexingError, ShapeError, UserError
from dsl.expr import Reduce, Scan
from dsl.program import as_size, axis_of, compute, defining, is_defining, reduce_axis, trace

M, N = dlc.dims("M N")


def softmax(x: f32[M, N], scale: f32, *, power: int = 2):
    k = reduce_axis(N)
    e = compute((M, N), lambda i, j: dlc.exp(x[i, j] * scale) ** power)
    total = compute((M,), lambda i: dlc.sum(e[i, k], k))
    return compute((M, N), lambda row, column: e[row, column] / total[row])


def test_a_program_has_inputs_definitions_and_sizes_in_order() -> None:
    p = trace(softmax)
    assert [str(t) for t in p.inputs] == ["x: f32[M, N]", "scale: f32[]"]
    assert p.single and [v.name for v in p.dims] == ["M", "N"] and len(p.computes) == 3
    assert [a.name for a in p.outputs[0].axes] == ["row", "column"] and p.loc is not None and p.loc.text.startswith("def softmax")


def test_keyword_only_parameters_are_values() -> None:
    assert str(trace(softmax, {"power": 3}).computes[0].body) != str(trace(softmax).computes[0].body)


def test_sizes_by_number_reach_every_axis() -> None:
    p = trace(softmax)
    m, n = p.dims
    special = p.specialize({m: 4, n: 5})
    assert not special.dims and [str(s) for s in special.outputs[0].shape] == ["4", "5"]
    (sums,) = [c.body for c in special.computes if isinstance(c.body, Reduce)]
    assert str(sums.axes[0].extent) == "5"
    partly = p.specialize({m: 4})
    assert [v.name for v in partly.dims] == ["N"]


def test_scans_are_given_their_sizes_too() -> None:
    def running(x: f32[N]):
        return dlc.cumsum(x)

    p = trace(running)
    (c,) = p.specialize({p.dims[0]: 6}).computes
    assert isinstance(c.body, Scan) and str(c.body.axis.extent) == "6"


def test_results_are_definitions_of_their_own() -> None:
    def same(x: f32[M], y: i64[M]):
        doubled = x + x
        return x, doubled, doubled, y, x.sum() if False else dlc.sum(x)

    p = trace(same)
    assert len({id(t) for t in p.outputs}) == 5 and not p.single
    assert [t.dtype for t in p.outputs] == [f32, f32, f32, i64, f32]


def test_axes_take_the_name_that_they_are_assigned_to() -> None:
    kk = reduce_axis(N)
    assert axis_of(kk).name == "kk" and axis_of(reduce_axis(2, 5, name="r")).name == "r"
    late = reduce_axis(2, 5)
    assert str(late.term) == "late + 2" and str(axis_of(late).extent) == "3"
    with pytest.raises(IndexingError, match="is not a reduction axis"):
        axis_of(kk * 2)


@pytest.mark.parametrize(("size", "says"), [(-1, "is negative: -1"), (1.5, "not float"), (True, "not bool"), ("M", "not str")])
def test_sizes_are_whole_numbers_or_symbols(size, says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        as_size(size)


def test_several_tensors_of_one_shape() -> None:
    a, b = compute((M,), lambda i: (i + 1, i * 2), name="pair")
    assert (a.name, b.name) == ("pair0", "pair1") and a.axes == b.axes
    assert compute(M, lambda i: i, dtype=f64).dtype is f64


def test_wrong_definitions_name_what_is_wrong() -> None:
    def empty(x: f32[M]):
        return ()

    def untyped(x):
        return x

    def unknown(x: Missing[M]):  # noqa: F821  (the name that is missing is what is tested)
        return x

    for fn, says in ((empty, "empty returned no tensor"), (untyped, "parameter `x` of untyped has no type"),
                     (unknown, "the type `Missing.M.` of parameter `x` cannot be resolved")):
        with pytest.raises(UserError, match=says):
            trace(fn)
    with pytest.raises(ShapeError, match="the body takes 1 indices but the shape has 2 dimensions"):
        compute((M, N), lambda i: i)
    with pytest.raises(IndexingError, match="axis `k` is used in t but nothing binds it"):
        compute((M,), lambda i: reduce_axis(N, name="k") + i)


def test_a_definition_belongs_to_its_thread() -> None:
    seen: list[bool] = []
    with defining():
        other = threading.Thread(target=lambda: seen.append(is_defining()))
        other.start()
        other.join()
        assert is_defining() and seen == [False]
    assert not is_defining()


def test_sizes_are_variables_of_their_own() -> None:
    a, b = dlc.dims("a, b")
    (va,), (vb,) = a.term.vars, b.term.vars
    assert isinstance(va, Var) and va.kind == "dim" and (va.name, vb.name) == ("a", "b") and va is not vb
