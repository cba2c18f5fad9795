"""The search: which reductions of a nest run over one axis of one box, and what each becomes beside the earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dsl.algebra import reads, substitute, substitute_values
from dsl.carrier import SUM, merges
from dsl.cascade.factored import Mixed, Sides, leaves
from dsl.cascade.forms import Builder
from dsl.cascade.model import Cascade, Component, Derivation, Refusal
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Read, Tensor
from dsl.nest import Nest, Stage
from dsl.stages import inline_reads


def derive(nest: Nest, approximate: bool = False) -> Derivation:
    """Find the chains of reductions of an unscheduled nest, which keeps them.

    Args:
        nest: one stage per reduction, as :func:`dsl.stages.build_nest` makes it.
        approximate: whether a rounding inside an element may be moved past a rescaling.
    """
    kept: dict[bool, Derivation] = nest.__dict__.setdefault("_derived", {})
    if approximate not in kept:
        kept[approximate] = _Search(nest, approximate).run()
    return kept[approximate]


class _Search:
    """The state of one derivation: cascades as they grow."""

    def __init__(self, nest: Nest, approximate: bool) -> None:
        self.nest, self.approximate = nest, approximate
        self.maps: dict[Tensor, Compute] = {t: t for s in nest.stages if s.kind == "map" for t in s.tensors}
        self.cascades: list[Cascade] = []
        self.home: dict[Tensor, int] = {}
        self.refusals: list[Refusal] = []
        self.upstream: dict[str, frozenset[str]] = {}

    def run(self) -> Derivation:
        for s in self.nest.stages:
            above = {p.name for t in s.sources() if (p := self.nest.producer(t)) is not None}
            self.upstream[s.name] = frozenset(above).union(*(self.upstream[n] for n in above))
            if s.kind == "reduce" and s.attach is None and not merges(s.body.data[0]):
                self._place(s)
        found = tuple(c for c in self.cascades if len(c.components) > 1 or len(c.accumulators) > 1 or c.folded)
        return Derivation(found, tuple(self.refusals))

    # -- where a reduction goes ------------------------------------------------------------------------------------
    def _place(self, s: Stage) -> None:
        element = tuple(inline_reads(a, self.maps) for a in s.body.args)
        earlier = self._earlier(s, element)
        homes = list(dict.fromkeys(self.home[r.tensor] for r in earlier))
        if len(homes) > 1 and self._in_order(homes) and self._unite(s, earlier, homes):
            homes = homes[:1]
        reasons: list[str] = []
        for n in homes:
            mine = tuple(r for r in earlier if self.home[r.tensor] == n)
            reason = self._joined(n, s, element, mine, len(homes) > 1)
            if reason is None:
                return
            reasons += [reason] if reason else []
        if len(homes) > 1:
            reasons.append("it reads results of two passes that share no loop")
        if reasons:
            self.refusals.append(Refusal(s.tensors[0], s.name, earlier, reasons[0]))
        for n in range(len(self.cascades)):
            if n not in homes and self._joined(n, s, element, (), True) is None:
                return
        rows = self._folded_rows(s, element)
        begun = Cascade(rows or tuple(s.axes), s.bound, folded=rows is not None)
        self.cascades.append(self._join(begun, s, element, {v: as_term(v) for v in (*s.axes, *s.bound)}))
        self.home |= dict.fromkeys(s.tensors, len(self.cascades) - 1)

    def _joined(self, n: int, s: Stage, element: tuple[Expr, ...], earlier: tuple[Read, ...], share: bool) -> str | None:
        """Add a stage to a cascade, with what it reads of others as given; why not, empty where they have nothing in common.

        Results that it reads of a cascade are enough, unless it must ``share`` what is read along the axis.
        """
        try:
            env = self._match(s, element, earlier, self.cascades[n])
            if env is None or (share and not self._share(s, element, self.cascades[n], env)):
                return ""
            self.cascades[n] = self._join(self.cascades[n], s, element, env)
        except Mixed as e:
            return str(e)
        self.home |= dict.fromkeys(s.tensors, n)
        return None

    def _folded_rows(self, s: Stage, element: tuple[Expr, ...]) -> tuple[Var, ...] | None:
        """The axes that a sum shares with a matrix some reduction makes for it, where it has others besides: a product with the matrix."""
        if len(s.tensors) != 1 or s.body.data[0].name not in (SUM.name, "sum.partial"):
            return None
        found: set[Var] = set()
        for r in leaves(element[0]):
            assert isinstance(r, Read)
            p = self.nest.producer(r.tensor)
            if p is not None and p.kind == "reduce" and r.free & set(s.bound) and all(isinstance(i, Term) for i in r.indices):
                found |= r.free & set(s.axes)
        rows = tuple(v for v in s.axes if v in found)
        return rows if rows and len(rows) < len(s.axes) else None

    def _in_order(self, homes: list[int]) -> bool:
        """Whether no cascade is made of a later one: of all its rows, as a product with normalised columns is of their norms."""
        members = [{x.stage for x in self.cascades[n].components} for n in homes]
        return not any(self._needed(members[i], self.cascades[homes[i]]) & later for i in range(len(homes)) for later in members[i + 1:])

    def _unite(self, s: Stage, earlier: tuple[Read, ...], homes: list[int]) -> bool:
        """Join independent cascades that a stage reads results of, when it reads all at the same rows."""
        first, *rest = homes
        rows: dict[int, dict[Var, Var]] = {n: {} for n in homes}
        for r in earlier:
            n = self.home[r.tensor]
            component = next(x for x in self.cascades[n].components if x.tensor is r.tensor)
            for i, v in zip(r.indices, component.axes):
                if rows[n].setdefault(v, _plain(i)) is not _plain(i):  # type: ignore[arg-type]
                    return False
        back = {own: v for v, own in rows[first].items()}
        joined = self.cascades[first]
        for n in rest:
            other = self.cascades[n]
            env = {v: as_term(back[own]) for v, own in rows[n].items() if own in back}
            if set(env) != set(other.rows) or {v for t in env.values() for v in t.vars} != set(joined.rows):
                return False
            env |= {v: as_term(k) for v, k in zip(other.axes, joined.axes)}
            names = list(dict.fromkeys(c.stage for c in other.components))
            for stage in (self.nest[name] for name in names):
                element = tuple(inline_reads(a, self.maps) for a in stage.body.args)
                own = self._own_axes(stage, other, env)
                if not self._free_of(stage, element, self._earlier(stage, element), joined):
                    return False
                try:
                    joined = self._join(joined, stage, element, own)
                except Mixed:  # they stay as they are, each by itself
                    return False
        for n in rest:
            self.home |= {c.tensor: first for c in self.cascades[n].components}
            self.cascades[n] = Cascade((), ())
        self.cascades[first] = joined
        return True

    def _own_axes(self, s: Stage, c: Cascade, env: Mapping[Var, Term]) -> dict[Var, Term]:
        """A stage's own axes -> the axes of another cascade that its cascade is joined to."""
        place = next(x for x in c.components if x.stage == s.name).axes
        out = {v: env.get(w, as_term(w)) for v, w in zip(s.axes, place)}
        return out | {v: env[k] for v, k in zip(s.bound, c.axes)}

    def _earlier(self, s: Stage, element: tuple[Expr, ...]) -> tuple[Read, ...]:
        """Reads of reductions over a box of the same extents, at a point free of the bound axes."""
        out: dict[Read, None] = {}
        for a in element:
            for r in leaves(a):
                assert isinstance(r, Read)
                p = self.nest.producer(r.tensor)
                if p is None or r.tensor not in self.home or r.free & set(s.bound) or not _same_box(p.bound, s.bound):
                    continue
                if all(isinstance(i, Term) and _plain(i) in s.axes for i in r.indices):
                    out.setdefault(r)
        return tuple(out)

    def _match(self, s: Stage, element: tuple[Expr, ...], earlier: tuple[Read, ...], c: Cascade) -> dict[Var, Term] | None:
        """Axes of a stage -> canonical axes of a cascade; axes that only the stage has stay as they are. None when they do not fit.

        Raises:
            Mixed: two axes of the stage would be the same one.
        """
        if not _same_box(s.bound, c.axes) or not self._free_of(s, element, earlier, c):
            return None
        env: dict[Var, Term] = {v: as_term(k) for v, k in zip(s.bound, c.axes)}
        if earlier:
            for r in earlier:
                component = next((x for x in c.components if x.tensor is r.tensor), None)
                if component is None or not all(v in c.rows for v in component.axes):
                    return None
                for i, v in zip(r.indices, component.axes):
                    if env.setdefault(_plain(i), as_term(v)) != as_term(v):  # type: ignore[arg-type]
                        return None
            twice = [v for v in s.axes if v in env and any(env[v] == t for w, t in env.items() if w is not v)]
            if twice:
                raise Mixed(f"it reads results of two rows at once, {' and '.join(v.name for v in twice)}, and a pass has those of one")
        elif not self._share(s, element, c, env):
            return None  # what is read along the axis tells which row is which
        used = {v for t in env.values() for v in t.vars}
        if not set(c.rows) <= used:
            return None
        return env | {v: as_term(Var(v.name, v.extent)) for v in s.axes if v not in env}

    def _free_of(self, s: Stage, element: tuple[Expr, ...], earlier: tuple[Read, ...], c: Cascade) -> bool:
        """Whether a stage depends on the members of a cascade through its earlier results alone."""
        members = {x.stage for x in c.components}
        given = {p.name for a in element for r in leaves(a) if isinstance(r, Read) and r not in set(earlier)
                 and (p := self.nest.producer(r.tensor)) is not None}
        return not self._needed(given, c) & members

    def _needed(self, stages: Iterable[str], c: Cascade) -> set[str]:
        """Stages, all that they are made of, and what goes along with that in passes other than ``c``."""
        out: set[str] = set()
        passes = {n for n, other in enumerate(self.cascades) if other is c}  # whose members were added, or are not to be
        todo = list(stages)
        while todo:
            name = todo.pop()
            if name in out:
                continue
            new = (self.upstream[name] | {name}) - out
            out |= new
            homes = {self.home[t] for n in new for t in self.nest[n].tensors if t in self.home} - passes
            passes |= homes
            todo += [x.stage for n in homes for x in self.cascades[n].components]
        return out

    def _share(self, s: Stage, element: tuple[Expr, ...], c: Cascade, env: dict[Var, Term]) -> bool:
        """Whether a stage over the same rows reads what a cascade reads; completes ``env``."""
        theirs = [r for x in c.components for e in x.element for r in reads(e)]
        for r in (r for a in element for r in reads(a)):
            for other in theirs:
                trial = dict(env)
                if (r.tensor is other.tensor and r.free & set(s.bound)
                        and all(_unify(i, j, trial) for i, j in zip(r.indices, other.indices))):
                    found = {v for t in trial.values() for v in t.vars}
                    if all(v in s.axes or v in s.bound for v in trial) and found >= set(c.rows) and len(found) == len(trial):
                        env.update(trial)
                        return True
        return False

    # -- what it becomes there -------------------------------------------------------------------------------------
    def _join(self, c: Cascade, s: Stage, element: tuple[Expr, ...], env: Mapping[Var, Term]) -> Cascade:
        canonical = tuple(substitute(a, env) for a in element)
        place = tuple(_plain(env[v]) for v in s.axes)
        assert all(v is not None for v in place)
        extra = tuple(v for v in place if v not in c.rows)
        same: dict[Expr, Expr] = {}
        known: dict[Expr, Component] = {}
        for x in c.components:  # a result computed twice has one name
            first = next(y for y in c.components if y.value is x.value)
            same[x.read()] = first.read()
            known[first.read()] = first
        canonical = tuple(substitute_values(a, same) for a in canonical)
        earlier = tuple(r for a in canonical for r in leaves(a) if r in known)
        sides = Sides(c.axes, earlier, self.approximate)
        builder = Builder(c, sides, extra, s.body, s.tensors[0])  # type: ignore[arg-type]
        for t in s.tensors:
            builder.add(t, s.name, place, canonical, tuple(dict.fromkeys(earlier)))  # type: ignore[arg-type]
        return builder.cascade


