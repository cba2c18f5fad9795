"""Schedule primitives: pure functions from a nest to a nest. ``dsl/schedule.py`` gives them their checks, names and trace."""
