"""Names for what derivation makes, so that printed programs read without ambiguity."""

from __future__ import annotations


def unique(name: str, taken: set[str]) -> str:
    """``name``, numbered when it is taken; the result is added to ``taken``."""
    n, out = 1, name
    while out in taken:
        out, n = f"{name}_{n}", n + 1
    taken.add(out)
    return out
