"""The lines of the Python functions that call one compiled kernel: see ``dlc/runtime/fastcall.py`` for how one reads.

Every function begins with the same guards: it gives ``MISS`` unless the arguments are exactly those that the kernel was compiled for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from codegen.artifact import evaluate
from dlc.runtime.arguments import TORCH
from dlc.runtime.recipe import Formulas, Recipe, Shape, contiguous, known
from dsl.dtype import by_name
from dsl.errors import InternalError

#: The dtypes of scalar parameters that Python numbers can be given for: their code for :mod:`array`, and the types taken.
CODES = {"f32": ("f", "float, int, bool"), "f64": ("d", "float, int, bool"), "i64": ("q", "int, bool"), "i32": ("i", "int, bool"),
         "i16": ("h", "int, bool"), "i8": ("b", "int, bool"), "u8": ("B", "int, bool"), "u32": ("I", "int, bool"), "bool": ("B", "bool")}


@dataclass(frozen=True)
class Given:
    """What is given for the parameters; torch tensors but for those named here.

    Attributes:
        numbers: positions of scalar parameters that are given as Python numbers.
        arrays: positions of parameters that are given as numpy arrays.
    """

    numbers: frozenset[int] = frozenset()
    arrays: frozenset[int] = frozenset()

    def tensors(self, recipe: Recipe) -> list[int]:
        """The positions of tensors."""
        return [n for n in range(len(recipe.inputs)) if n not in self.numbers and n not in self.arrays]

    def memory(self, recipe: Recipe) -> list[int]:
        """The positions of all that lies in memory of the caller's."""
        return [n for n in range(len(recipe.inputs)) if n not in self.numbers]


def call(recipe: Recipe, given: Given, tracked: bool, own: bool) -> list[str]:
    """``call(args)``: the results; arrays where every array given is one of numpy.

    Args:
        recipe: how the kernel is called.
        given: which arguments are no tensors.
        tracked: whether calls that autograd must follow go to ``tracked(args)`` instead of being missed.
        own: whether ``find(sizes, args)`` is asked for a kernel compiled for just these sizes.
    """
    arrays = bool(given.arrays) and not given.tensors(recipe)
    lines = ["def call(args):", *_guards(recipe, given), *(_own(recipe, "call", "args") if own else [])]
    if needing := _needs_grad(recipe, given):
        lines += [*_unless("forward._current_level >= 0"), *_if(needing, "return tracked(args)" if tracked else "return MISS")]
    for n, (_, shape) in enumerate(recipe.outputs):
        lines += [f"    y{n} = {_empty('array' if arrays else 'empty', n, shape)}", f"    q{n} = {_address(f'y{n}', arrays)}"]
    results = ", ".join(f"y{n}" for n in range(len(recipe.outputs)))
    return [*lines, *_launch(recipe), f"    return {results}" if recipe.single else f"    return ({results},)"]


def fill(recipe: Recipe, given: Given, arrays: bool, own: bool) -> list[str]:
    """``fill(args, out)``: run the kernel into what the caller gives.

    That must fit, be free of autograd, and lie apart from all else, or just over an input that the kernel may write over.
    """
    names = [f"y{n}" for n in range(len(recipe.outputs))]
    lines = ["def fill(args, out):", *_guards(recipe, given)]
    lines += _own(recipe, "fill_arrays" if arrays else "fill_tensors", "args, out") if own else []
    if recipe.single:
        lines += ["    y0 = out"]
    else:
        lines += [*_unless(f"type(out) is not tuple and type(out) is not list or len(out) != {len(names)}"),
                  f"    {', '.join(names)}{',' if len(names) == 1 else ''} = out"]
    lines += _unless(" or ".join(f"type({y}) is not ndarray" if arrays else f"type({y}) not in KINDS" for y in names))
    lines += ["    try:"]
    for n in range(len(names)):
        lines += _target(recipe, n, arrays)
    lines += ["    except RuntimeError:", "        return MISS"]
    odd = [condition for n, (dtype, _) in enumerate(recipe.outputs) for condition in _odd(f"q{n}", dtype)]
    lines += _unless(" or ".join([*odd, *_overlaps(recipe, given)]))
    held = [_needs_grad(recipe, given)] + ([] if arrays else [f"grad_enabled() and ({' or '.join(f'{y}.requires_grad' for y in names)})"])
    for condition in held:
        lines += _unless(condition)
    lines += _launch(recipe)
    for y in () if arrays else names:
        lines += [f"    if not {y}.is_inference():", f"        changed({y})"]
    return [*lines, "    return out"]


