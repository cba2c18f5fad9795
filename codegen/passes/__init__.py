"""Passes on the tile program: one file, one function with a verb for a name; valid in, valid out."""