def _same_box(a: tuple[Var, ...], b: tuple[Var, ...]) -> bool:
    return len(a) == len(b) and all(x.extent == y.extent for x, y in zip(a, b))


def _plain(i: Term | Expr) -> Var | None:
    """The variable that an index is."""
    if isinstance(i, Term) and i.const == 0 and len(i.parts) == 1:
        (mono, k), = i.parts.items()
        if k == 1 and len(mono) == 1 and isinstance(mono[0], Var):
            return mono[0]
    return None


def _unify(i: Term | Expr, j: Term | Expr, env: dict[Var, Term]) -> bool:
    """Whether index ``i`` becomes ``j`` when its plain variable is renamed; records the renaming."""
    if not isinstance(i, Term) or not isinstance(j, Term):
        return i is j
    v, w = _plain(i), _plain(j)
    if v is not None and w is not None and v.extent == w.extent:
        return env.setdefault(v, j) == j
    return i.subs(env) == j or _solved(i, j, env)


def _solved(i: Term, j: Term, env: dict[Var, Term]) -> bool:
    """Whether the variables of ``i`` that have no name yet can be renamed so that it becomes ``j``: the ``4*h + r`` of shared heads."""
    found: dict[Var, Term] = {}
    for v in sorted(i.vars - set(env), key=lambda v: v.uid):
        k = i.coef(v)
        w = next((w for w in sorted(j.vars, key=lambda v: v.uid)
                  if k and w.extent == v.extent and w.kind == v.kind and j.coef(w) == k and as_term(w) not in found.values()), None)
        if w is None:
            return False
        found[v] = as_term(w)
    if not found or i.subs({**env, **found}) != j:
        return False
    env.update(found)
    return True
