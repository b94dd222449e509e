"""Office formulas (OMML) on one line, as LaTeX.

In:  an element `m:oMath`.
Out: its text: `x^{2}`, `\\frac{a}{b}`, `\\sqrt{x}`.
"""

from __future__ import annotations

from collections.abc import Callable

from memorag_pipeline.corpus.readers.package import LOCAL, Element, attribute, child, value


def formula(element: Element) -> str:
    """The formula in an element."""
    return "".join(map(_part, element))


def _part(element: Element) -> str:
    name = LOCAL[element.tag]
    if name == "t":
        return element.text or ""
    if name.endswith("Pr") or name in {"del", "moveFrom"}:
        return ""
    write = _FORMS.get(name)
    return formula(element) if write is None else write(element)


def _of(element: Element, name: str) -> str:
    found = child(element, name)
    return "" if found is None else formula(found)


def _script(element: Element) -> str:
    below, above = _of(element, "sub"), _of(element, "sup")
    marks = (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")
    return marks + _of(element, "e") if LOCAL[element.tag] == "sPre" else _of(element, "e") + marks


def _fraction(element: Element) -> str:
    above, below = _of(element, "num"), _of(element, "den")
    if value(element, "fPr", "type") == "noBar":
        return f"\\binom{{{above}}}{{{below}}}"
    return f"\\frac{{{above}}}{{{below}}}"


def _root(element: Element) -> str:
    degree = _of(element, "deg")
    return f"\\sqrt{f'[{degree}]' if degree else ''}{{{_of(element, 'e')}}}"


def _operator(element: Element) -> str:
    sign = value(element, "naryPr", "chr") or "∫"
    below, above = _of(element, "sub"), _of(element, "sup")
    return sign + (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "") + f" {_of(element, 'e')}"


def _delimited(element: Element) -> str:
    properties = child(element, "dPr")

    def sign(name: str, usual: str) -> str:
        found = child(properties, name)
        return usual if found is None else attribute(found, "val") or ""

    inner = sign("sepChr", "|").join(formula(each) for each in element.iterchildren("{*}e"))
    return sign("begChr", "(") + inner + sign("endChr", ")")


def _limit(mark: str) -> Callable[[Element], str]:
    return lambda element: f"{_of(element, 'e')}{mark}{{{_of(element, 'lim')}}}"


def _function(element: Element) -> str:
    return f"{_of(element, 'fName')} {_of(element, 'e')}"


def _matrix(element: Element) -> str:
    rows = (" & ".join(map(formula, row.iterchildren("{*}e"))) for row in element.iterchildren("{*}mr"))
    return "\\begin{matrix} " + " \\\\ ".join(rows) + " \\end{matrix}"


def _equations(element: Element) -> str:
    return " \\\\ ".join(map(formula, element.iterchildren("{*}e")))


_FORMS: dict[str, Callable[[Element], str]] = {
    "sSup": _script,
    "sSub": _script,
    "sSubSup": _script,
    "sPre": _script,
    "f": _fraction,
    "rad": _root,
    "nary": _operator,
    "d": _delimited,
    "limLow": _limit("_"),
    "limUpp": _limit("^"),
    "func": _function,
    "m": _matrix,
    "eqArr": _equations,
}
