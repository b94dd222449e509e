"""What the commands share: quiet libraries, progress on stderr, results on stdout as text or as JSON.

In:  results of stages and stores.
Out: text for people; with --json one JSON document on stdout and nothing else.
Wrong: a `MemoragError` becomes one red message on stderr and its exit code; any other error keeps its traceback.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memorag_pipeline.amounts import counts_text
from memorag_pipeline.errors import MemoragError, SpecError

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.runner import AnswerResult, ExportedPrompts, RefreshResult


EXIT_CODES = {
    0: "done",
    1: "any other error; for a bug the traceback says where",
    2: "wrong arguments",
    3: "a spec is refused",
    4: (
        "a named version, channel, job, model or file does not exist, the files of a model are not"
        " whole, or the source holds no document"
    ),
    5: "the object store failed or refused, or something stored is damaged",
    6: "the questions cannot be read",
    7: "the warehouse refused the load; nothing was written",
    8: "an optional package is missing",
    9: "the generator's endpoint refuses or does not respond; replies received so far are kept",
    10: "the version does not pass its gate (`memorag eval SPEC`)",
}
# Set before a model library is imported; a value that the user has set stays.
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
_UNFOLDED = 10_000

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, for scripts.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log and the warnings of libraries.")]


def stdout() -> Console:
    """The console of results. Without a terminal, lines are not wrapped, for grep."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)


def stderr() -> Console:
    """The console of progress and errors."""
    return Console(stderr=True, highlight=False)


class _Spoken(logging.Handler):
    """Shows the warnings of a logger even without --verbose: why a command that seems to hang waits."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """As the base class says."""
        self._console.print(f"[yellow]{escape(record.getMessage())}[/]", soft_wrap=True)


@contextmanager
def working(verbose: bool) -> Iterator[None]:
    """Around all work: progress on stderr, libraries quiet unless `verbose`, and their prints kept off stdout."""
    from memorag_pipeline import progress
    from memorag_pipeline.cli.progress_bars import reporter_for

    console = stderr()
    progress.install(reporter_for(console))
    outages = logging.getLogger("memorag_pipeline.storage.outages")
    outages.handlers = [] if verbose else [_Spoken(console)]
    if verbose:
        from rich.logging import RichHandler

        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console)])
    else:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        warnings.simplefilter("ignore")
        # A handler on the root keeps Python from printing the warnings of libraries that configured none.
        logging.getLogger().addHandler(logging.NullHandler())
    with redirect_stdout(sys.stderr):
        yield


def print_error(error: MemoragError) -> None:
    """The error in red on stderr; each problem of a spec on a separate line."""
    messages = [str(problem) for problem in error.problems] if isinstance(error, SpecError) else [str(error)]
    for message in messages:
        stderr().print(f"[bold red]error:[/] [red]{escape(message)}[/]", soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout. Dataclasses and pydantic models are written as objects."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """A line with markup on stdout, never wrapped: long URIs stay in one piece."""
    stdout().print(text, soft_wrap=True)


def print_table(title: str, columns: Iterable[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; numbers to the right, long cells folded."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for position, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[position], int | float) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(cell)) for cell in row))
    stdout().print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_SHOWN_OF_A_PASSAGE = 200
# A question is recalled from each of its shards.
_OTHER_NAMES = {("recall", "questions"): "pairs of question and shard"}
_WITHOUT_COUNTS = {"promote": "see below"}  # the line below the table says what it decided


def print_stages(title: str, result: RefreshResult | AnswerResult | ExportedPrompts) -> None:
    """A table of what each stage counted, and its seconds."""
    rows: list[list[Any]] = [
        [
            stage,
            counts_text(_named(stage, counts)) or _WITHOUT_COUNTS.get(stage, "nothing to do"),
            result.seconds[stage],
        ]
        for stage, counts in result.counts.items()
    ]
    print_table(title, ["stage", "counts", "seconds"], rows)


def _named(stage: str, counts: Mapping[str, float]) -> dict[str, float]:
    """The counts under names that say what they are beside those of other stages."""
    return {_OTHER_NAMES.get((stage, name), name): value for name, value in counts.items()}


def print_passages(title: str, passages: Sequence[tuple[int, Passage]]) -> None:
    """A table of passages with their numbers."""
    rows = [
        [
            number,
            passage.uri.rpartition("/")[2],
            f"{passage.start}-{passage.end}",
            f"{passage.score:.2f}",
            start_of(passage.text),
        ]
        for number, passage in passages
    ]
    print_table(title, ["number", "document", "characters", "score", "text"], rows)


def start_of(text: str) -> str:
    """The start of a passage, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_OF_A_PASSAGE else f"{line[: _SHOWN_OF_A_PASSAGE - 1]}…"
