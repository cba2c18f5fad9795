"""Tile programs to source text."""
