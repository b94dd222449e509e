"""Number formats of spreadsheets: what is shown is what is read."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.readers.number_format import formatter, text_shown

DAY = 45761  # 14 April 2025, a Monday
ACCOUNTS = '_($* #,##0.00_);_($* (#,##0.00);_($* "-"??_);_(@_)'


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        ("yyyy\\-mm\\-dd", DAY, "2025-04-14"),
        ("00000", 1234, "01234"),
        ("[$-407]d/\\ mmmm\\ yyyy;@", DAY, "2025-04-14"),
        ("[$-409]d\\ mmmm\\ yyyy;@", DAY, "14 April 2025"),
        ("[h]:mm", 1.5, "36:00"),
        ("[h]:mm:ss", 1.0416666667, "25:00:00"),
        ("mm:ss", 0.0034722222, "05:00"),
        ("h:mm:ss.00", 0.500001, "12:00:00.09"),
        ("#,##0.00", 1234567.891, "1,234,567.89"),
        ("#,##0", 0, "0"),
        ("#,##0.00_);(#,##0.00)", -5, "(5.00)"),
        (ACCOUNTS, 1234.5, "$ 1,234.50"),
        (ACCOUNTS, 0, "$ -"),
        (ACCOUNTS, -3, "$ (3.00)"),
        ("#,##0.00\\ [$€-407]", 1234.5, "1,234.50 €"),
        ("[$USD] #,##0", 99, "USD 99"),
        ('"Nr. "0000', 12, "Nr. 0012"),
        ("000-00-0000", 123456789, "123-45-6789"),
        ("(###) ###-####", 5551234567, "(555) 123-4567"),
        ("# ##0", 1234567, "1234 567"),
        ("0.0##", 1.5, "1.5"),
        ("0.###", 2, "2"),
        ("0.00E+00", 12345, "1.23E+04"),
        ("# ?/?", 3.5, "3 1/2"),
        ("# ?/8", 3.5, "3 4/8"),
        ("# ??/??", 0.333333333, "1/3"),
        ("0,", 1500, "2"),
        ('0.0,,"M"', 1500000, "1.5M"),
        ("0;-0;;@", 0, ""),
        (";;;", 5, ""),
        ("[Red][<0]-0.0;[Blue]0.0", -1.25, "-1.3"),
        ('[>=100]"high";"low"', 5, "low"),
        ('0" kg"', 5, "5 kg"),
        ("0%", 0.005, "1%"),
        ("mmm-yy", DAY, "Apr-25"),
        ("dddd", DAY, "Monday"),
        ("dd/mm/yyyy hh:mm", DAY + 0.25, "14/04/2025 06:00"),
        ('yyyy"年"m"月"d"日"', DAY, "2025年4月14日"),
        ("[$-F800]dddd\\,\\ mmmm\\ dd\\,\\ yyyy", DAY, "2025-04-14"),
        ("[$-F400]h:mm:ss\\ AM/PM", 0.5, "12:00"),
        ("d.m.yy", DAY, "14.4.25"),
        ("General", 0.30000000000000004, "0.3"),
        ("General", 123456789012345, "123456789012345"),
        ("General", 1e-7, "0.0000001"),
        ("General", 1.5e25, "1.5E+25"),
        ("0.00", -0.001, "0.00"),
        ("#", 0, ""),
        ("0.00;[Red]-0.00", -2, "-2.00"),
        ("yyyy-mm-dd", 0.5, "12:00"),
        ("yyyy-mm-dd", -5, "-5"),
        ("yyyy-mm-dd", 60, "1900-02-28"),
        ("yyyy-mm-dd", 1, "1900-01-01"),
        ("h:mm", 0.99999, "23:59"),
        ('General" m"', 5, "5 m"),
        ("##0.0E+0", 12345, "12.3E+3"),
        ('0.0"°C"', 21.5, "21.5°C"),
        ('#,##0.00 "kr"', -12.5, "-12.50 kr"),
        ("m/d/yyyy", DAY, "4/14/2025"),
        ("0.0\\ %", 0.255, "25.5 %"),
        ('#\\ ##0\\ "Kč"', 12500, "12 500 Kč"),
        ('#,##0;-#,##0;"none"', 0, "none"),
        ("yyyy-mm-dd hh:mm:ss", DAY + 0.999999, "2025-04-15 00:00:00"),
        ('[$-411]ggge"年"m"月"d"日"', DAY, "2025-04-14"),
        ("0000000000000", 590123412345, "0590123412345"),
        ("00.00", 3.14159, "03.14"),
        ("0,000", 1234567, "1,234,567"),
        ("0,000", 12, "0,012"),
    ],
)
def test_codes(code: str, value: float, expected: str) -> None:
    assert formatter(164, code, False)(value) == expected


@pytest.mark.parametrize(
    ("built_in", "value", "expected"),
    [
        (9, 0.25, "25%"),
        (10, 0.2555, "25.55%"),
        (14, DAY, "2025-04-14"),
        (22, DAY + 0.5, "2025-04-14 12:00"),
        (31, DAY, "2025-04-14"),
        (32, 0.5, "12:00"),
        (20, 0.5, "12:00"),
        (18, 0.75, "6:00 PM"),
        (0, 12345, "12345"),
        (36, DAY, "2025-04-14"),
        (57, DAY, "2025-04-14"),
        (44, 1234.5, "1,234.50"),
        (4, 1e300, "1E+300"),
        (46, 1.5, "36:00:00"),
    ],
)
def test_formats_that_are_built_in(built_in: int, value: float, expected: str) -> None:
    assert formatter(built_in, None, False)(value) == expected


def test_the_calendar_from_1904() -> None:
    assert formatter(14, None, True)(44299) == "2025-04-14"


def test_texts_with_a_format() -> None:
    for code, expected in ((";;;", ""), ('"Name: "@', "Name: x"), ('0;0;0;"T "@', "T x"), ("_(@_)", "x")):
        shown = text_shown(code)
        assert (shown("x") if shown else "x") == expected
    assert text_shown("0.00") is None
