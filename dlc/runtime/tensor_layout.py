"""Where torch keeps what a call must know of a tensor, found by looking at tensors: nothing here is taken on trust.

Python's object of a tensor holds a pointer to torch's own, which holds shape, strides, dtype and dispatch keys (what kind of a tensor it
is: dense, on a CPU, without a negative bit, wrapped by no transform, ...) as words. Each place is found by tensors that differ in just
that respect, and there is no layout unless it is the only one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from dlc.runtime.arguments import TORCH

_LOOKED = 23  # words of a tensor that are looked at


@dataclass(frozen=True)
class Layout:
    """Places are in words from the beginning of torch's object, but for ``pointer``.

    Attributes:
        pointer: where Python's object holds the address of torch's.
        keys: the dispatch keys.
        plain: their values for a dense tensor on a CPU, in use and in inference mode.
        autograd: zero unless autograd ever had to do with the tensor.
        dims: the number of dimensions.
        sizes: the first size.
        strides: the first stride.
        most: dimensions up to which sizes and strides lie there.
        dtype: the word with the dtype.
        mask: its bits.
        codes: their value for each dtype, by our names.
    """

    pointer: int
    keys: int
    plain: tuple[int, int]
    autograd: int
    dims: int
    sizes: int
    strides: int
    most: int
    dtype: int
    mask: int
    codes: dict[str, int]


@cache
def layout() -> Layout | None:
    """The layout of this torch; None where it is not found beyond doubt."""
    try:
        return _found()
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None


def _found() -> Layout | None:
    shaped = torch.empty(3, 5, 7)
    with torch.inference_mode():
        frozen = torch.empty(3, 5, 7)
    pointer = _only(_words(id(shaped), torch.Tensor.__basicsize__ // 8), lambda w: w == shaped._cdata)
    keys = [n for n in range(_LOOKED) if all(_words(t._cdata)[n] == _keys(t) for t in _various())]
    untouched = _words(shaped._cdata)
    asked = _words(shaped.requires_grad_()._cdata)
    autograd = [n for n, (a, b) in enumerate(zip(untouched, asked)) if a != b]
    dims, strides = _sequence(untouched, (3, 3, 5, 7)), _sequence(untouched, (35, 7, 1))
    dtype, mask, codes = _dtypes()
    if len(keys) != 1 or len(autograd) != 1 or untouched[autograd[0]] or dims is None or strides is None:
        return None
    return Layout(pointer * 8, keys[0], (_keys(torch.empty(1)), _keys(frozen)), autograd[0], dims, dims + 1, strides, strides - dims - 1,
                  dtype, mask, codes)


def _dtypes() -> tuple[int, int, dict[str, int]]:
    """(the word in which tensors differ that differ in their dtype alone, its bits, their values)."""
    held = [{n: torch.empty(2, 2, dtype=d) for n, d in TORCH.items()} for _ in range(2)]
    first, again = ({n: _words(t._cdata) for n, t in some.items()} for some in held)
    low = 0xFFFF  # a dtype is a number of 16 bits
    places = [(n, shift) for n in range(_LOOKED) for shift in range(0, 64, 16)
              if all(first[d][n] >> shift & low == again[d][n] >> shift & low for d in TORCH)
              and len({w[n] >> shift & low for w in first.values()}) == len(TORCH)]
    if len(places) != 1:
        raise ValueError(places)
    word, shift = places[0]
    return word, low << shift, {d: w[word] & low << shift for d, w in first.items()}


def _various() -> Sequence[torch.Tensor]:
    """Tensors of different kinds, alike in nothing but where they keep their kind."""
    plain = torch.empty(2, 3)
    return (plain, torch._neg_view(plain), torch.empty(2, 3, device="meta"), torch.empty(4, dtype=torch.complex64).conj(),
            plain.to_sparse(), torch.empty(5, dtype=torch.int64))


def _keys(t: torch.Tensor) -> int:
    return int(torch._C._dispatch_keys(t).raw_repr())


def _words(address: int, count: int = _LOOKED) -> list[int]:
    return list((ctypes.c_uint64 * count).from_address(address))


def _only(words: Sequence[int], holds: Callable[[int], bool]) -> int:
    """The place of the only word for which something holds."""
    (place,) = [n for n, w in enumerate(words) if holds(w)]
    return place


def _sequence(words: Sequence[int], wanted: tuple[int, ...]) -> int | None:
    """The only place from which on some words stand; None where it is not the only one."""
    found = [n for n in range(len(words)) if tuple(words[n:n + len(wanted)]) == wanted]
    return found[0] if len(found) == 1 else None
