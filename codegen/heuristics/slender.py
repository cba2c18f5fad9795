"""Products with few rows: the large factor is read once, so it is used as it lies in memory, without a copy."""

from __future__ import annotations

from dataclasses import replace

from codegen.analysis.access import accesses, size
from codegen.heuristics.bounded import tile_whole
from codegen.heuristics.decisions import Setting
from codegen.heuristics.product import Product
from codegen.target.model import Target
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.storage import cache_write, compute_at

_STEP = 8  # rows of the large factor that pass while results are held in registers: so many streams are fetched ahead
_LINE = 64  # bytes of a cache line


def schedule_dots(nest: Nest, anchor: str, p: Product, terms: Var, up: dict[Var, Var], setting: Setting) -> Nest:
    """Lanes along ``terms``, in which both factors are contiguous; the lanes are added up at the end of each sum."""
    room, rows = setting.target.vector_registers, p.lines
    columns = max(n for n in (1, 2, 3, 4, 6, 8) if n == 1 or (n * rows + n + 1 <= room - 2 and n <= p.columns))
    columns = setting.choose(f"{anchor}.columns", columns, (1, 2, 3, 4, 6, 8))
    width = min(setting.target.vector_bits // p.accumulator.bits, size(terms.extent))
    nest, block = _block_columns(nest, anchor, p, up, min(16 * columns, -(-p.columns // setting.target.threads)), setting)
    heavy, names = p.stage.name, p.stage.axis_names()
    col = names[p.lane] if anchor != heavy else f"{block}.i"
    nest = split(nest, heavy, col, columns, f"{col}.t", f"{col}.u", tail="peel")
    nest = set_role(nest, heavy, f"{col}.u", "unroll")
    nest = split(nest, heavy, names[terms], width, tail="peel")
    nest = set_role(nest, heavy, f"{names[terms]}.i", "vectorize")
    tile = [f"{col}.u", f"{names[terms]}.i"]
    left: list[str] = []
    if p.row is not None:
        nest, left, row = tile_whole(nest, heavy, names[p.row], "unroll")
        tile.insert(0, row)
    sums = [names[v] for v in p.stage.bound if v is not terms]
    return reorder(nest, heavy, [*left, f"{col}.t", *sums, f"{names[terms]}.o", *tile])


def schedule_stream(nest: Nest, anchor: str, p: Product, up: dict[Var, Var], setting: Setting) -> Nest:
    """Rows of the lane factor pass by, some at a time and whole blocks long; the results stay in the nearest cache.

    Unfinished results lie in private memory: in the result, neighbouring blocks of other threads would share cache lines with them.
    """
    target = setting.target
    if anchor == p.stage.name:
        nest, made = cache_write(nest, anchor)
        p, up = replace(p, stage=nest[made]), dict(zip(p.stage.axes, nest[anchor].axes))
    shapes = _stream_tiles(p, setting)
    width, rows = setting.choose(f"{anchor}.stream_tile", shapes[0], shapes)
    nest, _ = _block_columns(nest, anchor, p, up, _stream_block(p, width, target), setting)
    heavy, names = p.stage.name, p.stage.axis_names()
    col = names[p.lane]
    nest = split(nest, heavy, col, width, f"{col}.t", f"{col}.u", tail="peel")
    nest = set_role(nest, heavy, f"{col}.u", "vectorize")
    deep = max(p.stage.bound, key=lambda v: size(v.extent))
    step = setting.choose(f"{anchor}.step", min(_STEP, size(deep.extent)), (4, 8, 16, 32))
    nest = split(nest, heavy, names[deep], step, tail="peel")
    tile = [f"{col}.u"]
    left: list[str] = []
    if p.row is not None:
        nest, left, row = tile_whole(nest, heavy, names[p.row], "unroll", rows)
        tile.insert(0, row)
    sums = [names[v] for v in p.stage.bound if v is not deep]
    return reorder(nest, heavy, [*sums, f"{names[deep]}.o", *left, f"{col}.t", f"{names[deep]}.i", *tile])


def _stream_block(p: Product, width: int, target: Target) -> int:
    """Columns whose results stay in the nearest cache: whole tiles, and equal shares for all threads."""
    most = max(1, target.caches[0] // (2 * p.accumulator.itemsize * p.lines * width)) * width
    blocks = -(-p.columns // (most * target.threads)) * target.threads
    return -(-p.columns // (blocks * width)) * width


def _stream_tiles(p: Product, setting: Setting) -> list[tuple[int, int]]:
    """(lanes, rows) of the tiles that fit the registers, the best first: whole lines of the factor, as many rows as leave room for them."""
    room, lanes = setting.target.vector_registers - 2, setting.target.vector_bits // p.accumulator.bits
    shares = dict.fromkeys(-(-p.lines // parts) for parts in range(1, p.lines + 1))
    fits = [(n, m) for m in shares for n in (8, 6, 4, 3, 2, 1) if n * m + n + 1 <= room and (n - 1) * lanes < p.columns]
    best = next((s for s in fits if s[0] * lanes * p.accumulator.itemsize >= _LINE), fits[0])
    return [(n * lanes, m) for n, m in (best, *fits)]


def passing(nest: Nest, name: str, setting: Setting) -> Product | None:
    """A reduction over whole rows of a tensor too large for the nearer caches, with one result for every column.

    A matrix and a vector, say, or column sums. Its lanes lie along the columns, and the rows pass as in :func:`schedule_stream`.
    """
    s = nest[name]
    if not kept_in_memory(s) or len(s.bound) != 1:
        return None
    columns = [v for v in s.axes if size(v.extent) > 1]
    large = [x for x in accesses(s, setting.strides)
             if not x.write and x.uses(s.bound[0]) and len(columns) == 1 and x.stride(columns[0]) == 1]
    if not large or size(columns[0].extent) * size(s.bound[0].extent) * large[0].dtype.itemsize <= setting.target.caches[1] // 2:
        return None
    return Product(s, columns[0], None, None, None)


def kept_in_memory(s: Stage) -> bool:
    """Whether unfinished results can lie where the finished ones go: they are one value of the result's dtype."""
    if s.kind != "reduce" or len(s.tensors) != 1:
        return False
    carrier = s.body.data[0]
    plain = carrier.name.split(".")[0] in ("sum", "prod", "max", "min")
    return plain and carrier.state(tuple(a.dtype for a in s.body.args)) == (s.tensors[0].dtype,)


def _block_columns(nest: Nest, anchor: str, p: Product, up: dict[Var, Var], columns: int, setting: Setting) -> tuple[Nest, str]:
    """Blocks of columns in parallel; a product that its anchor finishes is computed a block at a time. Returns the column loop."""
    axes = nest[anchor].axis_names()
    col = axes[up[p.lane]]
    row = axes[up[p.row]] if p.row is not None else ""
    nest = split(nest, anchor, col, columns)
    batch = [axes[v] for v in nest[anchor].axes if axes[v] not in (col, row)]
    rest = [x for x in nest[anchor].order if x not in (*batch, f"{col}.o")]
    nest = reorder(nest, anchor, [*batch, f"{col}.o", *rest])
    for x in (*batch, f"{col}.o"):
        nest = set_role(nest, anchor, x, "parallel")
    if anchor == p.stage.name:
        return nest, col
    width = min(setting.target.vector_bits // 32, columns)
    nest = split(nest, anchor, f"{col}.i", width, f"{col}.w", f"{col}.v", tail="peel")
    nest = set_role(nest, anchor, f"{col}.v", "vectorize")
    nest = reorder(nest, anchor, [*([row] if row else []), f"{col}.w", f"{col}.v"])
    return compute_at(nest, p.stage.name, anchor, f"{col}.o"), col
