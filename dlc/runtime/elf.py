"""What an ELF object file needs from elsewhere."""

from __future__ import annotations

import struct

_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
_HEADER = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL_TABLE = 2


def undefined_symbols(code: bytes) -> tuple[str, ...]:
    """The symbols that a 64-bit little-endian ELF object uses and does not define, in order of appearance.

    Raises:
        ValueError: ``code`` is not such an object.
    """
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF object")
    (start,), (size, count) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<HH", code, 58)
    headers = [_HEADER.unpack_from(code, start + n * size) for n in range(count)]
    names = []
    for _, kind, _, _, offset, length, link, *_ in headers:
        if kind == _SYMBOL_TABLE:
            strings = headers[link][4]
            names += [_text(code, strings + s[0]) for s in _SYMBOL.iter_unpack(code[offset:offset + length]) if s[3] == 0 and s[0]]
    return tuple(names)


def _text(code: bytes, at: int) -> str:
    return code[at:code.index(b"\0", at)].decode()
