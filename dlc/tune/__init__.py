"""Searching for fast schedules: measuring, the limits of the machine, and the search itself."""
