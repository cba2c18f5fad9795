"""Derivatives of programs, reverse and forward mode."""
