"""dlc.tape: templates, their backwards, and the walk through the recorded nodes."""

from __future__ import annotations

import dlc
from dlc.tape import Leaf, Template, spec_of
from dlc.tape.graph import Node
from dlc.tensor.record import trace_call
from dsl.dtype import f32, i64


def template(function: object, *specs: object) -> Template:
    return trace_call(function, specs, lambda inputs: function(*inputs))[0]  # type: ignore[arg-type, operator]


def test_specs_are_one_object() -> None:
    assert spec_of((2, 3), f32) is spec_of([2, 3], f32) and repr(spec_of((2, 3), f32)) == "f32[2, 3]"


def test_kinds_and_work_of_definitions() -> None:
    product = template(dlc.matmul, spec_of((4, 5), f32), spec_of((5, 6), f32))
    assert product.kinds == ("contraction",) and product.results == (0,)
    rows = template(dlc.softmax, spec_of((4, 5), f32))
    assert sorted(set(rows.kinds)) == ["map", "reduce"]
    assert template(dlc.relu, spec_of((4,), f32)).work[0] < template(dlc.erf, spec_of((4,), f32)).work[0]
    assert not template(dlc.argmax, spec_of((4,), f32)).differentiable


def test_a_backward_refers_to_inputs_saved_definitions_and_cotangents() -> None:
    rows = template(dlc.softmax, spec_of((64, 512), f32))
    found = rows.gradient((0,), (rows.results[0],))
    assert {s.kind for s in found.sources} == {"definition", "cotangent"}  # the result and the sums of its rows are enough
    other = template(dlc.log_softmax, spec_of((64, 512), f32))
    assert {"input", "cotangent"} <= {s.kind for s in other.gradient((0,), (other.results[0],)).sources}
    assert found is rows.gradient((0,), (rows.results[0],))


def test_only_what_is_wanted_is_differentiated() -> None:
    product = template(dlc.matmul, spec_of((4, 5), f32), spec_of((5, 6), f32))
    assert len(product.gradient((1,), (0,)).template.results) == 1
    assert len(product.gradient((0, 1), (0,)).template.results) == 2


def test_nodes_know_what_they_are_made_of() -> None:
    x = dlc.tensor([1.0, 2.0], requires_grad=True)
    y = dlc.where(dlc.tensor([True, False]), x, 0.0)
    node = y._edge[0]  # type: ignore[index]
    assert isinstance(node, Node) and isinstance(node.edges[1], Leaf) and node.edges[0] is None  # type: ignore[index]
    assert y.grad_fn is not None and y.grad_fn.name == "where" and (y * 2).grad_fn.next_functions[0].name == "where"
    assert node.phase == "forward" and node.template.inputs[0].dtype != i64
    y.sum().backward()
    assert node.released and node.edges is None
