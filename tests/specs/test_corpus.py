"""Every way in which a spec can be wrong is refused with the file, the line, the key, the value and the fix."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from memorag_pipeline.errors import NotFoundError, SpecError, SpecProblem
from memorag_pipeline.specs.corpus import CorpusSpec, json_schema, read_spec
from memorag_pipeline.specs.cron import PRESETS, check_cron
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.reference import markdown
from memorag_pipeline.specs.source import RefreshSpec

REPOSITORY = Path(__file__).parents[2]

MINIMAL = """\
corpus: topics
source:
  uris: [source]
store:
  uri: store
memory:
  model: package:smollm2-135m-instruct
embedding:
  model: package:all-minilm-l6-v2
"""
JOB = """\
jobs:
  daily:
    questions: {uri: questions.jsonl}
    warehouse: {database: answers.duckdb}
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_spec(text: str) -> Path:
        path = tmp_path / "corpus.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_spec


def problems_of(path: Path) -> tuple[SpecProblem, ...]:
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return caught.value.problems


def changed(**sections: Any) -> str:
    """The minimal spec with a job, with keys of some sections replaced; None takes a key or section out."""
    values = yaml.safe_load(MINIMAL + JOB)
    for section, keys in sections.items():
        if isinstance(keys, dict) and isinstance(values.get(section), dict):
            values[section] = {k: v for k, v in {**values[section], **keys}.items() if v is not None}
        elif keys is None:
            del values[section]
        else:
            values[section] = keys
    return yaml.safe_dump(values, sort_keys=False)


def job(**keys: Any) -> dict[str, Any]:
    return {"daily": {**yaml.safe_load(JOB)["jobs"]["daily"], **keys}}


def test_a_minimal_spec_is_read_with_its_defaults(write: Write, tmp_path: Path) -> None:
    spec = read_spec(write(MINIMAL + JOB))
    assert spec.source.uris == [str(tmp_path / "source")]
    assert spec.store.uri == str(tmp_path / "store")
    assert spec.job("daily").questions.uri == str(tmp_path / "questions.jsonl")
    assert spec.job("daily").warehouse.database == str(tmp_path / "answers.duckdb")
    assert spec.memory.kind == "full" and spec.index.factory == "auto"
    assert (spec.memory.window, spec.memory.ratios) == (None, None)


@pytest.mark.parametrize(
    ("memory", "ratios"),
    [
        ({"kind": "full", "ratio": 1}, (1,)),
        ({"kind": "beacon", "ratio": 3, "window": 128}, (3,)),
        ({"kind": "beacon", "ratio": 0}, (0,)),
        ({"kind": "beacon", "ratio": [3, 4], "window": 128, "ratio_mix": "instance-random"}, (3, 4)),
        ({"kind": "beacon", "ratio": [0, 3], "window": 128, "ratio_mix": "adapt-512"}, (0, 3)),
        ({"kind": "beacon", "ratio": [3, 5]}, (3, 5)),
        ({"kind": "beacon", "sink": 16, "window": 16, "adapter": "s3://bucket/a.safetensors"}, None),
        ({"kind": "selected", "ratio": 4, "sink": 4, "policy": "recent", "codec": "fp8"}, (4,)),
        ({"kind": "gist", "quantization": "int4", "budget_mib": 512}, None),
    ],
    ids=str,
)
def test_every_kind_of_memory_can_be_asked_for(
    write: Write, memory: dict[str, Any], ratios: tuple[int, ...] | None
) -> None:
    spec = read_spec(write(changed(memory=memory))).memory
    assert spec.ratios == ratios
    assert spec.model_dump(mode="json", include=set(memory)) == memory
    assert MemorySpec.model_validate(spec.model_dump(mode="json")) == spec


