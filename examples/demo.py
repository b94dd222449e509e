"""The demo: the whole way on the Python language reference, through the real Airflow DAGs, in this process.

In:  `pydoc_data.topics`, which ships with CPython, and the spec `dags/corpora/python_reference.yaml`.
Out: versions, answers and a DuckDB warehouse below `.memorag/` (or MEMORAG_HOME); nothing is written outside of it.
Wrong: a failed DAG run ends the demo with the end of its log; the whole log is in `.memorag/demo.log`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from memorag_pipeline import progress
from memorag_pipeline.cli.progress_bars import reporter_for
from memorag_pipeline.refresh.stages import EMBED, EXTRACT, MEMORIZE
from memorag_pipeline.specs.corpus import read_spec

if TYPE_CHECKING:
    from memorag_pipeline.pipeline import Pipeline

REPOSITORY = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("MEMORAG_HOME", REPOSITORY / ".memorag"))
DAGS = REPOSITORY / "dags"
SPEC = DAGS / "corpora" / "python_reference.yaml"
CACHE = Path(os.environ.get("MEMORAG_CACHE", HOME / "cache"))
LOG = HOME / "demo.log"
MARK = ".written-by-the-demo"  # in the source folder, so that the demo never replaces somebody's own
# Each memorized token of the demo's model takes 23 kB, and the demo should stay below 1 GB of disk.
MOST_CHARACTERS = 75_000
EDITED = "lambda"
EDIT = """
A lambda expression can be called on the spot, as in "(lambda x: x + 1)(2)",
though a function with a name is easier to read.
"""


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="take all documents (about 3 GB of disk)")
    most = "take the shortest documents, up to this many characters (%(default)s)"
    parser.add_argument("--characters", type=int, default=MOST_CHARACTERS, help=most)
    given = parser.parse_args()
    if not SPEC.exists():
        sys.exit(f"{SPEC} is not there: the demo runs from a checkout of the project")
    prepare_home()
    console = Console(file=redirect_output())
    try:
        Demo(console).run(None if given.full else given.characters)
    except DagRunFailed as error:
        console.print(f"[red]{error}[/red]\nThe whole log is in {LOG}; it ends with:\n")
        console.print("\n".join(LOG.read_text(errors="replace").splitlines()[-30:]), markup=False)
        sys.exit(1)


def prepare_home() -> None:
    """Start afresh below `.memorag/`, but keep the converted models; point Airflow and all caches there."""
    if (HOME / "source").exists() and not (HOME / "source" / MARK).exists():
        sys.exit(
            f"{HOME / 'source'} was not written by the demo, which would replace it; set MEMORAG_HOME to another folder"
        )
    for name in ("source", "store", "warehouse.duckdb", "warehouse.duckdb.wal", "demo-airflow", LOG.name):
        path = HOME / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    HOME.mkdir(parents=True, exist_ok=True)
    for name in [name for name in os.environ if name.startswith("AIRFLOW__") or name == "MEMORAG_SPECS"]:
        del os.environ[name]  # the settings of another Airflow
    os.environ.update(
        {
            "MEMORAG_HOME": str(HOME),
            "MEMORAG_CACHE": str(CACHE),
            "AIRFLOW_HOME": str(HOME / "demo-airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'demo-airflow' / 'airflow.db'}",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )


def redirect_output() -> TextIO:
    """Send all that libraries print to the log, and return a stream to what was standard output."""
    screen = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    log = LOG.open("w")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log.fileno(), stream.fileno())
    return screen


class DagRunFailed(Exception):
    """A DAG run of the demo did not succeed."""


class Demo:
    """The phases of the demo, with what each took and did."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        progress.install(reporter_for(console))

    def run(self, most_characters: int | None) -> None:
        """All phases, one after the other."""
        documents = write_source(HOME / "source", most_characters)
        self.say(f"The Python language reference: {documents} of {len(topics)} documents in {HOME / 'source'}")
        with self.phase("Airflow: metadata database"):
            dags = self.load_dags()
        with self.phase("models: SmolLM2 converted from GGUF to safetensors"):
            resolve_models()
        with self.phase("refresh: version 1"):
            first = self.run_dag(dags["python_reference_refresh"])
        with self.phase("answers over version 1"):
            self.run_dag(dags["python_reference_faq"])
        self.show_answers()

        edit_document(HOME / "source" / f"{EDITED}.rst")
        self.say(f"One document edited ({EDITED}.rst), then refreshed again:")
        with self.phase("refresh: version 2"):
            second = self.run_dag(dags["python_reference_refresh"])
        self.show_cost(first, second)

        self.say("Nothing edited, then refreshed a third time:")
        with self.phase("refresh: nothing to do"):
            third = self.run_dag(dags["python_reference_refresh"])
        states = Counter(ti.state for ti in third.get_task_instances())
        versions = ", ".join(str(number) for number in pipeline().store.versions.numbers())
        self.console.print(f"  {states['success']} task ran, {states['skipped']} were skipped; versions: {versions}")
        self.show_end()

    def say(self, text: str) -> None:
        """A line of its own, with room above."""
        self.console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase and say how long it took."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.console.print(f"  [green]✓[/green] {name}: {self.seconds[name]:.1f} s")

    def load_dags(self) -> dict[str, Any]:
        """Make Airflow's metadata database and read the DAG folder."""
        from airflow.utils.db import initdb

        initdb()
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(str(DAGS))
        if bag.import_errors:
            raise DagRunFailed("\n".join(f"{file}: {error}" for file, error in bag.import_errors.items()))
        return dict(bag.dags)

    def run_dag(self, dag: Any) -> Any:
        """Run one DAG as Airflow's own `dag.test()` does, every task in this process, and return the DAG run."""
        run = dag.test()
        if run.state != "success":
            failed = ", ".join(sorted({ti.task_id for ti in run.get_task_instances() if ti.state == "failed"}))
            raise DagRunFailed(f"DAG {dag.dag_id} did not succeed; failed tasks: {failed}")
        return run

    def show_answers(self) -> None:
        """The warehouse's rows of the newest version, as a table."""
        table = Table("question", "answer", "evidence (document, characters, score)", show_lines=True)
        for row in answers():
            evidence = json.loads(row["evidence"])
            places = (f"{_document(e['uri'])} {e['start']}-{e['end']} ({e['score']:.2f})" for e in evidence)
            table.add_row(row["question"], row["answer"] or f"[red]{row['error']}[/red]", "\n".join(places))
        self.console.print(table)

    def show_cost(self, first: Any, second: Any) -> None:
        """What the two refreshes really did, side by side, as their tasks reported it."""
        table = Table("work done", "version 1", "version 2", "share")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, task, count, reused in (
            ("documents extracted", EXTRACT.name, "documents", "reused"),
            ("chunks embedded", EMBED.name, "embedded", None),
            ("tokens memorized", MEMORIZE.name, "memorized_tokens", None),
        ):
            done = [
                reported(run, task, count) - (reported(run, task, reused) if reused else 0) for run in (first, second)
            ]
            table.add_row(name, f"{done[0]:,}", f"{done[1]:,}", f"{done[1] / done[0]:.1%}")
        self.console.print(table)

    def show_end(self) -> None:
        """Where everything lies, and what to try next."""
        store = pipeline().store
        size = sum(path.stat().st_size for path in HOME.rglob("*") if path.is_file())
        total = sum(self.seconds.values())
        spec, python = SPEC.relative_to(REPOSITORY), ".venv/bin/"
        self.say(f"Done in {total:.0f} s, {size / 1e6:,.0f} MB below {HOME}")
        self.console.print(
            f"  versions   {store.uri}\n"
            f"  warehouse  {HOME / 'warehouse.duckdb'}, table memorag.answers\n"
            f"  log        {LOG}\n\n"
            "Try next:\n"
            f"  export MEMORAG_CACHE={CACHE}\n"
            f'  {python}memorag ask {spec} "When does the else branch of a loop run?"\n'
            f"  {python}memorag versions {spec}\n"
            f"  {python}memorag diff {spec} 1 2\n"
            "  make airflow      # the same DAGs in Airflow's UI",
            highlight=False,
            soft_wrap=True,
        )


