"""Every error that dlc raises on purpose: ``except dlc.errors.DlcError`` catches them all."""

from dsl.errors import (
    ArgumentError,
    BoundsError,
    DerivativeError,
    DlcError,
    DtypeError,
    IndexingError,
    InternalError,
    LaunchError,
    RaceError,
    RecordError,
    ScheduleError,
    ShapeError,
    TargetError,
    TextError,
    UserError,
)

__all__ = ["ArgumentError", "BoundsError", "DerivativeError", "DlcError", "DtypeError", "IndexingError", "InternalError", "LaunchError",
           "RaceError", "RecordError", "ScheduleError", "ShapeError", "TargetError", "TextError", "UserError"]
