"""The command: results on stdout, progress and errors on stderr, exit codes, and the whole way on a small corpus."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

from memorag_pipeline import errors
from memorag_pipeline.cli.app import app
from memorag_pipeline.cli.output import EXIT_CODES
from memorag_pipeline.specs.corpus import CorpusSpec, json_schema
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from tests.fixtures.s3 import S3Server
from tests.generators.chat_server import ChatServer, Response, completion, error
from tests.generators.conftest import server  # noqa: F401 - a fixture

REPOSITORY = Path(__file__).parents[2]
MEMORAG = [sys.executable, "-c", "from memorag_pipeline.cli.app import main; main()"]


def memorag(*arguments: object) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def start(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [*MEMORAG, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def json_of(*arguments: object) -> Any:
    """What the command prints with --json; stdout must hold nothing else."""
    result = memorag(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def spec_file(tmp_path: Path, source: Path, make_spec: Callable[..., CorpusSpec]) -> Path:
    return write_spec(tmp_path, make_spec(source))


def write_spec(folder: Path, spec: CorpusSpec) -> Path:
    path = folder / "topics.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return path


def test_the_help_starts_at_once_because_it_imports_nothing_heavy() -> None:
    heavy = "torch transformers FlagEmbedding faiss duckdb pyarrow fsspec airflow pypdfium2 sentence_transformers"
    heavy += " numpy pydantic yaml"
    program = (
        "import sys; sys.argv = ['memorag', '--help']\n"
        "from memorag_pipeline.cli.app import main\n"
        "try: main()\n"
        f"finally: print('loaded:', *sorted(set({heavy.split()!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("loaded:")


def test_help_and_page_tell_every_command_and_exit_code() -> None:
    shown = " ".join(memorag("--help").stdout.split())
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"│ {name} " in shown
        assert f"`memorag {name}" in page
    for group in app.registered_groups:
        assert f"│ {group.name} " in shown
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            assert f"`memorag {group.name} {command.callback.__name__}" in page
    for code, meaning in EXIT_CODES.items():
        assert f" {code} {meaning}" in shown
        assert f"| {code} | {meaning} |" in page
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert raised | {0, 2} == set(EXIT_CODES)


def test_the_program_tells_its_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", memorag("--version").stdout)


def test_schema_prints_what_is_exported() -> None:
    result = memorag("schema")
    assert json.loads(result.stdout) == json_schema()
    assert result.stdout == (REPOSITORY / "docs" / "corpus-spec.schema.json").read_text(encoding="utf-8")
    assert "| `window` |" in memorag("schema", "--markdown").stdout


def test_validate_accepts_a_right_spec(spec_file: Path) -> None:
    result = memorag("validate", spec_file)
    assert result.exit_code == 0
    assert f"{spec_file} is right" in result.stdout
    (found,) = json_of("validate", spec_file).values()
    assert found["problems"] == []


def test_validate_and_dry_run_tell_what_a_token_takes_as_memory(tmp_path: Path, source: Path, make_spec: Any) -> None:
    memory = {"kind": "selected", "model": "package:smollm2-135m-instruct", "ratio": 4}
    path = write_spec(tmp_path, make_spec(source, memory=memory))
    line = (
        "a token of text takes about 5.8 kB of memory (kind selected, bfloat16, 4 tokens to a slot), 1,440 times the"
        " 4.0 bytes of its text; memory.codec int8 takes 2.9 kB"
    )
    assert line in memorag("validate", path).stdout
    assert line in memorag("dry-run", path).stdout
    told = json_of("validate", path)[str(path)]["memory"]
    assert told == json_of("dry-run", path)["memory"]
    assert (told["bytes_per_token"], told["times"], told["codec"]) == (5760.0, 1440.0, "bfloat16")


def test_validate_prints_all_problems_of_all_files(tmp_path: Path, spec_file: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("corpus: Wrong\nmemory: {windows: 5}\n", encoding="utf-8")
    none = tmp_path / "none.yaml"
    result = memorag("validate", spec_file, wrong, none)
    assert result.exit_code == 3
    assert f"{spec_file} is right" in result.stdout
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for key in ("corpus", "source", "store", "memory.model", "memory.windows", "embedding"):
        assert sum(f": {key}: " in line for line in lines) == 1, lines
    assert sum(str(none) in line for line in lines) == 1

    result = memorag("validate", spec_file, wrong, none, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found[str(spec_file)]["problems"] == []
    assert found[str(wrong)]["memory"] is None
    assert {"file", "key", "value", "problem", "fix", "line"} == set(found[str(wrong)]["problems"][0])


def test_validate_checks_the_spec_against_its_models(tmp_path: Path, source: Path, make_spec: Any) -> None:
    path = write_spec(tmp_path, make_spec(source, sharding={"max_tokens": 100_000}, index={"device": "gpu"}))
    path.write_text(path.read_text(encoding="utf-8") + "compute: {queues: gpu}\n", encoding="utf-8")
    result = memorag("validate", path)
    assert result.exit_code == 3
    lines = path.read_text(encoding="utf-8").splitlines()
    for key, problem in {
        "sharding.max_tokens": "a shard can be larger than package:smollm2-135m-instruct can hold",
        "index.device": "this installation has no Faiss for GPUs",
        "compute.queues": "is not a key of the spec",
    }.items():
        name = key.rpartition(".")[2]
        (line,) = (number for number, text in enumerate(lines, 1) if f"{name}:" in text)
        assert f"{path}:{line}: {key}: {problem}" in result.stderr


def test_an_error_is_one_red_message_without_a_traceback(tmp_path: Path) -> None:
    done = start("versions", tmp_path / "nothing", FORCE_COLOR="1")
    assert done.returncode == 4
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert re.search(r"\x1b\[1;31merror:\x1b\[0m \x1b\[31m.* holds no version", done.stderr)


def test_a_bug_keeps_its_traceback() -> None:
    program = "import memorag_pipeline.cli.specs as w, memorag_pipeline.cli.app as c; del w.examine_spec; c.main()"
    done = subprocess.run([sys.executable, "-c", program, "validate", "x.yaml"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "NameError" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["versions"],
        ["reload"],
        ["promote", "x", "production", "1"],
        ["show", "x", "--al"],
        ["recall", "x"],
        ["summarize", "x", "job", "--focus", "Why?"],
        ["summarize", "x", "--document", "a", "--include", "b"],
        ["recall", "x", "Why?", "--kind", "answers"],
        ["memory", "inspect"],
    ],
)
def test_a_wrong_call_exits_with_2(arguments: list[str]) -> None:
    result = memorag(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


@pytest.mark.parametrize("command", ["refresh", "answer", "versions", "ask", "recall", "summarize"])
def test_every_command_refuses_a_wrong_spec(tmp_path: Path, command: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("corpus: wrong\n", encoding="utf-8")
    more = {"answer": ["daily"], "ask": ["Why?"], "recall": ["Why?", "How?"]}.get(command, [])
    result = memorag(command, path, *more, "--json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "memory: is missing" in result.stderr


@pytest.mark.models  # the packages of a job are looked for first
def test_a_missing_or_empty_source_and_an_unknown_job_are_named(tmp_path: Path, make_spec: Any) -> None:
    path = write_spec(tmp_path, make_spec(tmp_path / "nowhere"))
    for exit_code in (5, 4):
        result = memorag("refresh", path)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert "nowhere" in result.stderr
        (tmp_path / "nowhere").mkdir(exist_ok=True)
    result = memorag("answer", path, "daily")
    assert result.exit_code == 4
    assert "has no job 'daily'" in result.stderr


SPEC = """\
corpus: topics
source: {uris: [source], include: ["**/*.rst"], documents_per_part: 2}
store: {uri: store}
sharding: {max_tokens: 512, min_tokens: 64}
memory: {model: MEMORY, window: 128}
embedding: {model: package:all-minilm-l6-v2, pooling: mean}
generation: {max_new_tokens: 16, evidence_tokens: 256}
jobs:
  faq:
    questions: {uri: questions.jsonl}
    warehouse: {database: answers.duckdb}
    clues: [surrogates]
    clue_tokens: 16
    shards_per_question: 1
  reports:
    kind: summaries
    warehouse: {database: answers.duckdb}
    summaries: {include: ["**/*e*.rst"], summary_tokens: 16, recall_tokens: 16}
