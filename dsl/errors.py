"""Every error dlc raises on purpose. A diagnostic is data: title, reason, remedy, place; drawn here only.

Three roots, so that blame is never mixed: :class:`UserError` (the program or its inputs are wrong),
:class:`InternalError` (dlc is wrong), :class:`LaunchError` (the machine refused: memory, disk, device).
"""

from __future__ import annotations

from dsl.loc import UNKNOWN, Loc, here


class DlcError(Exception):
    """Base of the family.

    Args:
        title: one line, what is wrong, naming the user's own symbols.
        reason: why it is wrong; may be several lines.
        remedy: what to do instead.
        loc: the user's source position; found from the call stack when omitted.
    """

    kind = "error"

    def __init__(self, title: str, reason: str = "", remedy: str = "", loc: Loc | None = None) -> None:
        self.title, self.reason, self.remedy = title, reason, remedy
        self.loc = loc if loc is not None else here()
        super().__init__(self.render())

    def render(self) -> str:
        """The whole message, as shown to the user."""
        out = [f"{self.kind}: {self.title}"]
        if self.loc is not UNKNOWN and self.loc.line:
            out.append(f"  --> {self.loc}")
            if self.loc.text.strip():
                out.append(f"   {self.loc.line} | {self.loc.text.strip()}")
        if self.reason:
            out += [f"  because: {line}" if n == 0 else f"           {line}" for n, line in enumerate(self.reason.splitlines())]
        if self.remedy:
            out += [f"  instead: {line}" if n == 0 else f"           {line}" for n, line in enumerate(self.remedy.splitlines())]
        return "\n".join(out)


class UserError(DlcError):
    """The program or its inputs are wrong; the message says how to mend them."""


class ShapeError(UserError):
    """Shapes, ranks or symbolic dims do not agree."""

    kind = "shape error"


class DtypeError(UserError):
    """An operation is not defined for these dtypes, or an argument has another dtype than declared."""

    kind = "dtype error"


class IndexingError(UserError):
    """An index is malformed: not quasi-affine, unbound, or of a non-integer dtype."""

    kind = "index error"


class BoundsError(UserError):
    """A read or write cannot be proved inside its tensor; carries a concrete witness."""

    kind = "bounds error"


class RaceError(UserError):
    """Parallel iterations would write the same element."""

    kind = "race error"


class ScheduleError(UserError):
    """A schedule step is illegal; nothing was changed."""

    kind = "schedule error"


class TextError(UserError):
    """Text does not parse as the IR it claims to be."""

    kind = "syntax error"


class DerivativeError(UserError):
    """A derivative was asked of something that has none."""

    kind = "derivative error"


class TargetError(UserError):
    """An unknown target, or one that cannot run what was asked."""

    kind = "target error"


class ArgumentError(UserError):
    """A call argument of the wrong kind, device, layout or overlap."""

    kind = "argument error"


class InternalError(DlcError):
    """A defect of dlc itself, with what is needed to report it."""

    kind = "internal error"


class LaunchError(DlcError):
    """The machine refused: out of memory, disk full, device lost."""

    kind = "launch error"


class RecordError(DlcError):
    """A cache or tuning record on disk is damaged or cannot be written."""

    kind = "record error"