def reported(run: Any, task: str, count: str) -> int:
    """The sum of a count that the tasks called `task` returned in a DAG run."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XComModel.get_many(run_id=run.run_id, key=count, task_ids=task, dag_ids=run.dag_id)
        return sum(int(XComModel.deserialize_value(row)) for row in session.scalars(query))


def write_source(folder: Path, most_characters: int | None) -> int:
    """Write the topics as files, shortest first, up to `most_characters`; return how many."""
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    written = 0
    for count, name in enumerate(sorted(topics, key=lambda name: (len(topics[name]), name))):
        written += len(topics[name])
        if most_characters is not None and written > most_characters:
            return count
        (folder / f"{name}.rst").write_text(topics[name], encoding="utf-8")
    return len(topics)


def edit_document(path: Path) -> None:
    """Add a paragraph at the end of a document."""
    with path.open("a", encoding="utf-8") as file:
        file.write(EDIT)


def pipeline() -> Pipeline:
    """The pipeline of the demo's spec."""
    from memorag_pipeline.pipeline import Pipeline

    return Pipeline(read_spec(SPEC))


def resolve_models() -> None:
    """Find the spec's models; the conversion of the first one is done once and kept in the cache."""
    from memorag_pipeline.models.references import resolve

    spec = read_spec(SPEC)
    for section in (spec.memory, spec.embedding):
        resolve(section.model, section.revision)


def answers() -> list[dict[str, Any]]:
    """The rows of the answers table over the newest version."""
    from memorag_pipeline.warehouse import open_warehouse

    rows = open_warehouse(read_spec(SPEC).job("faq").warehouse).query(
        "SELECT question, answer, error, evidence FROM memorag.answers"
        " WHERE corpus_version = (SELECT max(corpus_version) FROM memorag.answers) ORDER BY question_id"
    )
    return list(rows.to_pylist())


def _document(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


if __name__ == "__main__":
    main()