def into(recipe: Recipe) -> list[str]:
    """``into(args, outs)``: tensors in, a tuple of tensors out; what is given for the results fits."""
    lines = ["def into(args, outs):", *_guards(recipe, Given())]
    for n, (_, shape) in enumerate(recipe.outputs):
        lines += [f"    y{n} = outs[{n}] if outs is not None else {_empty('empty', n, shape)}", f"    q{n} = y{n}.data_ptr()"]
    return [*lines, *_launch(recipe), f"    return ({', '.join(f'y{n}' for n in range(len(recipe.outputs)))},)"]


def serves(recipe: Recipe) -> list[str]:
    """``serves(args)``: True, or MISS, which is false."""
    return ["def serves(args):", *_guards(recipe, Given()), "    return True"]


# -- guards --------------------------------------------------------------------------------------------------------
def _guards(recipe: Recipe, given: Given) -> list[str]:
    """MISS unless the arguments are those the kernel was compiled for; their addresses and the sizes they bind."""
    names = [f"x{n}" for n in range(len(recipe.inputs))]
    left = f"{', '.join(names)}{',' if len(names) == 1 else ''}" if names else "()"
    lines = ["    try:", f"        {left} = args", "    except ValueError:", "        return MISS"]
    kinds = [f"type(x{n}) not in KINDS" for n in given.tensors(recipe)]
    kinds += [f"type(x{n}) is not ndarray" for n in sorted(given.arrays)]
    kinds += [f"type(x{n}) not in ({CODES[recipe.inputs[n][1]][1]},)" for n in sorted(given.numbers)]
    lines += _unless(" or ".join(kinds))
    if names:
        lines += ["    try:"]
        bound = _Bound()
        for n in range(len(names)):
            lines += _number(recipe, n) if n in given.numbers else _array(recipe, n, bound, n in given.arrays)
        lines += ["    except (RuntimeError, OverflowError):", "        return MISS"]
        lines += [f"    {size} = (s{n}[{d}] - ({rest})) // {factor}" for size, n, d, rest, factor in recipe.solved]
        late = [*(f"{size} < 1" for size, *_ in recipe.solved), *_formula_guards(recipe), *bound.late]
        return lines + _unless(" or ".join([*late, *_misaligned(recipe, given.memory(recipe))]))
    return lines


def _if(condition: str, then: str) -> list[str]:
    return [f"    if {condition}:", f"        {then}"] if condition else []


def _unless(condition: str) -> list[str]:
    return _if(condition, "return MISS")


def _needs_grad(recipe: Recipe, given: Given) -> str:
    needing = [f"x{n}.requires_grad" for n in given.tensors(recipe) if by_name(recipe.inputs[n][1]).is_float]
    return f"grad_enabled() and ({' or '.join(needing)})" if needing else ""


def _own(recipe: Recipe, name: str, args: str) -> list[str]:
    """Let a kernel compiled for just these sizes run, if there is one."""
    sizes = f"({', '.join(recipe.sizes)},)"
    return [f"    own = known({sizes}, MISS)", "    if own is MISS:", f"        own = find({sizes}, args)",
            "    if own is not None:", f"        results = own.{name}({args})",
            "        if results is not MISS:", "            return results"]


@dataclass
class _Bound:
    """The sizes that arguments have shown so far, and what is to be refused about strides once all are known."""

    names: set[str] = field(default_factory=set)
    late: list[str] = field(default_factory=list)


def _array(recipe: Recipe, n: int, bound: _Bound, numpy: bool) -> list[str]:
    _, _, shape, strides = recipe.inputs[n]
    sizes, steps = known(shape), known(strides)
    lines: list[str] = []
    wrong = [f"x{n}.dtype is not N{n} and x{n}.dtype != N{n}" if numpy else f"x{n}.dtype is not D{n}"]
    if sizes is not None and steps is not None:
        wrong += [f"x{n}.shape != {sizes}", *_wrong_strides(recipe, n, sizes, steps, numpy)]
    else:
        wrong += [f"x{n}.{'ndim' if numpy else 'dim()'} != {len(shape)}"]
    wrong += [] if numpy else [f"not x{n}.is_cpu", f"x{n}.is_neg()"]
    lines += [f"        if {' or '.join(wrong)}:", "            return MISS"]
    if sizes is None or steps is None:
        lines += _symbolic(recipe, n, bound, numpy)
    lines += [f"        p{n} = {_address(f'x{n}', numpy)}"]
    return lines if 0 in shape else [*lines, f"        if not p{n}:", "            return MISS"]


