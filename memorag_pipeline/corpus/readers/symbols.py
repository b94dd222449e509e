"""Characters of the fonts Symbol, Wingdings and Webdings in Unicode.

In:  the name of a font and a character code in it.
Out: the Unicode character; U+FFFD if there is none.

The tables are from mammoth, a converter of Word documents; nothing else of it is used.
"""

from __future__ import annotations

import re

_PRIVATE = range(0xF000, 0xF100)  # where these fonts repeat their characters
_PRIVATE_LETTER = re.compile("[\uf000-\uf0ff]")


def symbol(font: str | None, code: int) -> str:
    """The Unicode character for a code of the font."""
    from mammoth.docx.dingbats import dingbats

    found = dingbats.get((font or "Symbol", code - 0xF000 if code in _PRIVATE else code))
    if found is None and code not in _PRIVATE and not is_symbol_font(font) and 31 < code < 0xD800:
        return chr(code)  # a letter of an ordinary font
    return "\ufffd" if found is None else chr(found)


def is_symbol_font(font: str | None) -> bool:
    """Whether letters in that font are displayed as other characters."""
    return font is not None and font.startswith(("Symbol", "Wingdings", "Webdings"))


def seen(text: str, font: str | None) -> str:
    """A text as displayed in the font."""
    if is_symbol_font(font):
        return "".join(letter if letter.isspace() else _known(font, letter) for letter in text)
    return _PRIVATE_LETTER.sub(lambda letter: symbol("Symbol", ord(letter[0])), text)


def _known(font: str | None, letter: str) -> str:
    code = ord(letter)
    # A character outside of the font is displayed in another font.
    return symbol(font, code) if code < 0x100 or code in _PRIVATE else letter