"""
QUESTIONS = (
    {"question_id": "del", "question": "What does the del statement delete?"},
    {"question_id": "empty", "question": ""},
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec, four documents and two questions, refreshed to version 1.

    Its memory model is a small one of random numbers: what it writes is not looked at here, but shown and stored.
    """
    from benchmarks.tiny_models import tiny_memory_model

    folder = tmp_path_factory.mktemp("corpus")
    memory = tiny_memory_model(folder / "memory")
    (folder / "topics.yaml").write_text(SPEC.replace("MEMORY", str(memory)), encoding="utf-8")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    (folder / "source").mkdir()
    for name in ("assert", "del", "pass", "break"):
        (folder / "source" / f"{name}.rst").write_text(topics[name], encoding="utf-8")
    result = memorag("refresh", folder / "topics.yaml", "--json")
    assert result.exit_code == 0, result.output
    refreshed = json.loads(result.stdout)
    assert (refreshed["version"], refreshed["created"], refreshed["changed"]) == (1, True, True)
    assert refreshed["counts"]["publish"]["documents"] == 4
    # One plain line at the end of each piece of work, for CliRunner gives no terminal.
    ends = [line for line in result.stderr.splitlines() if not line.endswith(" left")]
    for work in ("documents extracted or kept: 4 of 4 documents", "tokens memorized: ", "chunks embedded: "):
        assert sum(line.startswith(work) for line in ends) == 1, result.stderr
    return folder


