"""What a text looks like to a reader that is careless about characters: for finding marks, never for quoting.

In:  a text.
Out: `Seen`: its characters in plain form, and where in the text each of them stands.

The rule: compatibility forms (full-width, mathematical, circled) become their plain letters; case and accents are
removed; letters of other scripts that look like Latin ones become these; invisible characters (zero-width, soft
hyphens, variation selectors, direction marks, control characters, fillers) are dropped. What is found in the plain form
is changed at the same place in the text itself, and the rest of the text stays unchanged.
"""

# ruff: noqa: RUF001 (look-alikes are what it is about)

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

# Letters of other scripts in lower case by the Latin letter that they look like: those that the names of fences and the
# common marks of chat templates are made of. After Unicode's list of confusable characters, without rare scripts.
_LETTERS = {
    "a": "аαɑᴀ⍺ꭺᎪꓮᗅⲁ",
    "b": "ƅьʙᏼᏏꓐƀɓвβⲃ",
    "c": "сϲᴄⲥꮯᏟꓚƈ",
    "d": "ԁɗđᴅᎠꭰᑯꓒɖƌδðժ",
    "e": "еεєҽ℮ɛⲉᴇꭼᎬꓰⴹəǝɇҿ",
    "f": "ƒꞙꬵϝքғꓝᖴ",
    "g": "ɡցƍᶃɢꮐᏀᏳᎶԍɠǥꓖ",
    "h": "һհɦʜᏂꮋᎻꓧнⲏħ",
    "i": "іιɩıɪꭵᎥɨⲓ",
    "k": "кκᴋⲕꮶᏦꓗƙ",
    "l": "ӏιւʟꮮᏞꓡłɫ",
    "m": "мᴍꓟᎷꮇⲙɱμ",
    "n": "ոռɴꓠⲛηƞɲ",
    "o": "оοօᴏσⲟꓳဝøɵ",
    "p": "рρ⍴ⲣᴘꮲᏢƿᑭꓑþ",
    "q": "ԛգզɋ",
    "r": "гɼɾɽʀᴦⲅꭇꭈꮁᎡᏒꓣɍꮢ",
    "s": "ѕꜱƽʂꓢᏚꮪտʃ",
    "t": "тτᴛꓔŧƭʈꭲᎢⲧҭ",
    "u": "սυʋᴜꞟꭎꭒꓴʉ",
    "v": "νѵᴠⱱꮩᏙꓦ",
    "w": "ԝաɯᴡꮃᎳꓪѡ",
    "x": "хχⲭꓫ",
    "y": "уγүყʏꓬɣⲩ",
    "z": "ᴢꮓᏃꓜʐƶⲍ",
    "<": "\u2039\u276e\u3008\u2329\u27e8\u27ea\u300a\u00ab\u02c2\u1438\u226a\u227a\u22d6\u276c\u2770\u2991\u29fc",
    ">": "\u203a\u276f\u3009\u232a\u27e9\u27eb\u300b\u00bb\u02c3\u1433\u226b\u227b\u22d7\u276d\u2771\u2992\u29fd",
    "|": "\u01c0\u2223\u23d0\u2758\u2759\u275a\u2502\u2503\u05c0\u2d4f\ua4f2",
    "_": "\u2581\u02cd\u203f",
    "/": "\u2044\u2215\u29f8\u2571\u27cb\u1735",
}
_LATIN = {look_alike: letter for letter, found in _LETTERS.items() for look_alike in found}
_UNSEEN = frozenset(("Cf", "Cc", "Cn", "Co", "Cs", "Mn", "Me"))
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # letters and a symbol by category, and blank


class Seen(NamedTuple):
    """A text in plain form; `places` are the places of its characters in the text, ascending."""

    plain: str
    places: list[int]


def seen(text: str) -> Seen:
    """The plain form of a text."""
    plain: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for shown in _shown(character):
            plain.append(shown)
            places.append(place)
    return Seen("".join(plain), places)


def with_round_brackets(text: str, places: set[int]) -> str:
    """The text with a round opening bracket at these places."""
    return "".join("(" if place in places else character for place, character in enumerate(text)) if places else text


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    """The visible form of a character; empty if it is invisible."""
    if character in "\t\n\r":
        return character
    return "".join(
        _LATIN.get(part, part)
        for each in unicodedata.normalize("NFKD", character)
        for part in each.casefold()
        if part not in _FILLERS and unicodedata.category(part) not in _UNSEEN
    )
