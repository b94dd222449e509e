"""Replies of a model that does not stop: reading them takes a time that grows with their length, not its square."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Four times the text may take sixteen times as long where the square shows; eight leaves room for a loaded machine.
# The fastest of some tries is taken. The process is killed where it does not come back at all.
_MEASURE = """
import sys, time
from memorag_pipeline.generators.completion import Completion, MalformedError
from memorag_pipeline.jobs.citations import used_passages, without_markers
from memorag_pipeline.jobs.clues import parse_clues
from memorag_pipeline.prompts.chat_marks import break_marks
from memorag_pipeline.prompts.echo import without_echo
from memorag_pipeline.prompts.fence import fence_passages, without_fences

def completion(text):
    try:
        Completion.parse(text)
    except MalformedError:
        pass

# Whatever reads a reply, or puts one into a prompt.
READERS = {
    "clues": lambda text: parse_clues("spans", text, "q", ["p"]),
    "draft": lambda text: parse_clues("draft", text, "q", ["p"]),
    "citations": lambda text: used_passages(text, "q", ["a b c", "d"]),
    "markers": without_markers,
    "fences": without_fences,
    "echo": lambda text: without_echo(text, ["Is the line new?", "the line 1 is new", "a b c"]),
    "completion": completion,
    "marks": break_marks,
    "passages": lambda text: fence_passages([text]),
}

def seconds(reader, text):
    tries = []
    for _ in range(3):
        started = time.process_time()
        reader(text)
        tries.append(time.process_time() - started)
    return min(tries)

def text_of(head, unit, tail, size):
    if unit == "lines":
        return "".join(f"the line {number} is new\\n" for number in range(size // 20))
    return head + unit * (size // len(unit)) + tail

reader = READERS[sys.argv[1]]
for head, unit, tail in eval_units:
    small, large = (seconds(reader, text_of(head, unit, tail, size)) for size in (15_000, 60_000))
    if large > 0.05 and large > 8 * small:
        raise SystemExit(f"{head!r} {unit!r} {tail!r}: {small:.3f} s, then {large:.3f} s")
"""
UNITS = [
    ("", " ", "x"),
    ("", "\n", "x"),
    ("", "\u3000", "x"),
    ("<passage", " ", "x"),
    ("<", " ", "x"),
    ("[1", " ", "x"),
    ("[", "1,", "x"),
    ("[", "1 ,", "x"),
    ("", "[1 ", "x"),
    ("", "[", "x"),
    ("", "<", "x"),
    ("", "<passage ", "x"),
    ("", "<|im_start", ""),
    ("", "**a ", "x"),
    ("", "- ", "x"),
    ("", "-", "x"),
    ("", '"', "x"),
    ("", "'a ", "x"),
    ("", "answer: ", "x"),
    ("", "一、", "x"),
    ("", "a. ", ""),
    ("", "lines", ""),
    ("", "p\u0301", ""),
]


@pytest.mark.parametrize(
    "reader", ["clues", "draft", "citations", "markers", "fences", "completion", "marks", "passages"]
)
def test_a_longer_reply_takes_longer_by_its_length_alone(reader: str) -> None:
    code = _MEASURE.replace("eval_units", repr(UNITS))
    done = subprocess.run([sys.executable, "-c", code, reader], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_line_or_a_reply_without_end_is_no_clue() -> None:
    from memorag_pipeline.jobs.clues import parse_clues

    clue = "Whymper led the first ascent."
    assert parse_clues("spans", f"{'word ' * 5000}\n{clue}", "q", []) == [clue]
    assert parse_clues("spans", "x\n" * 100_000 + clue, "q", []) == []
