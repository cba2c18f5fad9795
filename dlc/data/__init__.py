"""Data sets and batches."""

from dlc.data.digits import Digits, load_digits
from dlc.data.loader import Loader

__all__ = ["Digits", "Loader", "load_digits"]
