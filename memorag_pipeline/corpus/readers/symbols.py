"""Signs of the fonts Symbol, Wingdings and Webdings as letters of Unicode.

In:  the name of a font and the code of a sign in it.
Out: the letter; U+FFFD for a sign that has none.

The tables are those of mammoth, a converter of Word documents; nothing else of it is used.
"""

from __future__ import annotations

import re

_PRIVATE = range(0xF000, 0xF100)  # where these fonts have their signs once more
_PRIVATE_LETTER = re.compile("[\uf000-\uf0ff]")


def symbol(font: str | None, code: int) -> str:
    """The letter for a sign of the font."""
    from mammoth.docx.dingbats import dingbats

    found = dingbats.get((font or "Symbol", code - 0xF000 if code in _PRIVATE else code))
    if found is None and code not in _PRIVATE and not is_symbol_font(font) and 31 < code < 0xD800:
        return chr(code)  # a letter of an ordinary font
    return "\ufffd" if found is None else chr(found)


def is_symbol_font(font: str | None) -> bool:
    """Whether letters written in that font are seen as other signs."""
    return font is not None and font.startswith(("Symbol", "Wingdings", "Webdings"))


def seen(text: str, font: str | None) -> str:
    """A text as the font shows it."""
    if is_symbol_font(font):
        return "".join(letter if letter.isspace() else _known(font, letter) for letter in text)
    return _PRIVATE_LETTER.sub(lambda letter: symbol("Symbol", ord(letter[0])), text)


def _known(font: str | None, letter: str) -> str:
    code = ord(letter)
    # A letter beyond the font's own signs is shown in another font.
    return symbol(font, code) if code < 0x100 or code in _PRIVATE else letter
