"""Scatters on a GPU: a program owns a block of rows and columns, and looks through the indices for those that name its rows.

    for r.o, c.o in grid:
      y[r.o's rows, c.o's columns] = 0
      for k.o:
        if any of 128 indices names a row of r.o:          # looked at all at once
          for k.i in 128:
            r.i = ids[k] - r.o * ..                        # seek
            y[r, c.i] += x[k, c.i]                         # a tile

No atomics: every element takes its terms in the order of ``k``, the same bits whatever the grid. Programs that share a row's columns look
through the indices once each, so it pays where rows are long or many; elsewhere every row is compared with every index, in tiles.
"""

from __future__ import annotations

from codegen.analysis.arrangement import Arrangement, arrange, points
from codegen.heuristics.decisions import Setting
from codegen.heuristics.gpu.tiles import launch, power, tile_loop
from codegen.heuristics.seeking import in_place
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, reorder, set_role, split

_LOOK = 128  # indices that are looked at together
_COLUMNS = 1024  # columns of a program at most
_NARROW = 32  # columns that occupy the threads of a program
_PROGRAMS = 8  # programs for each processor, where there are as many rows
# Estimates in nanoseconds, from published latencies: to look at some indices, to go through them one by one, to add a tile to a row.
_LOOKED, _GONE_THROUGH, _ADDED = 300, 4000, 1500
_COMPARED = 50  # comparisons of the dense form in a nanosecond on one processor


def schedule_sought(nest: Nest, setting: Setting) -> tuple[Nest, set[str]]:
    """Schedule every reduction for which seeking pays; the nest, and the names of the stages that have their schedule."""
    done: set[str] = set()
    for s in nest.stages:
        found = arrange(s)
        if found is None or found.followed or not found.columns or not in_place(s):
            continue
        paying = pays(s, found, setting)
        if setting.choose(f"{s.name}.seek", paying, (True, False)):
            nest = _schedule(nest, s, found, setting)
            done.add(s.name)
    return nest, done


def pays(s: Stage, found: Arrangement, setting: Setting) -> bool:
    """Whether looking through the indices takes less time than comparing each with every row."""
    if points(found.columns[-1:]) < _NARROW:
        return False
    processors, terms, rows = setting.target.threads, points(s.bound), points(found.sought)
    block, programs = _block(found, setting), points(found.outer) * points(found.columns[:-1]) * -(-points(found.columns[-1:]) // _COLUMNS)
    programs *= -(-points(found.sought[:1]) // block)
    hits = terms * block / points(found.sought[:1])
    met = min(hits, terms / _LOOK)
    each = terms / _LOOK * _LOOKED + met * _GONE_THROUGH + hits * _ADDED
    waves = -(-programs // (2 * _PROGRAMS * processors))
    dense = rows * points(found.outer) * points(found.columns) * terms / (_COMPARED * processors)
    return waves * each < dense


def _block(found: Arrangement, setting: Setting) -> int:
    """Rows of a program: so many that all programs run at once, and two at least, since one row has nothing to seek."""
    others = points(found.outer) * -(-points(found.columns) // _COLUMNS)
    wanted = points(found.sought[:1]) * others // (_PROGRAMS * setting.target.threads)
    return max(2, power(wanted))


def _schedule(nest: Nest, s: Stage, found: Arrangement, setting: Setting) -> Nest:
    """The grid, chunks of indices, rows that are sought, a tile of columns."""
    name, names = s.name, s.axis_names()
    row, last, bound = names[found.sought[0]], names[found.columns[-1]], [names[v] for v in s.bound]
    width = min(power(points(found.columns[-1:])), _COLUMNS)
    nest = split(split(nest, name, row, _block(found, setting)), name, bound[-1], _LOOK)
    nest, block, tile = tile_loop(nest, name, last, width)
    grid = [*(names[v] for v in found.outer), f"{row}.o", *(names[v] for v in found.columns[:-1]), block]
    rows = [f"{row}.i", *(names[v] for v in found.sought[1:])]
    nest = reorder(nest, name, [*grid, *bound[:-1], f"{bound[-1]}.o", f"{bound[-1]}.i", *rows, *tile])
    for x in rows:
        nest = set_role(nest, name, x, "seek")
    nest = annotate(nest, name, "skip", True, f"{bound[-1]}.i")
    return launch(nest, name, grid, width // (4 * setting.target.warp), setting, stages=1)
