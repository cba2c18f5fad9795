"""The benchmark of launch costs: every call is measured, with its spread."""

from benchmarks.launch import calls, measure


def test_every_call_is_measured():
    named = calls()
    found = measure(named, 3)
    assert [c.name for c in found] == list(named) and all(0 < c.least <= c.p25 <= c.median <= c.p75 for c in found)
