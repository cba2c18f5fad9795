"""Colours for source text: five kinds of word, from Pygments' lexers."""

from __future__ import annotations

import html

from pygments.lexers import get_lexer_by_name
from pygments.token import Token
from pygments.util import ClassNotFound

_ALIASES = {"triton": "python", "tile": "python", "expr": "python", "asm": "gas", "sass": "text"}
# The first match wins.
_CLASSES = (
    (Token.Comment, "c"),
    (Token.Literal.String, "s"),
    (Token.Literal.Number, "n"),
    (Token.Name.Decorator, "d"),
    (Token.Keyword.Type, "t"),
    (Token.Name.Builtin, "t"),
    (Token.Keyword, "k"),
    (Token.Operator.Word, "k"),
    (Token.Name.Function, "n"),
)


def highlight(text: str, lang: str) -> str:
    """The text as HTML, escaped, with spans around the words that carry colour."""
    name = _ALIASES.get(lang, lang)
    try:
        lexer = get_lexer_by_name(name, stripnl=False, ensurenl=False) if name else None
    except ClassNotFound:
        lexer = None
    if lexer is None:
        return html.escape(text)
    return "".join(_span(kind, value) for kind, value in lexer.get_tokens(text))


def _span(kind: object, value: str) -> str:
    escaped = html.escape(value)
    for token, name in _CLASSES:
        if kind in token:
            return f'<span class="{name}">{escaped}</span>'
    return escaped