WRONG = {
    "unknown key": (changed(memory={"windows": 128}), "memory.windows", "", "did you mean window?"),
    "key of another section": (changed(window=128), "window", "", "it belongs under memory"),
    "unknown key that resembles none": (changed(store={"zzz": 1}), "store.zzz", "", "known here: storage_options"),
    "key that is not text": (changed(memory={5: 1}), "memory.5", "", "known here"),
    "missing key": (changed(store={"uri": None}), "store.uri", "", "add it: Folder or bucket"),
    "missing section": (changed(embedding=None), "embedding", "", "add this section"),
    "not a number": (changed(memory={"window": "wide"}), "memory.window", "'wide'", "a whole number"),
    "not a whole number": (changed(memory={"window": 12.5}), "memory.window", "12.5", "a whole number"),
    "not a list": (changed(source={"uris": "source"}), "source.uris", "a list", "a list"),
    "not a section": (changed(memory=5), "memory", "5", "a mapping"),
    "not a text": (changed(schedule=5), "schedule", "5", "a text"),
    "too small": (changed(memory={"window": 3}), "memory.window", "3", "greater than or equal to 16"),
    "not one of the choices": (changed(memory={"kind": "beacons"}), "memory.kind", "'beacons'", "'beacon', 'selected'"),
    "address without a scheme": (
        changed(source={"storage_options": {"endpoint_url": "127.0.0.1:18333"}}),
        "source.storage_options",
        "",
        "write it as http://host:port",
    ),
    "address without a scheme, of the client": (
        changed(store={"storage_options": {"client_kwargs": {"endpoint_url": "s3.example.com"}}}),
        "store.storage_options",
        "",
        "client_kwargs.endpoint_url without http:// or https://",
    ),
    "empty list": (changed(source={"uris": []}), "source.uris", "[]", "give a value"),
    "empty text": (changed(store={"uri": ""}), "store.uri", "''", "give a value"),
    "bad corpus name": (changed(corpus="My corpus"), "corpus", "'My corpus'", "a-z"),
    "bad job name": (changed(jobs={"My job": job()["daily"]}), "jobs.My job", "'My job'", "a-z"),
    "job called refresh": (changed(jobs={"refresh": job()["daily"]}), "jobs", "", "use another name"),
    "bad table name": (
        changed(jobs=job(warehouse={"database": "a.duckdb", "table": "my-answers"})),
        "jobs.daily.warehouse.table",
        "'my-answers'",
        "a-z, 0-9 and _, starting with a letter",
    ),
    "table with the name of a view": (
        changed(jobs=job(warehouse={"database": "a.duckdb", "table": "latest_answers"})),
        "jobs.daily.warehouse.table",
        "latest_answers",
        "use another name",
    ),
    "ratio for a kind that does not compress": (changed(memory={"ratio": 4}), "memory.ratio", "4", "use ratio 1"),
    "several ratios for a kind that does not compress": (
        changed(memory={"ratio": [1, 4], "kind": "gist"}),
        "memory.ratio",
        "[1, 4]",
        "use ratio 1",
    ),
    "several ratios of which none divides the window": (
        changed(memory={"ratio": [3, 5], "window": 128, "kind": "beacon"}),
        "memory.ratio",
        "[3, 5]",
        "use divisors of the window",
    ),
    "several ratios for kind selected": (
        changed(memory={"ratio": [4, 8], "kind": "selected"}),
        "memory.ratio",
        "[4, 8]",
        "give one, or leave it out",
    ),
    "ratio that keeps all for kind selected": (
        changed(memory={"ratio": 0, "kind": "selected"}),
        "memory.ratio",
        "0",
        "give one, or leave it out",
    ),
    "ratio below 0": (changed(memory={"ratio": -1, "kind": "beacon"}), "memory.ratio", "-1", "of 0 or more, or a list"),
    "ratio in a list below 0": (
        changed(memory={"ratio": [4, -1], "kind": "beacon"}),
        "memory.ratio",
        "[4, -1]",
        "list",
    ),
    "no ratio to pick from": (changed(memory={"ratio": [], "kind": "beacon"}), "memory.ratio", "[]", "or a list"),
    "ratio that is no number": (changed(memory={"ratio": "half", "kind": "beacon"}), "memory.ratio", "half", "of 0 or"),
    "way to pick ratios that there is not": (
        changed(memory={"ratio": [4, 8], "ratio_mix": "adapt", "kind": "beacon"}),
        "memory.ratio_mix",
        "'adapt'",
        "use sequence, step-random, instance-random or adapt-N",
    ),
    "way to pick ratios when there is one": (
        changed(memory={"ratio": 4, "ratio_mix": "step-random", "kind": "beacon"}),
        "memory.ratio_mix",
        "'step-random'",
        "give several ratios",
    ),
    "adapter for a kind without beacons": (
        changed(memory={"adapter": "a.safetensors", "kind": "selected"}),
        "memory.adapter",
        "a.safetensors",
        "use kind beacon",
    ),
    "sink for a kind that keeps all": (changed(memory={"sink": 4}), "memory.sink", "4", "use kind beacon or selected"),
    "sink larger than the window": (
        changed(memory={"sink": 64, "window": 32, "kind": "beacon"}),
        "memory.sink",
        "64",
        "make it smaller",
    ),
    "policy that there is not": (
        changed(memory={"policy": "best", "kind": "selected"}),
        "memory.policy",
        "'best'",
        "should be 'uniform', 'recent' or 'attention'",
    ),
    "policy of another kind": (changed(memory={"policy": "recent"}), "memory.policy", "'recent'", "use kind selected"),
    "codec that there is not": (changed(memory={"codec": "int2"}), "memory.codec", "'int2'", "'int4' or 'fp8'"),
    "quantization that there is not": (
        changed(memory={"quantization": "int2"}),
        "memory.quantization",
        "'int2'",
        "'int8' or 'int4'",
    ),
    "budget of nothing": (changed(memory={"budget_mib": 0}), "memory.budget_mib", "0", "greater than or equal to 1"),
    "revision of a packaged model": (changed(memory={"revision": "main"}), "memory.revision", "'main'", "leave it out"),
    "chunk beyond the embedding": (
        changed(chunking={"max_tokens": 300}),
        "chunking.max_tokens",
        "300",
        "larger than embedding.max_tokens (256)",
    ),
    "chunk beyond the shard": (
        changed(sharding={"max_tokens": 128, "min_tokens": 0}),
        "chunking.max_tokens",
        "200, the default",
        "larger than sharding.max_tokens (128)",
    ),
    "overlap beyond the chunk": (
        changed(chunking={"overlap_tokens": 200}),
        "chunking.overlap_tokens",
        "200",
        "make it smaller",
    ),
    "shard bounds without room": (
        changed(sharding={"min_tokens": 3000}),
        "sharding.min_tokens",
        "3000",
        "leave room",
    ),
    "unknown index": (changed(index={"factory": "Flatt"}), "index.factory", "'Flatt'", "use auto, Flat, HNSW32"),
    "uri and sql": (
        changed(jobs=job(questions={"uri": "q.jsonl", "sql": "SELECT 1"})),
        "jobs.daily.questions.uri",
        "q.jsonl",
        "give exactly one of uri and sql",
    ),
    "neither uri nor sql": (
        changed(jobs=job(questions={})),
        "jobs.daily.questions.uri",
        "",
        "give exactly one of uri and sql",
    ),
    "answers without questions": (
        changed(jobs=job(questions=None)),
        "jobs.daily.questions",
        "",
        "is missing; kind answers needs it",
    ),
    "questions of a job that asks none": (
        changed(jobs=job(kind="summaries")),
        "jobs.daily.questions",
        "",
        "give questions only for kind answers",
    ),
    "summaries of a job that answers": (
        changed(jobs=job(summaries={"scope": "corpus"})),
        "jobs.daily.summaries",
        "",
        "set kind: summaries",
    ),
    "credentials for a query": (
        changed(jobs=job(questions={"sql": "SELECT 1", "connection_id": "aws"})),
        "jobs.daily.questions.sql",
        "'SELECT 1'",
        "leave them out",
    ),
    "two sources of credentials": (
        changed(store={"storage_options": {"anon": True}, "connection_id": "aws"}),
        "store.connection_id",
        "'aws'",
        "give only one of the two",
    ),
    "duckdb without a file": (
        changed(jobs=job(warehouse={})),
        "jobs.daily.warehouse.destination",
        "",
        "set database",
    ),
    "duckdb with a connection": (
        changed(jobs=job(warehouse={"database": "a.duckdb", "connection_id": "pg"})),
        "jobs.daily.warehouse.destination",
        "",
        "set database",
    ),
    "postgres without a server": (
        changed(jobs=job(warehouse={"destination": "postgres"})),
        "jobs.daily.warehouse.destination",
        "'postgres'",
        "set database or connection_id",
    ),
    "postgres with a file": (
        changed(jobs=job(warehouse={"destination": "postgres", "database": "a.duckdb"})),
        "jobs.daily.warehouse.database",
        "",
        "write it as postgresql://",
    ),
    "source listed twice": (changed(source={"uris": ["a", "./a/"]}), "source.uris", "a", "name it once"),
    "clues listed twice": (changed(jobs=job(clues=["spans", "spans"])), "jobs.daily.clues", "spans", "name it once"),
    "password in a URI": (
        changed(source={"uris": ["https://me:hush@host/docs"]}),
        "source.uris.0",
        "https://…@host/…",
        "give it in storage_options",
    ),
    "cron with four fields": (changed(schedule="0 2 * *"), "schedule", "'0 2 * *'", "five fields"),
    "cron out of range": (changed(schedule="0 25 * * *"), "schedule", "'0 25 * * *'", "'25' is no hour: use 0-23"),
    "cron preset unknown": (changed(schedule="@nightly"), "schedule", "'@nightly'", "@daily"),
    "cron of a job": (changed(jobs=job(schedule="x * * * *")), "jobs.daily.schedule", "", "'x' is no minute"),
    "gate without bounds": (
        changed(evaluation={"questions": {"uri": "gate.jsonl"}}),
        "evaluation.minimum",
        "",
        "give a least score for a metric",
    ),
    "gate with an unknown metric": (
        changed(evaluation={"questions": {"uri": "gate.jsonl"}, "minimum": {"f1": 0.5}}),
        "evaluation.minimum.f1",
        "'f1'",
        "should be 'exact_match', 'token_f1'",
    ),
    "gate with a percentage": (
        changed(evaluation={"questions": {"uri": "gate.jsonl"}, "max_drop": {"token_f1": 5}}),
        "evaluation.max_drop.token_f1",
        "5",
        "less than or equal to 1",
    ),
    "unset variable": (
        changed(store={"uri": "s3://${MEMORAG_NO_SUCH}/kb"}),
        "store.uri",
        "${MEMORAG_NO_SUCH}",
        "set MEMORAG_NO_SUCH, or write ${MEMORAG_NO_SUCH:-default}",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_key_is_named_with_value_line_and_fix(write: Write, name: str) -> None:
    text, key, value, fix = WRONG[name]
    path = write(text)
    found = [
        problem for problem in problems_of(path) if problem.key == key and fix in f"{problem.problem} {problem.fix}"
    ]
    assert len(found) == 1, problems_of(path)
    assert value in str(found[0])
    assert f"{path}:{found[0].line}: {key}: " in str(found[0]) or found[0].line is None
    # The line is that of the key, or of the nearest section above one that is not there.
    there, values = "", yaml.safe_load(text)
    for part in key.split("."):
        if not isinstance(values, dict) or part not in map(str, values):
            break
        there, values = part, {str(name): below for name, below in values.items()}[part]
    if there:
        assert found[0].line is not None
        assert re.match(rf" *('?{there}'?:|- )", text.splitlines()[found[0].line - 1])


@pytest.mark.parametrize("name", WRONG)
def test_only_what_is_wrong_is_refused(write: Write, name: str) -> None:
    text, key, _, _ = WRONG[name]
    assert {problem.key for problem in problems_of(write(text))} == {key}


FILES = {
    "not YAML": ("corpus: [a\nsource: {", "is not YAML"),
    "tab": ("corpus:\n\tname: x", "is not YAML"),
    "python object": ("corpus: !!python/object/apply:os.getcwd []", "has a tag"),
    "two documents": ("corpus: a\n---\ncorpus: b\n", "is not YAML"),
    "list": ("- corpus\n- source\n", "is a list, not a mapping"),
    "text": ("hello", "is a str, not a mapping"),
    "empty": ("", "is empty"),
    "only comments": ("# nothing\n", "is empty"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_mapping_is_refused(write: Write, name: str) -> None:
    text, problem = FILES[name]
    (found,) = problems_of(write(text))
    assert problem in found.problem and found.fix


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_bytes(b"corpus: \xff\xfe")
    assert "is not YAML" in problems_of(path)[0].problem


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in problems_of(tmp_path / "none.yaml")[0].problem
    assert "directory" in problems_of(tmp_path)[0].problem


def test_a_key_given_twice_is_refused_with_both_lines(write: Write) -> None:
    (problem,) = problems_of(write(MINIMAL + "memory:\n  model: package:other\n"))
    assert (problem.key, problem.line) == ("memory", 10)
    assert "twice, first on line 6" in problem.problem
    (problem,) = problems_of(write(MINIMAL.replace("  uri: store\n", "  uri: store\n  uri: other\n")))
    assert (problem.key, problem.line) == ("store.uri", 6)


def test_the_line_of_a_yaml_error_is_given_without_its_text(write: Write) -> None:
    (problem,) = problems_of(write('corpus: topics\nstore:\n  password: "hunter2\n'))
    assert "hunter2" not in str(problem)
    assert problem.line is not None and problem.line >= 3


def test_all_problems_are_found_at_once_in_order_of_lines(write: Write) -> None:
    text = """\
corpus: Topics
source: {uris: [a, 5], includes: ["**"]}
store: {}
chunking: {max_tokens: 300}
sharding: {max_tokens: 8192, min_tokens: 5000}
memory: {window: 1000, ratio: [3, 7], kind: beam}
embedding: {pooling: max}
schedule: "61 * * * *"
jobs:
  daily:
    questions: {}
    warehouse: {destination: postgres}
    evidence: many
"""
    found = [problem.key for problem in problems_of(write(text))]
    assert found == [
        "corpus",
        "source.uris.1",
        "source.includes",
        "store.uri",
        "chunking.max_tokens",
        "sharding.min_tokens",
        "memory.kind",
        "memory.model",
        "memory.ratio",
        "embedding.model",
        "embedding.pooling",
        "schedule",
        "jobs.daily.questions.uri",
        "jobs.daily.warehouse.destination",
        "jobs.daily.evidence",
    ]


def test_a_rule_is_not_applied_to_a_value_that_is_wrong_itself(write: Write) -> None:
    text = changed(chunking={"max_tokens": "many"}, embedding={"max_tokens": 64})
    assert [problem.key for problem in problems_of(write(text))] == ["chunking.max_tokens"]


def test_no_secret_is_shown(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_TEST_SECRET", "hunter2")
    text = changed(
        source={"storage_options": "hunter2", "secret": "hunter2", "exclude": {"key": "hunter2"}},
        store={"storage_options": {"key": "hunter2", "secret": "hunter2"}, "connection_id": "aws"},
        memory={"window": "${MEMORAG_TEST_SECRET}"},
        compute={"queue": [{"password": "hunter2"}], "pool_slots": "postgres://me:hunter2@host/db"},
        jobs=job(warehouse={"destination": "postgres", "database": "hunter2"}),
    )
    with pytest.raises(SpecError) as caught:
        read_spec(write(text))
    assert len(caught.value.problems) == 8
    assert "hunter2" not in str(caught.value)
    assert "${MEMORAG_TEST_SECRET}" in str(caught.value)


def test_a_spec_shows_no_secret_when_it_is_printed(write: Write) -> None:
    spec = read_spec(
        write(
            changed(
                store={"storage_options": {"secret": "hunter2"}},
                jobs=job(warehouse={"destination": "postgres", "database": "postgresql://me:hunter2@host/db"}),
            )
        )
    )
    assert spec.store.storage_options == {"secret": "hunter2"}
    assert "hunter2" not in repr(spec)
    assert "hunter2" not in json.dumps(spec.content())


def test_variables_are_put_in_and_have_defaults(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_TEST_BUCKET", "kb")
    spec = read_spec(
        write(changed(store={"uri": "s3://${MEMORAG_TEST_BUCKET}/x"}, memory={"window": "${MEMORAG_NO_SUCH:-256}"}))
    )
    assert spec.store.uri == "s3://kb/x"
    assert spec.memory.window == 256


def test_uris_and_hub_ids_are_left_as_they_are(write: Write, tmp_path: Path) -> None:
    spec = read_spec(
        write(
            changed(
                source={"uris": ["s3://bucket/docs", "memory://docs", "../docs"]},
                memory={
                    "model": "org/name",
                    "revision": "main",
                    "kind": "beacon",
                    "adapter": "adapters/one.safetensors",
                },
                embedding={"model": "./models/minilm"},
            )
        )
    )
    assert spec.source.uris == ["s3://bucket/docs", "memory://docs", str(tmp_path.parent / "docs")]
    assert spec.memory.model == "org/name"
    assert spec.memory.adapter == str(tmp_path / "adapters" / "one.safetensors")
    assert spec.embedding.model == str(tmp_path / "models" / "minilm")


def test_yaml_merges_are_read_as_yaml_means_them(write: Write) -> None:
    text = (
        MINIMAL
        + "jobs:\n  daily: &job\n"
        + "\n".join(JOB.splitlines()[2:])
        + "\n  weekly:\n    <<: *job\n    evidence: 8\n"
    )
    spec = read_spec(write(text))
    assert spec.job("weekly").evidence == 8
    assert spec.job("weekly").questions == spec.job("daily").questions


def test_a_spec_made_in_python_obeys_the_same_rules() -> None:
    values = yaml.safe_load(MINIMAL)
    values["memory"] |= {"ratio": 3, "sink": 4}
    values["chunking"] = {"max_tokens": 300}
    with pytest.raises(ValidationError) as caught:
        CorpusSpec.model_validate(values)
    assert "ratio: needs a compressing memory" in str(caught.value)
    assert "sink: has no use in a memory that keeps every token" in str(caught.value)


def test_a_refresh_is_given_by_its_mode_or_as_a_section(write: Write) -> None:
    assert read_spec(write(MINIMAL)).refresh == RefreshSpec(mode="exact", max_stale=0.2, purge=[])
    assert read_spec(write(MINIMAL + "refresh: delta\n")).refresh == RefreshSpec(mode="delta")
    section = "refresh: {mode: delta, max_stale: 0.1, purge: ['**/a.md', 's3://b/c/**']}\n"
    assert read_spec(write(MINIMAL + section)).refresh.purge == ["**/a.md", "s3://b/c/**"]
    for wrong, problem in (
        ("detla", "refresh.mode: should be 'exact' or 'delta' (found 'detla')"),
        ("{max_stale: 0.5}", "refresh.max_stale: has no use in mode exact (found 0.5)"),
        ("{mode: delta, max_stale: 1}", "refresh.max_stale: should be less than 1"),
        ("{purge: ['a**b']}", "refresh.purge.0: Invalid pattern"),
    ):
        (found,) = problems_of(write(f"{MINIMAL}refresh: {wrong}\n"))
        assert problem in str(found)


def test_the_mode_purge_and_staleness_of_a_refresh_decide_what_a_version_holds(write: Write) -> None:
    forms = ("", "refresh: delta", "refresh: {mode: delta, max_stale: 0.1}", "refresh: {purge: ['**/a.md']}")
    assert len({read_spec(write(f"{MINIMAL}{form}\n")).fingerprint() for form in forms}) == 4


def test_the_mode_of_a_job_and_its_clues_fit(write: Write) -> None:
    def job(keys: str) -> str:
        return MINIMAL + JOB.rstrip("\n") + "\n" + "".join(f"    {key}\n" for key in keys.split("; "))

    found = read_spec(write(job("mode: memory_only; only_changed: true"))).job("daily")
    assert (found.mode, found.only_changed, found.offer_draft) == ("memory_only", True, False)
    assert read_spec(write(job("clues: [draft]; offer_draft: true"))).job("daily").offer_draft
    for keys, problem in (
        ("mode: retrieval_only; clues: [draft]", "clues: has no use in mode retrieval_only, which recalls no clues"),
        ("offer_draft: true", "offer_draft: is set, but no draft is recalled"),
        ("mode: memory; clues: []", "mode: should be 'memorag', 'memory_only' or 'retrieval_only'"),
    ):
        (wrong,) = problems_of(write(job(keys)))
        assert problem in str(wrong)


@pytest.mark.parametrize(
    "key",
    (
        "mode: memory_only",
        "clues: [spans]",
        "clues: []",
        "only_changed: true",
        "clue_tokens: 32",
        "shards_per_question: 1",
        "evidence: 8",
    ),
)
def test_what_only_answers_have_is_refused_in_a_job_of_summaries(write: Write, key: str) -> None:
    job = "jobs:\n  nightly:\n    kind: summaries\n    warehouse: {database: a.duckdb}\n"
    assert read_spec(write(MINIMAL + job)).job("nightly").kind == "summaries"
    (wrong,) = problems_of(write(f"{MINIMAL}{job}    {key}\n"))
    assert f"{key.split(':')[0]}: has no use for kind summaries" in str(wrong)
    assert "use kind answers" in str(wrong)


def test_an_unknown_job_is_answered_with_the_known_ones(write: Write) -> None:
    with pytest.raises(NotFoundError, match="no job 'weekly'; its jobs: daily"):
        read_spec(write(MINIMAL + JOB)).job("weekly")


def test_only_what_decides_the_content_is_in_the_fingerprint(write: Write) -> None:
    plain = read_spec(write(MINIMAL)).fingerprint()
    elsewhere = changed(store={"uri": "other"}, compute={"queue": "gpu"}, schedule="@daily", description="x")
    assert read_spec(write(elsewhere)).fingerprint() == plain
    assert read_spec(write(changed(memory={"budget_mib": 512}))).fingerprint() == plain
    assert not {"context", "rope_scaling"} & read_spec(write(MINIMAL)).content()["memory"].keys(), (
        "as before these keys"
    )
    assert read_spec(write(changed(memory={"context": 9000}))).fingerprint() != plain, "what is asked needs it"
    assert read_spec(write(changed(memory={"window": 512}))).fingerprint() != plain
    assert read_spec(write(changed(memory={"codec": "int8"}))).fingerprint() != plain
    assert read_spec(write(changed(chunking={"max_tokens": 100}))).fingerprint() != plain


cron_field = st.one_of(
    st.just("*"),
    st.integers(0, 61).map(str),
    st.sampled_from(["mon", "SUN", "jan", "Dec", "x", "", "L", "?"]),
    st.tuples(st.integers(0, 61), st.integers(0, 61)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.tuples(st.sampled_from(["*", "1-9", "2"]), st.integers(0, 70)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)
cron = st.lists(st.lists(cron_field, min_size=1, max_size=3).map(",".join), min_size=4, max_size=6).map(" ".join)


@settings(max_examples=500, deadline=None)
@given(cron)
def test_every_accepted_schedule_is_one_for_airflow(expression: str) -> None:
    croniter = pytest.importorskip("croniter").croniter
    try:
        check_cron(expression)
    except ValueError:
        return
    assert croniter.is_valid(expression)


@pytest.mark.parametrize(
    "expression",
    ["0 2 * * *", "*/15 8-18 * * mon-fri", "0 0 1,15 jan,jul *", "30 4 1-7/2 */3 0", "0 0 * * 7", *PRESETS],
)
def test_usual_schedules_are_accepted(expression: str) -> None:
    assert check_cron(expression) == expression


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "60 * * * *", "5-1 * * * *", "*/0 * * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5/2 * * * *"],
)
def test_wrong_schedules_are_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"five fields|is no "):
        check_cron(expression)


def test_the_questions_of_a_gate_are_found_from_the_folder_of_the_spec(write: Write) -> None:
    gate = "evaluation: {questions: {uri: gate.jsonl, connection_id: aws}, minimum: {token_f1: 0.1}}"
    path = write(MINIMAL + gate)
    found = read_spec(path).evaluation
    assert found is not None
    assert (found.questions.uri, found.questions.connection_id) == (str(path.parent / "gate.jsonl"), "aws")
    assert found.channel == "production"


def test_the_exported_schema_is_current() -> None:
    exported = (REPOSITORY / "docs" / "corpus-spec.schema.json").read_text(encoding="utf-8")
    assert json.loads(exported) == json_schema(), "run `make schema`"


def test_the_reference_names_every_key_with_its_default() -> None:
    page = (REPOSITORY / "docs" / "corpus-spec.md").read_text(encoding="utf-8")
    assert page.endswith(markdown()), "put the output of `memorag schema --markdown` at the end of docs/corpus-spec.md"


def test_the_examples_of_the_reference_are_valid(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (REPOSITORY / "docs" / "corpus-spec.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert examples
    for example in examples:
        for name in re.findall(r"\$\{(\w+)\}", example):
            monkeypatch.setenv(name, "postgresql://value")
        read_spec(write(example))


def test_every_key_has_a_description() -> None:
    definitions = [json_schema(), *json_schema()["$defs"].values()]
    bare = [
        f"{section['title']}.{key}"
        for section in definitions
        for key, value in section["properties"].items()
        if "description" not in value and "$ref" not in value
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        (MINIMAL + "index:\n  factory: Flat\n    device: cpu\n", 12, "correct the indent"),
        (MINIMAL + "index:\n  factory: Flat\n device: cpu\n", 12, "correct the indent"),
        (MINIMAL + "index:\n\tfactory: Flat\n", 11, "indent with spaces"),
        (MINIMAL + "index: [a\n", 11, "put a text with special characters in quotes"),
    ],
)
def test_a_wrong_indent_is_told_as_such(write: Write, text: str, line: int, fix: str) -> None:
    (problem,) = problems_of(write(text))
    assert (problem.line, fix in problem.fix) == (line, True), problem


def test_keys_of_ones_own_at_the_top_are_a_place_for_anchors(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEY", "hunter2")
    lake = 'x-lake: &lake {endpoint_url: "http://127.0.0.1:8333", key: "${LAKE_KEY}"}\n'
    text = lake + MINIMAL.replace("uris: [source]", "uris: [source]\n  storage_options: *lake")
    spec = read_spec(write(text.replace("uri: store", "uri: store\n  storage_options: *lake")))
    assert spec.source.storage_options == spec.store.storage_options
    assert spec.store.storage_options == {"endpoint_url": "http://127.0.0.1:8333", "key": "hunter2"}
    (problem,) = problems_of(write(MINIMAL.replace("uris: [source]", "uris: [source]\n  x-lake: 1")))
    assert problem.key == "source.x-lake"  # only at the top
    assert json_schema()["patternProperties"] == {"^x-": {}}
