"""The derivation as text: which reductions share a pass, in which form, by which factor, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping

from dsl.cascade.merge import base_of
from dsl.cascade.model import Accumulator, Cascade, Component, Derivation, Refusal
from dsl.loc import Loc
from dsl.text import show_expr


def explain(d: Derivation, choices: Mapping[int, str] | None = None) -> str:
    """The derivation of every cascade, then the refusals.

    Args:
        d: what was found.
        choices: for cascades by number, what the schedule made of them.
    """
    parts = [_cascade(c, n + 1, (choices or {}).get(n)) for n, c in enumerate(d.cascades)]
    parts += [_refusal(r) for r in d.refusals]
    return "\n\n".join(parts) or "no two reductions run over one axis of the same rows: nothing to merge"


def _cascade(c: Cascade, number: int, choice: str | None) -> str:
    over = " x ".join(f"{v.name} in [0, {v.extent})" for v in c.axes)
    rows = ", ".join(v.name for v in c.rows)
    verb = "one pass" if c.chained else "one loop, reads shared"
    lines = [f"pass {number}: {verb} over {over}" + (f", for every ({rows})" if rows else "")]
    for x in c.components:
        lines += _component(x, c)
    if choice:
        lines.append(f"  schedule: {choice}")
    return "\n".join(lines)


def _component(x: Component, c: Cascade) -> list[str]:
    axes = ", ".join(v.name for v in x.axes)
    over = ", ".join(v.name for v in c.axes)
    lines = [f"  {x.tensor.name}[{axes}] = {x.tensor.body.data[0]}[{over}]({', '.join(map(show_expr, x.element))})"]
    lines += _where(x.tensor.loc)
    states = [a for a in c.accumulators if a.name in x.used]
    lines += [f"    {line}" for line in _FORMS[x.form](x, states, c)]
    return lines


def _where(loc: Loc | None) -> list[str]:
    if loc is None or not loc.line:
        return []
    return [f"    --> {loc}" + (f": {loc.text.strip()}" if loc.text.strip() else "")]


def _independent(x: Component, states: list[Accumulator], c: Cascade) -> list[str]:
    return ["independent of earlier results"]


def _deferred(x: Component, states: list[Accumulator], c: Cascade) -> list[str]:
    sums = "; ".join(_element(a, c) for a in states)
    return [f"deferred: {sums}", f"after the loop: {show_expr(x.value)}"]


def _rolling(x: Component, states: list[Accumulator], c: Cascade) -> list[str]:
    out = []
    for a in states:
        if a.weight is None and a.centred is None:
            out.append(_element(a, c))
            continue
        if a.weight is None and a.centred is not None:
            out += [f"rolling: {_element(a, c)} with c = {show_expr(a.centred.earlier)}",
                    f"A: {a.name} <- {a.name} + (c_new - c_old) * {base_of(a, c).name}, then {a.name} of the next elements at c_new"]
            continue
        w = a.weight
        assert w is not None
        out.append(f"rolling: {_element(a, c)}")
        out.append(f"A = {w.base}(c_new - c_old) with c = {show_expr(w.earlier)}: {a.name} <- A * {_before(a)} + {a.name} of "
                   "the next elements at c_new")
    return [*out, f"after the loop: {show_expr(x.value)}"]


def _before(a: Accumulator) -> str:
    return a.name if a.centred is None else f"({a.name} + (c_new - c_old) * sum of weights)"


def _moments(x: Component, states: list[Accumulator], c: Cascade) -> list[str]:
    of = ", ".join(map(show_expr, states[0].inputs))
    what = "mean, sum of squared deviations" if len(states[0].inputs) == 1 else "means, sum of products of deviations"
    return [f"moments: (count, {what}) of {of}, merged pairwise",
            f"after the loop: {show_expr(x.value)}"]


def _element(a: Accumulator, c: Cascade) -> str:
    over = ", ".join(v.name for v in c.axes)
    parts = [show_expr(e) for e in a.inputs]
    if a.weight is not None:
        weight = f"{a.weight.base}({show_expr(a.weight.data)} + c)"
        weight = f"{a.rounding}({weight})" if a.rounding is not None else weight
        parts = [" * ".join([weight, *(["(" + show_expr(a.centred.data) + " + c)"] if a.centred is not None else []),
                             *(p for p in parts if p != "1.0")])]
    elif a.centred is not None:
        parts = [" * ".join([f"({show_expr(a.centred.data)} + c)", *(p for p in parts if p != "1.0")])]
    return f"{a.name} = {a.carrier}[{over}]({', '.join(parts)})"


_FORMS = {"independent": _independent, "deferred": _deferred, "rolling": _rolling, "moments": _moments}


def _refusal(r: Refusal) -> str:
    names = ", ".join(dict.fromkeys(x.tensor.name for x in r.earlier))
    lines = [f"{r.tensor.name} needs a pass of its own after {names}", *(_where(r.tensor.loc))]
    return "\n".join([*lines, f"    because {r.reason}"])