def _symbolic(recipe: Recipe, n: int, bound: _Bound, numpy: bool) -> list[str]:
    """Bind the sizes met first here, refuse others than known; what is a formula is compared when all sizes are bound."""
    _, dtype, shape, strides = recipe.inputs[n]
    lines, wrong = [f"        s{n} = x{n}.shape"], []
    for d, size in enumerate(shape):
        if isinstance(size, int) or size in bound.names:
            wrong.append(f"s{n}[{d}] != {size}")
        elif size.isidentifier():
            lines.append(f"        {size} = s{n}[{d}]")
            bound.names.add(size)
            wrong.append(f"{size} < 1")
    if _row_major(shape, strides):
        wrong.append(_not_contiguous(f"x{n}", numpy))
        return [*lines, f"        if {' or '.join(wrong)}:", "            return MISS"]
    lines.append(f"        t{n} = x{n}.{'strides' if numpy else 'stride()'}")
    unit = TORCH[dtype].itemsize if numpy else 1  # numpy counts bytes, and may go backwards
    for d, step in enumerate(strides):
        if isinstance(step, str) and step.isidentifier() and step not in bound.names:
            lines.append(f"        {step} = t{n}[{d}]" + (f" // {unit}" if unit > 1 else ""))
            bound.names.add(step)
            wrong += [f"{step} < 0", f"{step} * {unit} != t{n}[{d}]"] if numpy else []
        elif 0 not in shape:  # nothing is read of what is empty, and its strides mean nothing
            needed = set(re.findall(r"\bn\d+\b", str(step)))
            (wrong if needed <= bound.names else bound.late).append(f"(s{n}[{d}] != 1 and t{n}[{d}] != ({step}) * {unit})")
    return [*lines, f"        if {' or '.join(wrong)}:", "            return MISS"] if wrong else lines


def _formula_guards(recipe: Recipe) -> list[str]:
    """Sizes that are formulas of others: ``2*N``."""
    return [f"s{n}[{d}] != {size}" for n, (_, _, shape, _) in enumerate(recipe.inputs) for d, size in enumerate(shape)
            if isinstance(size, str) and not size.isidentifier()]


def _row_major(shape: Formulas, strides: Formulas) -> bool:
    """Whether strides are those of a tensor without gaps, by the shape of their formulas: each is the product of the sizes after it."""
    names = {e for e in (*shape, *strides) if isinstance(e, str) and e.isidentifier()}
    values: dict[str, int] = {name: 2 + 3 * k for k, name in enumerate(sorted(names))}
    try:
        numbers = [evaluate(e, values) for e in shape]
        return [evaluate(e, values) for e in strides] == list(contiguous(numbers))
    except InternalError:
        return False


def _wrong_strides(recipe: Recipe, n: int, shape: Shape, strides: Shape, numpy: bool) -> list[str]:
    """Where the strides differ from those compiled for; a dimension that is walked over once may have any."""
    if not shape:
        return []
    dense = contiguous(shape)
    if 0 in shape or all(s == d for size, s, d in zip(shape, strides, dense) if size > 1):
        return [_not_contiguous(f"x{n}", numpy)]
    unit = TORCH[recipe.inputs[n][1]].itemsize if numpy else 1
    steps = tuple(s * unit for s in strides)
    if all(s > 1 for s in shape):
        return [f"x{n}.{'strides' if numpy else 'stride()'} != {steps}"]
    each = f"x{n}.strides[{{}}]" if numpy else f"x{n}.stride({{}})"
    return [f"{each.format(d)} != {steps[d]}" for d in range(len(shape)) if shape[d] > 1]


def _not_contiguous(x: str, numpy: bool) -> str:
    return f"not {x}.flags.c_contiguous" if numpy else f"not {x}.is_contiguous()"


def _address(x: str, numpy: bool) -> str:
    return f"address({x})" if numpy else f"{x}.data_ptr()"


def _number(recipe: Recipe, n: int) -> list[str]:
    """A Python number in memory of its own: ``a`` keeps it for the length of the call."""
    return [f"        a{n} = array('{CODES[recipe.inputs[n][1]][0]}', (x{n},))", f"        p{n} = a{n}.buffer_info()[0]"]


def _misaligned(recipe: Recipe, places: Sequence[int]) -> list[str]:
    sizes: dict[int, list[str]] = {}
    for n in places:
        sizes.setdefault(TORCH[recipe.inputs[n][1]].itemsize, []).append(f"p{n}")
    return [f"({' | '.join(names)}) & {size - 1}" for size, names in sorted(sizes.items()) if size > 1]


