"""List and outline numbers.

In:  a number and the name of a format, as in Office Open XML, DrawingML and OpenDocument.
Out: the numeral. An unknown format is decimal.
"""

from __future__ import annotations

from collections.abc import Callable

_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
    (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS |= {"twelve": "twelfth"}
_CHINESE = "〇一二三四五六七八九"
_KOREAN = "가나다라마바사아자차카타파하"
_AIUEO = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"  # fmt: skip
_STEMS, _ZODIAC = "甲乙丙丁戊己庚辛壬癸", "子丑寅卯辰巳午未申酉戌亥"
_RUSSIAN = "абвгдежзиклмнопрстуфхцчшщыэюя"
_HEBREW = "אבגדהוזחטיכלמנסעפצקרשת"
_ARABIC = "أبتثجحخدذرزسشصضطظعغفقكلمنهوي"


def roman(number: int) -> str:
    """In lower case; decimal beyond the range of Roman numerals."""
    if not 0 < number < 5000:
        return str(number)
    text = ""
    for amount, letters in _ROMAN:
        text += letters * (number // amount)
        number %= amount
    return text


def letters(number: int) -> str:
    """a to z, then aa, bb, cc, as in word processors."""
    return chr(97 + (number - 1) % 26) * ((number - 1) // 26 + 1) if 0 < number <= 26 * 30 else str(number)


def numeral(number: int, form: str) -> str:
    """The number in the format of that name; empty for `none`."""
    write = _FORMS.get(form)
    return str(number) if write is None else write(number)


def _one_of(signs: str) -> Callable[[int], str]:
    return lambda number: signs[(number - 1) % len(signs)] if number > 0 else str(number)


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _words(number: int) -> str:
    if not 0 <= number < 1000:
        return str(number)
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10 - 2] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    return f"{_ONES[number // 100]} hundred" + (f" {_words(number % 100)}" if number % 100 else "")


def _ordinal_words(number: int) -> str:
    words = _words(number)
    start = max(words.rfind("-"), words.rfind(" ")) + 1
    last = words[start:]
    return words[:start] + (_ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"))


def _chinese(number: int) -> str:
    """As spoken: 十二, 一百零三."""
    if not 0 < number < 10_000:
        return str(number)
    text, gap = "", False
    for place, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            text += ("零" if gap else "") + _CHINESE[digit] + unit
            gap = False
        elif text:
            gap = True
    return text[1:] if 10 <= number < 20 else text


def _circled(number: int) -> str:
    return chr(0x245F + number) if 0 < number <= 20 else str(number)


_FORMS: dict[str, Callable[[int], str]] = {
    "none": lambda _: "",
    "decimalZero": lambda number: f"{number:02}",
    "lowerRoman": roman,
    "upperRoman": lambda number: roman(number).upper(),
    "lowerLetter": letters,
    "upperLetter": lambda number: letters(number).upper(),
    "ordinal": _ordinal,
    "cardinalText": lambda number: _words(number).capitalize(),
    "ordinalText": lambda number: _ordinal_words(number).capitalize(),
    "decimalEnclosedCircle": _circled,
    "decimalEnclosedCircleChinese": _circled,
    "decimalEnclosedParen": lambda number: f"({number})",
    "decimalEnclosedFullstop": lambda number: f"{number}.",
    "numberInDash": lambda number: f"- {number} -",
    "hex": lambda number: f"{number:X}",
    **dict.fromkeys(
        (
            "chineseCounting",
            "chineseCountingThousand",
            "japaneseCounting",
            "taiwaneseCounting",
            "taiwaneseCountingThousand",
            "koreanCounting",
        ),
        _chinese,
    ),
    **dict.fromkeys(
        ("ideographDigital", "japaneseDigitalTenThousand", "taiwaneseDigital", "koreanDigital2"),
        lambda number: "".join(_CHINESE[int(digit)] for digit in str(max(number, 0))),
    ),
    "ideographTraditional": _one_of(_STEMS),
    "ideographZodiac": _one_of(_ZODIAC),
    "ganada": _one_of(_KOREAN),
    "aiueoFullWidth": _one_of(_AIUEO),
    "aiueo": _one_of(_AIUEO),
    "russianLower": _one_of(_RUSSIAN),
    "russianUpper": _one_of(_RUSSIAN.upper()),
    "hebrew2": _one_of(_HEBREW),
    "arabicAlpha": _one_of(_ARABIC),
    # OpenDocument
    "1": str,
    "i": roman,
    "I": lambda number: roman(number).upper(),
    "a": letters,
    "A": lambda number: letters(number).upper(),
    "一, 二, 三, ...": _chinese,
    "①, ②, ③, ...": _circled,
    "": lambda _: "",
}
