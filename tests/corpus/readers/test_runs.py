"""Raised, lowered and struck text: no number and no word becomes another one."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.readers.runs import Run, plain


def up(text: str) -> Run:
    return Run(text, raised=1)


def down(text: str) -> Run:
    return Run(text, raised=-1)


def struck(text: str) -> Run:
    return Run(text, struck=True)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["10", up("6"), " units"], "10^6 units"),
        (["built in 1984", up("3"), "."], "built in 1984^3."),
        (["10", up("-"), up("6"), " m"], "10^-6 m"),
        (["m", up("2"), "K"], "m^(2)K"),
        (["see", up("1, 2"), "."], "see^(1, 2)."),
        ([up("1"), "Department"], "1 Department"),
        (["log", down("10"), " 5"], "log_10 5"),
        (["x", down("i"), "y"], "x_(i)y"),
        (["C", down("6"), "H", down("12"), "O", down("6")], "C6H12O6"),
        (["Ca(OH)", down("2")], "Ca(OH)2"),
        (["f(x)", down("2"), " and x", down("2")], "f(x)_2 and x_2"),
        (["the 21", up("st"), " May, 2", up("e"), " siècle"], "the 21st May, 2e siècle"),
        (["3", up("1"), "/", down("2"), " miles"], "3 1/2 miles"),
        (["ACME", up("TM"), " and X", up("®")], "ACME™ and X®"),
        (["word", up("*"), " y"], "word* y"),
        (["The fee is ", struck("900"), "750 crowns"], "The fee is ~~900~~ 750 crowns"),
        ([struck("old "), "new"], "~~old~~ new"),
        (["10", Run("6", raised=1, struck=True), "5"], "10~~^6~~5"),
        ([struck("first\nsecond")], "~~first~~\n~~second~~"),
        (["  ", up(" "), "x"], "   x"),
    ],
)
def test_settings_as_text(runs: list[Run | str], expected: str) -> None:
    assert plain([run if isinstance(run, Run) else Run(run) for run in runs]) == expected
