"""Which points of a block's stages matter: what lies past a diagonal is left out by register tiles, and not by whole blocks alone.

A rolling stage knows terms (its guards) one of which is negative only where an element changes no state. A reduction over the points of
a block skips those elements. What it reads is needed where a tile of its own has an element that matters, so for what comes before the
same terms hold, greater by what such a tile spans. Where that is not known for every reader, all points are computed.
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.lower.placing import single
from dsl.algebra import reads
from dsl.dim import ZERO, Term, Var, as_term, tile_bound
from dsl.expr import Read
from dsl.nest import Nest, Stage
from dsl.placing import Placed

Terms = tuple[Term | None, ...]  # one for each guard, over the axes of a stage; None where every point may matter


def relevant(nest: Nest, host: Stage, placed: Mapping[str, Placed]) -> dict[str, tuple[Term, ...]]:
    """For the stages attached in a rolling stage: terms over their axes that are ``>= 0`` at every point that matters.

    A term that mentions a bound axis speaks of the loops of the reduction, any other of those over the stage's results.
    """
    guards = host.notes.get("guards", ())
    inner = host.notes.get("inner", ())
    found: dict[str, Terms] = {}
    for s in reversed([s for s in nest.stages if s.attach == (host.name, host.order[-1])]):
        along = bool(s.along) or (s.kind == "reduce" and [(v.name, v.extent) for v in s.bound] == [(v.name, v.extent) for v in inner])
        terms = _own(s, host, guards, inner) if along else _of_readers(nest, s, found, placed, len(guards))
        found[s.name] = tuple(t if t is not None and _tested(t, placed[s.name], along) else None for t in terms)
    return {name: kept for name, terms in found.items() if (kept := tuple(t for t in terms if t is not None))}


def _own(s: Stage, host: Stage, guards: tuple[Term, ...], inner: tuple[Var, ...]) -> Terms:
    """The guards over the axes of a reduction of the block: the block, the rows, then others; and those it reduces.

    A sum along the rows has the points of the block among its axes, and reduces a row.
    """
    if s.along:
        rows = [a for a in host.axes if a not in s.along.values()]
        pairs = [*zip((host.bound[0], *rows, *inner), s.axes), *((v, a) for a, v in s.along.items())]
    else:
        pairs = [*zip((host.bound[0], *host.axes), s.axes), *zip(inner, s.bound)]
    env = {v: as_term(a) for v, a in pairs}
    sums = s.reducing()
    last = max((n for n, x in enumerate(s.order) if x not in sums and s.role(x) == "serial"), default=-1)
    first = min((n for n, x in enumerate(s.order) if x in sums and s.role(x) == "serial"), default=len(s.order))
    return tuple(g.subs(env) if last < first else None for g in guards)


def _tested(t: Term, p: Placed, along: bool) -> bool:
    """Whether a loop of the stage leaves out exactly the tiles without a point that matters."""
    here = t.subs(p.value)
    coefs = [(x, here.coef(x.var)) for x in p.loops]
    return all(c is not None for _, c in coefs) and any(c and x.reduce == along and not x.tile and not single(x) for x, c in coefs)


def _of_readers(nest: Nest, s: Stage, found: Mapping[str, Terms], placed: Mapping[str, Placed], count: int) -> Terms:
    """What the readers of a stage need of it, all together."""
    wanted = [_through(r, s, found.get(c.name, (None,) * count), placed[c.name])
              for c in nest.consumers(s) for t in c.tensors for r in reads(t.body) if r.tensor in s.tensors]
    return tuple(_weakest([w[n] for w in wanted]) for n in range(count))


def _through(r: Read, s: Stage, theirs: Terms, p: Placed) -> Terms:
    """A reader's terms over the axes of what it reads, greater by the span of the reader's tiles."""
    env: dict[Var, Term] = {}
    for a, i in zip(s.axes, r.indices):
        if isinstance(i, Term):
            v = next((v for v in (*p.stage.axes, *p.stage.bound) if v not in env and i.coef(v) == 1), None)
            env |= {} if v is None else {v: as_term(a) - i.subs({v: ZERO})}
    tile = {x.var for x in p.loops if x.tile}

    def grown(t: Term | None) -> Term | None:
        if t is None or not t.subs(env).vars <= set(s.axes):
            return None
        here = t.subs(p.value)
        return t.subs(env) + (tile_bound(here, tile, True) - tile_bound(here, tile, False))

    return tuple(grown(t) for t in theirs)


def _weakest(terms: list[Term | None]) -> Term | None:
    """The greatest of terms that differ by constants."""
    known = [t for t in terms if t is not None]
    if not known or len(known) < len(terms) or not all((t - known[0]).is_const for t in known):
        return None
    return max(known, key=lambda t: (t - known[0]).const)
