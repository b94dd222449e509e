"""From bytes to text, without ever taking binary data for text.

In:  the bytes of a text document, the language of the corpus, the encoding that the document declares.
Out: its text, newlines as \\n, byte order mark and NULs gone.
Wrong: bytes that no encoding explains: `Refused("not_text")`.
"""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from memorag_pipeline.corpus.refusal import Refused

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b"))
_SAMPLE = 1 << 18
_MOST_CONTROLS = 0.02  # of all bytes
# What old documents are written in; detection over all encodings that exist takes short texts for mainframe data.
_CANDIDATES = ["gb18030", "big5", "cp932", "euc_jp", "cp949", "koi8_r", "cp866", "cp850", "mac_roman"]
_CANDIDATES += [f"cp{number}" for number in range(1250, 1259)]
# Detection often finds several encodings that fit equally well; these are tried first if they are among them.
_PREFERRED = {"zh": ("gb18030", "big5", "cp1252"), "en": ("cp1252",)}


def decode(data: bytes, language: str = "en", declared: str | None = None) -> str:
    """The text of `data`, tried by its byte order mark, as UTF-16, as UTF-8, as `declared`, then by detection."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    text = _try(data, encoding) if encoding else None
    if text is None:
        text = _without_mark(data, language, declared)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # NULs are padding or damage; what holds many of them was refused before.
    return text.replace("\0", "").lstrip("\ufeff")


def _without_mark(data: bytes, language: str, declared: str | None) -> str:
    sixteen = _utf16_order(data)
    if sixteen and (text := _try(data, sixteen)) is not None and not _has_controls(text[:_SAMPLE].encode("utf-8")):
        return text
    if _has_controls(data):
        raise Refused("not_text", "holds control bytes, as binary data does")
    if (text := _try(data, "utf-8")) is not None:
        return text
    if b"\0" in data:
        raise Refused("not_text", "holds NUL bytes and is not UTF-8, as binary data does")
    if declared and (text := _try(data, declared)) is not None:
        return text
    return _mostly_utf8(data) or _detected(data, language)


def _utf16_order(data: bytes) -> str | None:
    """The byte order of UTF-16 without a mark: ASCII then has a NUL in every second byte."""
    sample = data[:_SAMPLE]
    half = len(sample) // 2
    if half == 0 or len(data) % 2:
        return None
    even, odd = sample[0::2].count(0) / half, sample[1::2].count(0) / half
    if even > 0.4 and odd < 0.05:
        return "utf-16-be"
    if odd > 0.4 and even < 0.05:
        return "utf-16-le"
    return None


def _has_controls(data: bytes) -> bool:
    controls = len(data) - len(data.translate(None, _CONTROLS))
    return controls > _MOST_CONTROLS * len(data)


def _mostly_utf8(data: bytes) -> str | None:
    """UTF-8 with some damage: far more whole characters beyond ASCII than broken ones."""
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
    return text if whole > 10 * broken else None


def _detected(data: bytes, language: str) -> str:
    names = [match.encoding for match in from_bytes(_whole_lines(data), cp_isolation=_CANDIDATES)]
    for name in [*(name for name in _PREFERRED[language] if name in names), *names]:
        if (text := _try(data, name)) is not None:
            return text
    raise Refused("not_text", "is in no known text encoding")


def _whole_lines(data: bytes) -> bytes:
    """A sample that does not end within a character of several bytes, if there is a line's end to stop at."""
    if len(data) <= _SAMPLE:
        return data
    return data[: data.rfind(b"\n", 0, _SAMPLE) + 1] or data[:_SAMPLE]


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None