# -- what is filled ------------------------------------------------------------------------------------------------
def _target(recipe: Recipe, n: int, numpy: bool) -> list[str]:
    """What is given for one result: of its dtype and shape, without gaps, to be written to."""
    _, shape = recipe.outputs[n]
    wrong = [f"y{n}.dtype is not O{n} and y{n}.dtype != O{n}" if numpy else f"y{n}.dtype is not E{n}",
             f"y{n}.shape != ({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})", _not_contiguous(f"y{n}", numpy)]
    wrong += [f"not y{n}.flags.writeable"] if numpy else [f"not y{n}.is_cpu", f"y{n}.is_neg()"]
    lines = [f"        if {' or '.join(wrong)}:", "            return MISS", f"        q{n} = {_address(f'y{n}', numpy)}"]
    return lines if 0 in shape else [*lines, f"        if not q{n}:", "            return MISS"]


def _odd(address: str, dtype: str) -> list[str]:
    size = TORCH[dtype].itemsize
    return [f"{address} & {size - 1}"] if size > 1 else []


def _overlaps(recipe: Recipe, given: Given) -> list[str]:
    """Where what is filled may share memory with an argument, or with another result."""
    results = [(f"q{n}", _bytes(shape, None, dtype)) for n, (dtype, shape) in enumerate(recipe.outputs)]
    inputs = [(f"p{n}", _bytes(recipe.inputs[n][2], recipe.inputs[n][3], recipe.inputs[n][1])) for n in given.memory(recipe)]
    over = {(f"p{n}", f"q{k}") for n, k in recipe.in_place}
    pairs = [(r, o) for n, r in enumerate(results) for o in (*inputs, *results[:n])]
    return [f"{q} < {p} + {b} and {p} < {q} + {a}" + (f" and {q} != {p}" if (p, q) in over else "")
            for (q, a), (p, b) in pairs if "0" not in (a, b)]


def _bytes(shape: Formulas, strides: Formulas | None, dtype: str) -> str:
    """The bytes from the first to behind the last element; without strides, of a tensor without gaps."""
    size = TORCH[dtype].itemsize
    sizes, steps = known(shape), None if strides is None else known(strides)
    if 0 in shape:
        return "0"
    if strides is None or _row_major(shape, strides):
        return str(size * _product(sizes)) if sizes is not None else " * ".join([str(size), *(f"({s})" for s in shape)])
    if sizes is not None and steps is not None:
        return str(size * (sum((n - 1) * s for n, s in zip(sizes, steps)) + 1))
    return f"{size} * ({' + '.join(f'(({n}) - 1) * ({s})' for n, s in zip(shape, strides))} + 1)"


def _product(numbers: Shape) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total


# -- the call ------------------------------------------------------------------------------------------------------
def _empty(maker: str, n: int, shape: Formulas) -> str:
    sizes = known(shape)
    if sizes is not None:
        return f"{maker}{n}({sizes}, {contiguous(sizes)}, E{n})"
    steps = [" * ".join([f"({s})" for s in shape[d + 1:]]) or "1" for d in range(len(shape))]
    return f"{maker}{n}(({', '.join(map(str, shape))},), ({', '.join(steps)},), E{n})"


def _launch(recipe: Recipe) -> list[str]:
    """The call itself, with private memory from the pool around it."""
    if all(0 in shape for _, shape in recipe.outputs):
        return []
    words = [f"p{n}" for n in range(len(recipe.inputs))] + [f"q{n}" for n in range(len(recipe.outputs))]
    if not recipe.workspaces and not recipe.scratch:
        return [f"    code = native(ENTRY, 0, threads(), {', '.join([*words, *recipe.sizes])})", *_check()]
    lines, spaces = ["    at0 = 0"], []
    for k, size in enumerate(recipe.workspaces):
        spaces.append(f"base + at{k}")
        lines.append(f"    at{k + 1} = at{k} + ({size}) // 64 * 64 + 128")
    end = f"at{len(spaces)}"
    scratch = f"base + {end}" if recipe.scratch else "0"
    return [*lines, "    many = threads()", f"    block = take({end} + ({recipe.scratch}) * many + 64)",
            "    base = block.address", "    try:",
            f"        code = native(ENTRY, {scratch}, many, {', '.join([*words, *spaces, *recipe.sizes])})", "    finally:",
            "        give(block)", *_check()]


def _check() -> list[str]:
    return ["    if code:", "        raise failed(code, args)"]
