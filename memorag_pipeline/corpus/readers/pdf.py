"""PDF: its text layer as a reader sees the page, by PDFium.

In:  the bytes of a PDF; the maximum number of pages.
Out: its text, page after page, and the title of its metadata if it is one.
Wrong: damaged, encrypted, too many pages: `Refused`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from ctypes import c_double, pointer
from math import pi
from typing import Any

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.broken_words import whole_words
from memorag_pipeline.corpus.readers.page_layout import has_gutters, laid_out
from memorag_pipeline.corpus.readers.page_objects import Box, PageObjects, address
from memorag_pipeline.corpus.readers.page_runs import THIN, Rule, Run, is_apart, on_one_line

_WORD = re.compile(r"[^\s\ufffe]+\ufffe?")  # PDFium writes U+FFFE for a hyphen at the end of a line
_LIGATURES = re.compile("[\ufb00-\ufb06\ufb13-\ufb17]")
_SAMPLES = 24  # characters of a page whose direction is sampled


def read_pdf(data: bytes, max_pages: int) -> tuple[str, str | None]:
    """The text of a PDF and the title in its metadata. Raises Refused."""
    import pypdfium2
    import pypdfium2.raw as api

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (api.FPDF_ERR_PASSWORD, api.FPDF_ERR_SECURITY):
            raise Refused("password", "is encrypted") from None
        raise Refused("unreadable", f"is not a PDF that can be opened: {error}") from None
    with closing(document):
        if len(document) > max_pages:
            raise Refused("too_many_pages", f"has {len(document):,} pages; source.max_pages admits {max_pages:,}")
        pages = [_page_text(page) for page in _pages(document)]
        title = document.get_metadata_value("Title")
    return whole_words(_plain("\n\n".join(pages))), title


def _pages(document: Any) -> Iterator[Any]:
    import pypdfium2.raw as api

    for number in range(len(document)):
        page = document[number]
        if _takes_in_notes(api, page):
            page.close()
            page = document[number]
        with closing(page):
            yield page


def _takes_in_notes(api: Any, page: Any) -> bool:
    """Make form values and displayed notes part of a page that has any; the page has to be opened again."""
    kept = api.FPDFPage_GetAnnotCount(page.raw) and api.FPDFPage_Flatten(page.raw, api.FLAT_NORMALDISPLAY)
    return bool(kept == api.FLATTEN_SUCCESS)


def _page_text(page: Any) -> str:
    with closing(page.get_textpage()) as textpage:
        return _Page(page, textpage).text()


class _Page:
    """One page. Boxes are rotated so that most of its text runs from left to right."""

    def __init__(self, page: Any, textpage: Any) -> None:
        import pypdfium2.raw as api

        self._api, self._textpage = api, textpage
        self._count = textpage.count_chars()
        self._text = textpage.get_text_range(0, self._count) if self._count else ""
        if len(self._text) != self._count:  # PDFium counts a character beyond U+FFFF twice
            codes = [api.FPDFText_GetUnicode(textpage.raw, at) for at in range(self._count)]
            self._text = "".join(map(chr, codes))
        self._text = self._text.replace("\r\n", " \n")
        self._turns = self._direction()
        self._objects = PageObjects(page)
        self._hidden = self._objects.hidden
        self._character_box = pointer(api.FS_RECTF())

    def text(self) -> str:
        """The text of the page."""
        if not self._text.strip():
            return ""
        if not has_gutters(self._rectangles()):
            return self._as_it_comes()
        runs, turned = self._runs()
        found = laid_out(runs, [rule for box in self._objects.paths() for rule in self._edges(box)])
        return self._as_it_comes() if found is None else "\n\n".join([found, *turned])

    def _as_it_comes(self) -> str:
        text = self._text
        if self._hidden:
            text = "".join(text[start:end] for start, end in self._seen())
        return re.sub("[ ]+\n", "\n", text.replace("\ufffe", "-\n")).strip("\n")

    def _seen(self) -> Iterator[tuple[int, int]]:
        """Ranges of visible text, with the blanks after each word."""
        words = list(_WORD.finditer(self._text))
        for number, word in enumerate(words):
            if not self._is_hidden(word.start()):
                yield word.start(), words[number + 1].start() if number + 1 < len(words) else len(self._text)

    def _is_hidden(self, at: int) -> bool:
        return bool(self._hidden) and address(self._api.FPDFText_GetTextObject(self._textpage.raw, at)) in self._hidden

    def _direction(self) -> int:
        """Quarter turns between the direction of most of the text and left to right."""
        step = max(self._count // _SAMPLES, 1)
        turns = Counter(self._turns_of(at) for at in range(0, self._count, step) if not self._text[at].isspace())
        return turns.most_common(1)[0][0] if turns else 0

    def _turns_of(self, at: int) -> int:
        angle: float = self._api.FPDFText_GetCharAngle(self._textpage.raw, at)
        return round(angle / (pi / 2)) % 4

    def _box(self, left: float, bottom: float, right: float, top: float) -> Box:
        """The box, rotated."""
        match self._turns:
            case 1:
                return -top, left, -bottom, right
            case 2:
                return -right, -top, -left, -bottom
            case 3:
                return bottom, -right, top, -left
        return left, bottom, right, top

    def _rectangles(self) -> Iterator[Run]:
        get, page = self._api.FPDFText_GetRect, self._textpage.raw
        left, top, right, bottom = sides = c_double(), c_double(), c_double(), c_double()
        for number in range(self._textpage.count_rects()):
            get(page, number, *sides)
            yield Run("", *self._box(left.value, bottom.value, right.value, top.value))

    def _runs(self) -> tuple[list[Run], list[str]]:
        """The runs of adjacent words; and text in other directions."""
        runs: list[Run] = []
        turned: list[str] = []
        last: Run | None = None
        end = 0
        for match in _WORD.finditer(self._text):
            start = match.start()
            before, end = self._text[end:start], match.end()
            if self._hidden and self._is_hidden(start):
                continue
            word = match[0]
            run = self._run(word.replace("\ufffe", "-"), start, start + len(word.rstrip("\ufffe")) - 1)
            if run is None:
                turned.append(f"{turned.pop()} {word}" if turned and "\n" not in before else word)
            elif last and before and "\n" not in before and self._goes_on(before, start, last, run):
                last.extend(before, run)
            else:
                runs.append(run)
                last = run
        return runs, turned

    def _goes_on(self, blank: str, at: int, last: Run, run: Run) -> bool:
        """Whether the gap before the word, however wide, separates words and not cells."""
        if not on_one_line(last, run):
            return False
        if not is_apart(last, run):
            return True
        # A real blank in one piece of text, such as justified text. PDFium generates blanks where there is only a gap.
        api, page = self._api, self._textpage.raw
        if any(api.FPDFText_IsGenerated(page, each) for each in range(at - len(blank), at)):
            return False
        pieces = {address(api.FPDFText_GetTextObject(page, each)) for each in (at - len(blank) - 1, at)}
        return len(pieces) == 1

    def _run(self, word: str, first: int, last: int) -> Run | None:
        """The word with its box; None if its direction differs from the page's."""
        run = Run(word, *self._character(first))
        if last == first:
            return run
        end = Run("", *self._character(last))
        if abs(run.bottom + run.top - end.bottom - end.top) > abs(run.left + run.right - end.left - end.right):
            return None
        run.extend("", end)
        return run

    def _character(self, at: int) -> Box:
        box = self._character_box
        self._api.FPDFText_GetLooseCharBox(self._textpage.raw, at, box)
        found = box.contents
        if not self._turns:
            return found.left, found.bottom, found.right, found.top
        return self._box(found.left, found.bottom, found.right, found.top)

    def _edges(self, box: Box) -> Iterator[Rule]:
        """The sides of a drawn box; a box as thin as a line is one line."""
        left, bottom, right, top = self._box(*box)
        if right - left > THIN and top - bottom > THIN:
            yield Rule(left, top, right, top)
            yield Rule(left, bottom, right, bottom)
            yield Rule(left, bottom, left, top)
            yield Rule(right, bottom, right, top)
        else:
            yield Rule(left, bottom, right, top)


def _plain(text: str) -> str:
    """The text with ligatures replaced by their letters."""
    return _LIGATURES.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
