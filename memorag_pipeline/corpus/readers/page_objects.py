"""The drawn objects of a PDF page: lines and boxes, and which of its text is invisible.

In:  a PDFium page.
Out: the boxes of drawn paths; the addresses of text objects that are hidden.

Text is hidden if it is drawn invisibly, unless over a picture, which is how OCR stores its text in a scan; or if it is
drawn in white or without a colour, unless over a picture or a filled area.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import addressof, c_float, c_uint
from functools import cached_property
from typing import Any

Box = tuple[float, float, float, float]  # left, bottom, right, top

_WHITE = 250  # of 255, the minimum of each colour


class PageObjects:
    """The objects of one page. Objects within forms are ignored."""

    def __init__(self, page: Any) -> None:
        import pypdfium2.raw as api

        self._api = api
        self._colour = c_uint(), c_uint(), c_uint(), c_uint()
        objects = (api.FPDFPage_GetObject(page.raw, number) for number in range(api.FPDFPage_CountObjects(page.raw)))
        self._objects = [(api.FPDFPageObj_GetType(each), each) for each in objects]

    def paths(self) -> list[Box]:
        """The boxes of lines, frames and areas."""
        return [self._bounds(each) for each in self._of(self._api.FPDF_PAGEOBJ_PATH)]

    @cached_property
    def hidden(self) -> frozenset[int]:
        """The addresses of invisible text objects."""
        api = self._api
        texts = list(self._of(api.FPDF_PAGEOBJ_TEXT))
        invisible = [
            each for each in texts if api.FPDFTextObj_GetTextRenderMode(each) == api.FPDF_TEXTRENDERMODE_INVISIBLE
        ]
        white = [each for each in texts if self._is_white(each)]
        if not invisible and not white:
            return frozenset()
        pictures = [self._bounds(each) for each in self._of(api.FPDF_PAGEOBJ_IMAGE, api.FPDF_PAGEOBJ_FORM)]
        areas = [self._bounds(each) for each in self._of(api.FPDF_PAGEOBJ_SHADING)]
        areas += [self._bounds(each) for each in self._of(api.FPDF_PAGEOBJ_PATH) if not self._is_white(each)]
        unseen = [each for each in invisible if not _lies_on(self._bounds(each), pictures)]
        unseen += [each for each in white if not _lies_on(self._bounds(each), pictures + areas)]
        return frozenset(map(address, unseen))

    def _of(self, *kinds: int) -> Iterator[Any]:
        return (each for kind, each in self._objects if kind in kinds)

    def _is_white(self, each: Any) -> bool:
        red, green, blue, alpha = self._colour
        if not self._api.FPDFPageObj_GetFillColor(each, red, green, blue, alpha):
            return False
        return (red.value > _WHITE and green.value > _WHITE and blue.value > _WHITE) or not alpha.value

    def _bounds(self, each: Any) -> Box:
        left, bottom, right, top = c_float(), c_float(), c_float(), c_float()
        self._api.FPDFPageObj_GetBounds(each, left, bottom, right, top)
        return left.value, bottom.value, right.value, top.value


def address(each: Any) -> int:
    """The identity of an object; 0 for none."""
    return addressof(each.contents) if each else 0


def _lies_on(box: Box, grounds: list[Box]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(left <= x <= right and bottom <= y <= top for left, bottom, right, top in grounds)