def test_a_refresh_without_changes_makes_no_version(corpus: Path) -> None:
    result = memorag("refresh", corpus / "topics.yaml")
    assert result.exit_code == 0
    assert "nothing changed; version 1 stays the newest" in result.stdout
    assert re.search(r"inventory +4 documents, 4 unchanged +\d", result.stdout)


def test_a_job_lands_its_answers(corpus: Path) -> None:
    answered = json_of("answer", corpus / "topics.yaml", "faq")
    assert (answered["version"], answered["rows"]) == (1, 2)
    result = memorag("answer", corpus / "topics.yaml", "faq", "--version", "1")
    assert "2 rows over version 1 are in " in result.stdout.replace("\n", " ")
    query = "SELECT question_id, status, corpus_version FROM memorag.answers ORDER BY question_id"
    with duckdb.connect(str(corpus / "answers.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute(query).fetchall() == [("del", "answered", 1), ("empty", "error", 1)]


def test_a_question_is_answered_from_a_spec_and_from_a_uri(corpus: Path) -> None:
    question = "What does the del statement delete?"
    asked = json_of("ask", corpus / "topics.yaml", question)
    assert asked["status"] == "answered" and asked["answer"]
    assert asked["evidence"][-1]["uri"].endswith("/del.rst")  # the best one is offered last
    result = memorag("ask", corpus / "store" / "topics", question, "--version", "1", "--trust-models")
    assert result.exit_code == 0
    assert asked["answer"].split()[0] in result.stdout
    assert "del.rst" in result.stdout
    assert memorag("ask", corpus / "topics.yaml", " ").exit_code == 6


def test_passages_are_searched_from_a_spec_and_from_a_uri(corpus: Path) -> None:
    query = "What does the del statement delete?"
    found = json_of("search", corpus / "topics.yaml", query, "-k", "2")
    assert len(found) == 2 and found[0]["score"] >= found[1]["score"]
    assert found[0]["uri"].endswith("/del.rst")
    result = memorag("search", corpus / "store" / "topics", query, "-k", "1", "--version", "1")
    assert "Version 1 of " in result.stdout and "del.rst" in result.stdout
    assert memorag("search", corpus / "topics.yaml", query, "-k", "0").exit_code == 2


def test_a_question_is_answered_by_the_endpoint_that_a_spec_names(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: ChatServer,  # noqa: F811
) -> None:
    question = "What does the del statement delete?"
    spec = yaml.safe_load((corpus / "topics.yaml").read_text(encoding="utf-8"))
    endpoint = {"base_url": server.url, "key_variable": "KEY_OF_ASK", "retries": 0}
    places = {"source": {"uris": [str(corpus / "source")]}, "store": {"uri": str(corpus / "store")}, "jobs": {}}
    spec |= places | {"generation": {"model": "m", "endpoint": endpoint}}
    (tmp_path / "topics.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    monkeypatch.setenv("KEY_OF_ASK", "very-secret")
    server.answer = lambda seen, attempt: Response(completion("It deletes names [1]."))

    asked = json_of("ask", tmp_path / "topics.yaml", question)
    assert (asked["answer"], asked["status"]) == ("It deletes names [1].", "answered")
    assert asked["used"] == [1] and question in server.seen[0].question
    assert server.seen[0].headers["authorization"] == "Bearer very-secret"

    server.answer = lambda seen, attempt: error(401, "no such key")
    refused = memorag("ask", tmp_path / "topics.yaml", question)
    assert refused.exit_code == 9
    told = " ".join(refused.stderr.split())
    assert "does not accept the key (401)" in told and "KEY_OF_ASK" in told and "very-secret" not in refused.output


def test_a_question_is_answered_from_memory_alone(corpus: Path) -> None:
    question = "What does the del statement delete?"
    asked = json_of("ask", corpus / "topics.yaml", question, "--mode", "memory_only")
    assert asked["status"] == "answered" and asked["answer"]
    assert (asked["evidence"], asked["clues"]) == ([], [])
    assert asked["shard_id"] in {Path(path).stem for path, _ in memories(corpus)}
    result = memorag("ask", corpus / "store" / "topics", question, "--mode", "memory_only", "--trust-models")
    assert result.exit_code == 0
    assert f"from the memory of shard {asked['shard_id']}, version " in result.stdout
    assert memorag("ask", corpus / "topics.yaml", " ", "--mode", "memory_only").exit_code == 6


def test_a_job_and_a_single_document_are_summarized(corpus: Path) -> None:
    done = json_of("summarize", corpus / "topics.yaml", "reports")
    one = json_of("summarize", corpus / "store" / "topics", "--document", "del.rst", "--trust-models")
    assert (one["status"], one["title"], one["documents"]) == ("summarized", 'The "del" statement', 1)
    result = memorag("summarize", corpus / "topics.yaml", "--include", "del.rst")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    assert one["summary"].split()[0] in shown and "offered, version 1 of" in shown
    query = "SELECT count(*), count(summary) FROM memorag.summaries"
    with duckdb.connect(str(corpus / "answers.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute(query).fetchone() == (done["rows"], done["rows"])
    unknown = memorag("summarize", corpus / "topics.yaml", "--document", "nothing.rst")
    assert unknown.exit_code == 4 and "has no document nothing.rst" in unknown.stderr
    assert memorag("answer", corpus / "topics.yaml", "reports").exit_code == 4


def test_memories_recall_clues_for_questions(corpus: Path) -> None:
    questions = ["What does the del statement delete?", "What does break end?"]
    both = json_of("recall", corpus / "topics.yaml", *questions)
    assert [found["question"] for found in both] == questions
    shards = {Path(path).stem for path, _ in memories(corpus)}
    for found in both:
        assert found["error"] is None
        assert 1 <= len(found["shard_ids"]) <= 2 and set(found["shard_ids"]) <= shards
        assert {clue["shard_id"] for clue in found["clues"]} <= set(found["shard_ids"])
        assert {clue["kind"] for clue in found["clues"]} <= {"spans", "surrogates"}
    root = corpus / "store" / "topics"
    (drafts,) = json_of("recall", root, questions[0], "--kind", "draft", "--version", "1", "--trust-models")
    # What a model of random numbers says depends on how the CPU rounds; it may be nothing.
    assert drafts["error"] is None and {clue["kind"] for clue in drafts["clues"]} <= {"draft"}
    result = memorag("recall", corpus / "topics.yaml", questions[0], "--kind", "draft", "--version", "1")
    assert result.exit_code == 0
    assert questions[0] in result.stdout
    assert all(clue["text"] in result.stdout and clue["shard_id"] in result.stdout for clue in drafts["clues"])

    result = memorag("recall", corpus / "topics.yaml", questions[0], " ", "--kind", "draft")
    assert result.exit_code == 6
    assert questions[0] in result.stdout and "not asked: row 2: the question has no text" in result.stdout


def memories(corpus: Path) -> list[tuple[str, Path]]:
    """Name and file of each memory of version 1."""
    blobs = json_of("show", corpus / "topics.yaml", "1")["manifest"]["blobs"]
    folder = corpus / "store" / "topics" / "blobs" / "sha256"
    return [(b["path"], folder / b["digest"][:2] / b["digest"]) for b in blobs if b["role"] == "memory"]


def test_a_memory_file_is_inspected(corpus: Path) -> None:
    _, path = memories(corpus)[0]
    found = json_of("memory", "inspect", path)
    header = found["header"]
    assert (found["file"], found["bytes"]) == (str(path), path.stat().st_size)
    assert header["origin"]["kind"] == "full" and header["origin"]["window"] == 128
    assert header["slots"] == header["tokens"] == found["full_windows"] * 128 + found["open_tokens"]
    layers, heads, size = header["shape"]
    assert found["bytes_per_slot"] == 2 * 2 * layers * heads * size  # keys and values in bfloat16
    result = memorag("memory", "inspect", f"file://{path}")
    assert result.exit_code == 0
    assert f"Memory of kind full in file://{path}" in result.stdout
    assert header["origin"]["model_digest"] in result.stdout
    assert re.search(rf"^slots +{header['slots']:,} *$", result.stdout, re.M)
    assert re.search(rf"^windows +{found['full_windows']} full, {found['open_tokens']} tokens", result.stdout, re.M)


@pytest.mark.models
def test_a_file_that_is_no_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no memory.", encoding="utf-8")
    save_file({"weight": np.ones(4, np.float32)}, tmp_path / "weights")
    for name, exit_code, message in (
        ("nothing", 4, "there is no such file"),
        ("text", 5, "not a complete memory file"),
        ("weights", 5, "is a safetensors file but not a memory; give a file made by `memorize`"),
    ):
        result = memorag("memory", "inspect", tmp_path / name)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert f"error: {tmp_path / name}: " in result.stderr and message in result.stderr


def test_versions_are_listed_shown_promoted_and_compared(corpus: Path) -> None:
    spec, root = corpus / "topics.yaml", corpus / "store" / "topics"
    promoted = json_of("promote", spec, "production", "1", "--why", "first")
    assert (promoted["channel"], promoted["version"], promoted["why"]) == ("production", 1, "first")
    with (corpus / "source" / "pass.rst").open("a", encoding="utf-8") as file:
        file.write("\nIt does nothing at all.\n")
    assert "version 2 is published" in memorag("refresh", spec).stdout

    assert [(line["version"], line["channels"]) for line in json_of("versions", root)] == [(2, []), (1, ["production"])]
    assert [line["version"] for line in json_of("versions", root, "--last", "1")] == [2]
    assert re.search(r"^1 .*production *$", memorag("versions", spec).stdout, re.M)

    shown = json_of("show", root, "production")
    assert (shown["version"], shown["channels"]) == (1, ["production"])
    assert {blob["role"] for blob in shown["manifest"]["blobs"]} >= {"documents", "chunks", "memory", "index"}
    printed = memorag("show", root).stdout
    assert str(corpus / "memory")[:40] in printed
    assert re.search(r"base +\d+ +[\d,]+ +0 +0\.0% +none", printed)

    found = json_of("diff", root, "production", "2")
    (changed,) = found["documents"]["changed"]
    assert changed.endswith("/pass.rst")
    assert "changed file://" in memorag("diff", root, "1", "2").stdout

    assert memorag("promote", spec, "2", "1", "--why", "a number").exit_code == 2
    for arguments in (["show", root, "7"], ["show", root, "staging"], ["diff", root, "1", "9"]):
        result = memorag(*arguments)
        assert (result.exit_code, result.stdout) == (4, ""), arguments
        assert re.search("it has: (1, 2|production)", result.stderr)


def test_a_root_in_s3_is_opened_with_credentials_of_the_environment(s3_server: S3Server) -> None:
    root = f"s3://{s3_server.new_bucket()}/kb/topics"
    store = CorpusStore(root, s3_server.options())
    blob = store.blobs.put_bytes(b"all of it")
    manifest = Manifest(
        corpus="topics",
        language="en",
        parent=None,
        spec_fingerprint="0" * 64,
        spec={},
        models=(),
        blobs=(ManifestBlob(role="index", path="index.faiss", digest=blob.digest, size=blob.size),),
        counts=dict.fromkeys(("documents", "chunks", "quarantined", "shards", "tokens"), 1),
    )
    store.versions.publish(manifest, "run-1")
    options = s3_server.options()
    credentials = {"AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
    done = start("verify", root, AWS_ENDPOINT_URL=options["endpoint_url"], **credentials)
    assert done.returncode == 0, done.stderr
    assert f"version 1 of {root} is complete" in done.stdout
    done = start(
        "versions", root, AWS_ENDPOINT_URL=options["endpoint_url"], **{**credentials, "AWS_SECRET_ACCESS_KEY": "no"}
    )
    assert done.returncode == 5
    assert "Traceback" not in done.stderr and root.rpartition("/")[0] in done.stderr


def test_verify_names_what_is_damaged(corpus: Path) -> None:
    spec = corpus / "topics.yaml"
    assert json_of("verify", spec, "1")["problems"] == []
    blob = next(b for b in json_of("show", spec, "1")["manifest"]["blobs"] if b["role"] == "index")
    path = corpus / "store" / "topics" / "blobs" / "sha256" / blob["digest"][:2] / blob["digest"]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        result = memorag("verify", spec, "1")
        assert result.exit_code == 5
        assert "index/00000.faiss" in result.stdout and "1 blobs of version 1 are damaged" in result.stdout
        result = memorag("verify", spec, "1", "--json")
        assert result.exit_code == 5
        assert [problem["path"] for problem in json.loads(result.stdout)["problems"]] == ["index/00000.faiss"]
    finally:
        path.write_bytes(good)


def test_a_process_of_its_own_writes_only_where_it_should(corpus: Path, tmp_path: Path) -> None:
    """Stdout holds JSON and nothing else, stderr no warning of a library, and the home folder does not change."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    spec = corpus / "topics.yaml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | home
    for arguments in (["refresh", spec], ["answer", spec, "faq"]):
        command = [*MEMORAG, *map(str, arguments), "--json"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        for line in done.stderr.splitlines():
            assert re.match(r"[a-z ]+: [\d,]+( of [\d,]+)? \w+, ", line), done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != ".cache"] == []
