"""Instructions and mathematical functions as data."""
