"""Numbers and dates of spreadsheets as their number formats display them (ECMA-376 part 1, 18.8.30 and 18.8.31).

In:  a format: its id and, unless it is built in, its code, such as `0.0%`, `yyyy-mm-dd` or `[h]:mm`.
Out: a function from a number to its text.

Formats that depend on the viewer's settings (built-in dates of each language, the long system date, month names in a
language other than English) are written in ISO form; a currency that such a format leaves open is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

Formatter = Callable[[float], str]

_BUILT_IN = {
    1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 5: "#,##0", 6: "#,##0", 7: "#,##0.00", 8: "#,##0.00", 9: "0%",
    10: "0.00%", 11: "0.00E+00", 12: "# ?/?", 13: "# ??/??", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy",
    18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss", 37: "#,##0;(#,##0)", 38: "#,##0;(#,##0)",
    39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;(#,##0.00)", 41: "#,##0", 42: "#,##0", 43: "#,##0.00", 44: "#,##0.00",
    45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@",
}  # fmt: skip
_OF_THE_LANGUAGE = {14, 22, *range(27, 37), *range(50, 59)}  # dates whose form depends on the program's language
_KEPT = 10_000  # numbers per format whose texts are cached
_LAST_DAY = 2_958_465  # 9999-12-31
_TOKEN = re.compile(
    r"""
    "(?P<quoted>[^"]*)"? | \\(?P<escaped>.) | _(?P<space>.) | \*(?P<fill>.)
    | \[(?P<bracket>[^\]]*)\] | (?P<general>general) | (?P<noon>am/pm|a/p|上午/下午)
    | (?P<exponent>e[+-]) | (?P<date>y+|m+|d+|h+|s+|e+|g+|b+|aaa+)
    | (?P<digit>[0\#?]) | (?P<point>\.) | (?P<comma>,) | (?P<percent>%) | (?P<slash>/) | (?P<text>@) | (?P<other>.)
    """,
    re.I | re.X | re.S,
)
_CONDITION = re.compile(r"(<=|>=|<>|<|>|=)\s*(-?[\d.]+)")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def formatter(format_id: int, code: str | None, from_1904: bool) -> Formatter:
    """How numbers of a format are displayed. `code` overrides built-in ones; `from_1904` is the workbook's calendar."""
    if format_id in _OF_THE_LANGUAGE:
        return lambda value: _iso(value, from_1904)
    code = _BUILT_IN.get(format_id) if code is None else code
    if code is None or code.strip().lower() in {"", "general", "@", "standard"}:
        return general
    return _Format(code, from_1904)


def general(value: float) -> str:
    """A number without a format: all of its digits, without the noise of binary fractions."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    digits = Decimal(f"{value:.15g}")
    return format(digits, "f") if -10 < digits.adjusted() < 21 else f"{value:.15g}".upper()


def text_shown(code: str | None) -> Callable[[str], str] | None:
    """How texts of a format are displayed: by a fourth section, or by `@` among other words. None if unchanged."""
    if code is None or code == "@":
        return None
    sections = [_Section(section) for section in _sections(code)]
    chosen = sections[3] if len(sections) > 3 else next((each for each in sections if each.has("text")), None)
    if chosen is None or (chosen.has("text") and len(chosen.tokens) == 1) or chosen.has("general"):
        return None
    tokens = chosen.tokens
    return lambda words: _clean("".join(words if kind == "text" else _literal(kind, own) for kind, own in tokens))


@dataclass(frozen=True)
class _Moment:
    """A serial number as a date and a time; whole days are None if a value is only a time."""

    day: date | None
    seconds: float

    @staticmethod
    def of(value: float, from_1904: bool, digits: int) -> _Moment | None:
        """None if it is not a date. The time is rounded to `digits` of a second."""
        if not 0 <= value <= _LAST_DAY:
            return None
        days, part = divmod(value, 1)
        seconds = round(part * 86_400, digits)
        if seconds >= 86_400:
            days, seconds = days + 1, 0.0
        if from_1904:
            return _Moment(date(1904, 1, 1) + timedelta(days=days), seconds)
        # The calendar has a 29 February 1900, which never existed.
        start = date(1899, 12, 31) if days < 60 else date(1899, 12, 30)
        return _Moment(start + timedelta(days=days) if days else None, seconds)

    def clock(self) -> datetime:
        """The time of the day, on an arbitrary day."""
        return datetime(2000, 1, 1) + timedelta(seconds=self.seconds)


def _iso(value: float, from_1904: bool, wants_day: bool = True, wants_time: bool = True) -> str:
    moment = _Moment.of(value, from_1904, 0)
    if moment is None:
        return general(value)
    clock = moment.clock()
    time = clock.strftime("%H:%M:%S" if clock.second else "%H:%M")
    shows_time = wants_time and (moment.day is None or moment.seconds > 0 or not wants_day)
    day = moment.day.isoformat() if moment.day and wants_day else ""
    return " ".join(filter(None, (day, time if shows_time else "")))


class _Section:
    """One section of a format: its tokens as (kind, text), and the condition under which it applies."""

    def __init__(self, code: str) -> None:
        self.condition: tuple[str, float] | None = None
        self.tokens: list[tuple[str, str]] = []
        self.is_of_the_system = False
        self.is_english = True
        for match in _TOKEN.finditer(code):
            kind = match.lastgroup or "other"
            text = match[kind]
            if kind == "bracket":
                self._bracket(text)
            else:
                self.tokens.append((kind, text))
        self._tell_minutes()
        self._kinds = frozenset(kind for kind, _ in self.tokens)
        # Whether it shows a date or time, which parts of it, by their first letters, and whether any by name.
        self.is_date = not self._kinds.isdisjoint({"date", "elapsed", "noon"})
        parts = [text.lower() for kind, text in self.tokens if kind in {"date", "elapsed"}]
        self.parts = frozenset(part[0] for part in parts)
        self.is_named = any(part.startswith(("mmm", "ddd", "aaa", "g")) for part in parts)
        # Position of the point; after it, zeros are decimals, or fractions of a second.
        self.point = next((at for at, (kind, _) in enumerate(self.tokens) if kind == "point"), len(self.tokens))
        self.decimals = sum(kind == "digit" for kind, _ in self.tokens[self.point :])

    def has(self, kind: str) -> bool:
        """Whether there is a token of a kind."""
        return kind in self._kinds

    def _bracket(self, text: str) -> None:
        lower = text.lower()
        if re.fullmatch(r"h+|m+|s+", lower):
            self.tokens.append(("elapsed", lower))
        elif found := _CONDITION.fullmatch(text.strip()):
            self.condition = found[1], float(found[2])
        elif text.startswith("$"):
            sign, _, language = text[1:].partition("-")
            if sign:
                self.tokens.append(("quoted", sign))
            if re.fullmatch(r"[0-9a-f]+", language, re.I):
                code = int(language, 16)
                self.is_of_the_system = code in {0xF800, 0xF400}
                self.is_english = code & 0x3FF in {0, 9}
            elif language:
                self.is_of_the_system = language.lower().startswith("x-sys")
                self.is_english = language.lower().startswith(("en", "x-sys"))

    def _tell_minutes(self) -> None:
        """`m` is a minute after hours and before seconds, else a month."""
        dates = [at for at, (kind, _) in enumerate(self.tokens) if kind in {"date", "elapsed"}]
        for place, at in enumerate(dates):
            kind, text = self.tokens[at]
            if kind != "date" or text[0].lower() != "m" or len(text) > 2:
                continue
            before = self.tokens[dates[place - 1]][1][0].lower() if place else ""
            after = self.tokens[dates[place + 1]][1][0].lower() if place + 1 < len(dates) else ""
            if before == "h" or after == "s":
                self.tokens[at] = ("date", "n" * len(text))


class _Format:
    """A format with up to three sections for numbers. Recent results are cached: columns repeat their values."""

    def __init__(self, code: str, from_1904: bool) -> None:
        self._sections = [_Section(section) for section in _sections(code)][:3]
        self._from_1904 = from_1904
        self._known: dict[float, str] = {}

    def __call__(self, value: float) -> str:
        known = self._known.get(value)
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[value] = self._show(value)
        return known

    def _show(self, value: float) -> str:
        section, shown = self._chosen(value)
        if section is None:
            return general(value)
        try:
            return _date(section, value, self._from_1904) if section.is_date else _clean(_number(section, shown))
        except ArithmeticError:  # more digits than a cell's number can have
            return general(value)

    def _chosen(self, value: float) -> tuple[_Section | None, float]:
        """The section for a number, and the number to display: a section for negative numbers leaves out the sign."""
        sections = self._sections
        if any(section.condition for section in sections):
            for at, section in enumerate(sections):
                if section.condition is None or _holds(value, *section.condition):
                    return section, abs(value) if at and value < 0 else value
            return None, value
        if value < 0 and len(sections) > 1:
            return sections[1], -value
        return (sections[2] if value == 0 and len(sections) > 2 else sections[0]), value


def _sections(code: str) -> list[str]:
    found, start = [], 0
    for match in _TOKEN.finditer(code):
        if match[0] == ";" and match.lastgroup == "other":
            found.append(code[start : match.start()])
            start = match.end()
    return [*found, code[start:]]


def _holds(value: float, sign: str, limit: float) -> bool:
    return {
        "<": value < limit,
        ">": value > limit,
        "=": value == limit,
        "<=": value <= limit,
        ">=": value >= limit,
        "<>": value != limit,
    }[sign]


def _literal(kind: str, text: str) -> str:
    if kind in {"space", "fill"}:
        return " "
    return {"percent": "%", "point": ".", "comma": ",", "slash": "/"}.get(kind, text) if kind != "text" else ""


def _clean(text: str) -> str:
    return " ".join(text.split())


def _date(section: _Section, value: float, from_1904: bool) -> str:
    kinds, digits = section.parts, section.decimals
    if section.is_of_the_system or (section.is_named and not section.is_english) or "g" in kinds:
        return _iso(value, from_1904, bool(kinds & set("ymdebag")), bool(kinds & set("hsn")))
    elapsed = section.has("elapsed")
    if elapsed and value < 0:
        return "-" + _date(section, -value, from_1904)
    moment = _Moment.of(value, from_1904, digits if "s" in kinds else 3)
    if moment is None:
        return general(value)
    clock, is_half = moment.clock(), section.has("noon")
    whole = int(value) * 86_400 + moment.seconds
    text = ""
    for at, (kind, own) in enumerate(section.tokens):
        if kind == "date":
            text += _date_part(own.lower(), moment, clock, is_half)
        elif kind == "elapsed":
            text += f"{int(whole // {'h': 3600, 'm': 60, 's': 1}[own[0]]):0{len(own)}}"
        elif kind == "noon":
            text += ("PM" if clock.hour >= 12 else "AM")[: 1 if own.lower() == "a/p" else 2]
        elif digits and at == section.point:
            text += f"{moment.seconds % 1:.{digits}f}"[1:]
        elif kind != "digit":
            text += _literal(kind, own)
    shown = _clean(text)
    return shown if moment.day is not None or not kinds & set("yde") else _iso(value, from_1904)


def _date_part(part: str, moment: _Moment, clock: datetime, is_half: bool) -> str:
    day, size = moment.day or date(1900, 1, 1), len(part)
    match part[0]:
        case "y" | "e":
            return f"{day.year:04}" if size > 2 or part[0] == "e" else f"{day.year % 100:02}"
        case "b":
            return str(day.year + 543) if size > 2 else f"{(day.year + 543) % 100:02}"
        case "m":
            name = _MONTHS[day.month - 1]
            return {3: name[:3], 4: name, 5: name[0]}.get(size, f"{day.month:0{min(size, 2)}}")
        case "d" | "a":
            name = _DAYS[day.weekday()]
            return {3: name[:3], 4: name}.get(size, f"{day.day:0{min(size, 2)}}")
        case "h":
            return f"{(clock.hour % 12 or 12) if is_half else clock.hour:0{min(size, 2)}}"
        case "n":
            return f"{clock.minute:0{size}}"
        case _:
            return f"{int(moment.seconds) % 60:0{min(size, 2)}}"


def _number(section: _Section, value: float) -> str:
    if section.has("general"):
        shown = general(value)
        return "".join(shown if kind == "general" else _literal(kind, own) for kind, own in section.tokens)
    places = [at for at, (kind, _) in enumerate(section.tokens) if kind == "digit"]
    if not places:
        sign = "-" if value < 0 else ""
        return sign + "".join(_literal(kind, own) for kind, own in section.tokens if kind != "text")
    tokens = section.tokens
    amount = Decimal(f"{value:.15g}") * 100 ** sum(kind == "percent" for kind, _ in tokens)
    first, last = places[0], places[-1] + 1
    if "slash" in {kind for kind, _ in tokens[first : last + 1]}:  # the denominator may be given, as in ?/8
        while last < len(tokens) and (tokens[last][0] == "slash" or tokens[last][1].isdigit()):
            last += 1
    behind = last
    while behind < len(tokens) and tokens[behind][0] == "comma":
        amount /= 1000
        behind += 1
    before = "".join(_literal(kind, own) for kind, own in tokens[:first])
    after = "".join(_literal(kind, own) for kind, own in tokens[behind:])
    inner = tokens[first:last]
    sign = "-" if amount < 0 else ""
    amount = abs(amount)
    if any(kind == "slash" for kind, _ in inner):
        shown = _fraction(inner, amount)
    elif any(kind == "exponent" for kind, _ in inner):
        shown = _exponential(inner, amount)
    else:
        shown = _decimal(inner, amount)
    if not re.search("[1-9]", shown) or before.lstrip().startswith(("-", "(")):
        sign = ""
    return sign + before + shown + after


def _decimal(tokens: list[tuple[str, str]], amount: Decimal) -> str:
    point = next((at for at, (kind, _) in enumerate(tokens) if kind == "point"), len(tokens))
    front, back = tokens[:point], tokens[point:]
    decimals = [own for kind, own in back if kind == "digit"]
    rounded = amount.quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP)
    whole, _, part = format(rounded, "f").partition(".")
    least = sum(own == "0" for kind, own in front if kind == "digit")
    digits = whole.lstrip("0").rjust(least, "0")
    grouped = any(kind == "comma" for kind, _ in front)
    text = _laid_out([token for token in front if token[0] != "comma"], digits, grouped)
    kept = len(decimals)
    while kept and decimals[kept - 1] != "0" and part[kept - 1] == "0":
        kept -= 1
    shown, at = "", 0
    for kind, own in back:
        if kind == "digit":
            shown += part[at] if at < kept else ""
            at += 1
        elif kind != "point":
            shown += _literal(kind, own)
        elif kept:
            shown += "."
    return text + shown


def _laid_out(tokens: list[tuple[str, str]], digits: str, grouped: bool) -> str:
    """Digits filled into placeholders from the right; extra digits go before the first one."""
    if grouped or all(kind == "digit" for kind, _ in tokens):
        literal = "".join(_literal(kind, own) for kind, own in tokens if kind != "digit")
        return (re.sub(r"(?<=\d)(?=(?:\d{3})+$)", ",", digits) if grouped else digits) + literal
    left, text = digits, ""
    places = sum(kind == "digit" for kind, _ in tokens)
    for kind, own in reversed(tokens):
        if kind != "digit":
            text = _literal(kind, own) + text if left or places else text
            continue
        places -= 1
        taken = left if not places else left[-1:]
        left = left[: len(left) - len(taken)]
        text = taken + text
    return text


def _exponential(tokens: list[tuple[str, str]], amount: Decimal) -> str:
    at = next(at for at, (kind, _) in enumerate(tokens) if kind == "exponent")
    front = sum(kind == "digit" for kind, _ in tokens[:at][: _point(tokens[:at])])
    power = amount.adjusted() if amount else 0
    step = max(front, 1) if any(own == "#" for _, own in tokens[:at]) else 1
    power = power // step * step if step > 1 else power - (front - 1 if front > 1 else 0)
    mantissa = _decimal(tokens[:at], amount.scaleb(-power))
    size = sum(kind == "digit" for kind, _ in tokens[at:])
    sign = "-" if power < 0 else ("+" if tokens[at][1][1] == "+" else "")
    return f"{mantissa}E{sign}{abs(power):0{size}}"


def _point(tokens: list[tuple[str, str]]) -> int:
    return next((at for at, (kind, _) in enumerate(tokens) if kind == "point"), len(tokens))


def _fraction(tokens: list[tuple[str, str]], amount: Decimal) -> str:
    at = next(at for at, (kind, _) in enumerate(tokens) if kind == "slash")
    fixed = "".join(own for _, own in tokens[at + 1 :] if own.isdigit())
    size = sum(kind == "digit" for kind, _ in tokens[at + 1 :])
    has_whole = any(kind in {"other", "space", "quoted"} and own == " " for kind, own in tokens[:at])
    whole = int(amount) if has_whole else 0
    rest = Fraction(amount) - whole
    if fixed.strip("0"):
        below = int(fixed)
        above = round(rest * below)
    else:
        found = rest.limit_denominator(10 ** max(size, 1) - 1)
        above, below = found.numerator, found.denominator
    if has_whole and above == below:
        whole, above = whole + 1, 0
    parts = [str(whole)] if whole or not above else []
    return " ".join([*parts, f"{above}/{below}"] if above else parts)
