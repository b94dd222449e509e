"""Whatever a spec file holds, it is read or refused by name: quickly, and with nothing but `SpecError`."""

from __future__ import annotations

import os
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import SpecError
from memorag_pipeline.specs.bounded_yaml import DEEPEST, MOST_NODES
from memorag_pipeline.specs.corpus import CorpusSpec, read_spec
from memorag_pipeline.specs.file import LARGEST
from memorag_pipeline.specs.reader import examine, read
from memorag_pipeline.specs.training import TrainingSpec

REPOSITORY = Path(__file__).parents[2]
FIELD_SPECS = REPOSITORY.parent / "shared" / "data" / "field" / "dev" / "specs"
GOOD = """\
corpus: topics
source: {uris: [source]}
store: {uri: store}
memory: {model: package:smollm2-135m-instruct}
embedding: {model: package:all-minilm-l6-v2}
"""
LETTERS = "abcdefghij"


def problem_of(text: str | bytes, folder: Path) -> str:
    path = folder / "corpus.yaml"
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    told = str(caught.value)
    told.encode("utf-8")
    return told.replace(str(path), "corpus.yaml")


ODD = {
    "null as a key": (GOOD + "compute: {~: 1}", "corpus.yaml:6: compute.~: is not a key of the spec"),
    "float as a key": (GOOD + "jobs: {1.5: {}}", "jobs.1.5: is not a name (found '1.5')"),
    "date as a key": (GOOD + "jobs: {2024-01-01: {}}", "jobs.2024-01-01.warehouse: is missing"),
    "truth as a key": (GOOD + "store: {yes: 1}".replace("store", "index"), "index.yes: is not a key of the spec"),
    "list as a key": (GOOD + "? [a]\n: 1", "corpus.yaml:6: has a key that is a list or a mapping"),
    "jobs with names of keys": (GOOD + "jobs: {questions: {}, '[key]': {}}", "jobs.questions.warehouse: is missing"),
    "empty name": (GOOD + "jobs: {'': {}}", "jobs.: is not a name"),
    "home of nobody": (GOOD.replace("[source]", "[~nouser/x]"), "corpus.yaml:2: source.uris.0: is not a path"),
    "end of a C string": (GOOD.replace("[source]", r'["a\0b"]'), "corpus.yaml:2: contains the character U+0000"),
    "half a surrogate": (GOOD + r'description: "\ud800"', "corpus.yaml:6: contains the character U+D800"),
    "half a surrogate as a key": (GOOD + r'"\udfff": 1', "contains the character U+DFFF"),
    "cycle": (
        GOOD + "index: &a {factory: *a}",
        "has an alias (*name) without an anchor before it, or inside its own anchor",
    ),
    "cycle of a merge": (GOOD + "index: &a {<<: *a}", "has an alias (*name)"),
    "undefined alias": (GOOD + "index: *hunter2", "has an alias (*name)"),
    "nested lists": (GOOD + "index: " + "[" * 600 + "]" * 600, f"is nested more than {DEEPEST} deep"),
    "nested thousands deep": (GOOD + "index: " + "[" * 60_000, f"is nested more than {DEEPEST} deep"),
    "nested in lines": ("\n".join(" " * n + "a:" for n in range(480)), f"is nested more than {DEEPEST} deep"),
    "nested by aliases": (
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))]),
        f"is nested more than {DEEPEST} deep",
    ),
    "alias bomb": (
        "a: &a [" + "x," * 9 + "]\n" + "\n".join(f"{b}: &{b} [{f'*{a},' * 9}]" for a, b in pairwise(LETTERS)),
        f"corpus.yaml:5: has more than {MOST_NODES:,} values",
    ),
    "merge bomb": (
        "a: &a {x: 1, y: 2}\n" + "\n".join(f"{b}: &{b} {{<<: [{f'*{a},' * 9}]}}" for a, b in pairwise(LETTERS)),
        f"has more than {MOST_NODES:,} values",
    ),
    "long list": (GOOD + "description: [" + "1," * 60_000 + "]", f"has more than {MOST_NODES:,} values"),
    "long file": (GOOD + "#" * LARGEST, f"has more than {LARGEST:,} bytes"),
    "long key": (GOOD + "k" * 999 + ": 1", "has a key of more than 256 characters"),
    "endless number": (GOOD + "schedule: " + "1:" * 50_000 + "1", "schedule: not a cron expression"),
    "number beyond numbers": (
        GOOD + "refresh: {max_stale: " + "1:" * 300 + "1.5}",
        "refresh.max_stale: should be a num",
    ),
    "number of many digits": (GOOD + "refresh: {max_stale: " + "9" * 5000 + "}", "refresh.max_stale: should be"),
    "number without digits": (GOOD + "schedule: 0x_", "corpus.yaml:6: looks like a number but is not one"),
    "set": (GOOD + "index: !!set {a}", "has a tag (!name)"),
    "number by a tag": (GOOD + 'index: !!int ""', "has a tag (!name)"),
    "many problems": (GOOD + "\n".join(f"k{n}: 1" for n in range(4000)), "has more problems than these"),
    "not UTF-8": (b"corpus: caf\xe9s", "is not YAML: invalid continuation byte at byte 12"),
    "UTF-16": (GOOD.encode("utf-16"), "is not YAML: invalid start byte at byte 1"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_spec_is_refused_by_name(tmp_path: Path, name: str) -> None:
    text, problem = ODD[name]
    told = problem_of(text, tmp_path)
    assert problem in told
    assert len(told) < 40_000 and "hunter2" not in told


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_no_number_of_a_spec_is_endless(tmp_path: Path, number: str) -> None:
    floats = [
        f"{place}.{name}" if place else name
        for place, section in (("source", "SourceSpec"), ("refresh", "RefreshSpec"), ("watch", "WatchSpec"))
        for name, value in CorpusSpec.model_json_schema()["$defs"][section]["properties"].items()
        if value.get("type") in ("number", "integer")
    ]
    assert {"source.max_document_mb", "source.timeout_seconds", "source.max_pages", "watch.every_seconds"} <= set(
        floats
    )
    for key in floats:
        section, _, name = key.partition(".")
        text = GOOD.replace("[source]}", f"[source], {name}: {number}}}") if section == "source" else None
        told = problem_of(text or f"{GOOD}{section}: {{{name}: {number}}}\n", tmp_path)
        assert f"{key}: should be a finite number (found {number.replace('.', '', 1)})" in told


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("source", "max_document_mb"),
        ("source", "timeout_seconds"),
        ("store", "retention"),
        ("alerts", "deadline_minutes"),
    ],
)
def test_no_number_is_too_large_to_be_worked_with(tmp_path: Path, section: str, key: str) -> None:
    value = "{grace_days: 1.0e+308}" if key == "retention" else "1.0e+308"
    text = re.sub(rf"^{section}: {{", f"{section}: {{{key}: {value}, ", GOOD + "alerts: {on: [failure]}\n", flags=re.M)
    assert f"{section}.{key}" in (told := problem_of(text, tmp_path)) and "should be less than or equal to" in told


def test_keys_are_texts_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(
        GOOD + "alerts: {on: [success], deadline_minutes: 5}\n"
        "compute: {kubernetes: {env: {ON: x, NULL: y}, node_selector: {yes: a, 5: b}}}\n",
        encoding="utf-8",
    )
    spec = read_spec(path)
    assert spec.alerts is not None and spec.alerts.on == ["success"]
    assert spec.compute.kubernetes is not None
    assert spec.compute.kubernetes.env == {"ON": "x", "NULL": "y"}
    assert spec.compute.kubernetes.node_selector == {"yes": "a", "5": "b"}


def test_anchors_and_dates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(GOOD.replace("topics", "2024-01-01").replace("[source]", "&u [source]"), encoding="utf-8")
    assert read_spec(path).corpus == "2024-01-01"


def test_what_the_environment_puts_in_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MEMORAG_TEST_NAME", "caf\udce9")
    told = problem_of(GOOD.replace("[source]", "['${MEMORAG_TEST_NAME}']"), tmp_path)
    assert "source.uris.0: contains the character U+DCE9" in told and "correct the environment variable" in told


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    device = tmp_path / "device.yaml"
    device.symlink_to("/dev/zero")
    for path, problem in ((pipe, "is a pipe"), (loop, "cannot be read"), (device, "is a pipe, a socket or a device")):
        with pytest.raises(SpecError, match=problem):
            read_spec(path)


# The sections that must be there come first.
FULL = """\
corpus: topics
source:
  uris: [source, s3://bucket/docs]
  include: ["**/*.rst"]
  max_document_mb: 8
  records: {include: ["*.json"], text: [body]}
  storage_options: {key: "${KEY:-a}", client_kwargs: {region_name: eu}}
store: {uri: s3://bucket/kb, retention: {last: 3, grace_days: 7}}
memory:
  kind: beacon
  model: org/name
  revision: main
  adapter: adapters/one.safetensors
  ratio: [2, 4]
  window: 128
embedding: {model: ./models/minilm, pooling: mean}
description: All of it.
language: en
chunking: {max_tokens: 100, overlap_tokens: 10}
sharding:
  max_tokens: 4096
  min_tokens: 64
refresh: {mode: delta, max_stale: 0.3, purge: ["**/a.md"]}
index: {factory: "IVF256,Flat"}
retrieval: {sparse: bm25, order: document}
prompts: prompts
generation:
  model: gpt
  endpoint:
    kind: azure
    base_url: https://host/v1
    api_version: 2024-10-21
    prices: {input: 1.5, output: 2}
schedule: "0 2 * * *"
watch: {every_seconds: 60}
maintenance: {schedule: "@weekly"}
alerts: {connection_id: slack, on: [failure, success], deadline_minutes: 90}
compute:
  queue: gpu
  kubernetes:
    image: registry/image:1
    env: {A: b}
    resources: {limits: {cpu: 4}}
    tolerations: [gpu=yes:NoSchedule]
warehouse: {database: runs.duckdb}
jobs:
  daily: &daily
    questions: {uri: questions.jsonl}
    warehouse: {database: answers.duckdb}
  weekly:
    <<: *daily
    schedule: "@weekly"
  reports:
    kind: summaries
    warehouse: {destination: postgres, database: "postgresql://me@host/db"}
    summaries: {scope: corpus, focus: why}
evaluation: {questions: {uri: gate.jsonl}, minimum: {token_f1: 0.1}}
"""

TOKENS = (
    *("~", "null", "true", "on", "no", ".inf", "-.nan", "1e999", "0x_", "-1", "0", "2024-01-01", "12:30:45.5"),
    *(
        "[]",
        "{}",
        "[[",
        "{{",
        "]",
        "}",
        ":",
        ": ",
        "- ",
        "? ",
        "&a ",
        "*a",
        "<<: *a",
        "!!set ",
        "!x ",
        "|",
        ">",
        "%",
        "@",
    ),
    *(
        "'",
        '"',
        '"\\0"',
        '"\\ud800"',
        '"\\x1b"',
        "\t",
        "\n",
        "\n  ",
        "---\n",
        "...\n",
        "#",
        "\ufeff",
        "\u2028",
        "é",
        "🦆",
    ),
    *("~nouser/x", "/", "..", "${HOME}", "${NO_SUCH}", "${X:-", "s3://k:hunter2@b", "https://hunter2@h/?sig=hunter2"),
    *(
        "questions",
        "memory",
        "[key]",
        "jobs",
        "corpus",
        "9" * 400,
        "a" * 300,
        "99 99 * * *",
        "@fortnightly",
        "IVF0,PQ0",
    ),
)


def mutant(lines: list[str], rng: random.Random) -> str:
    """A spec with one to four changes: of lines, of characters, of values, of indentation."""
    lines = list(lines)
    for _ in range(rng.randint(1, 4)):
        at, token = rng.randrange(len(lines)), rng.choice(TOKENS)
        line = lines[at]
        kind = rng.randrange(8)
        if kind == 0:
            del lines[at : at + rng.randint(1, 3)]
        elif kind == 1:
            lines.insert(at, rng.choice(lines))
        elif kind == 2:
            lines[at] = re.sub(r":.*", lambda _, token=token: f": {token}", line, count=1)
        elif kind == 3:
            lines[at] = re.sub(r"[\w~.-]+(?=:)", lambda _, token=token: token, line, count=1)
        elif kind == 4:
            lines[at] = " " * rng.randint(0, 9) + line.lstrip()
        elif kind == 5:
            place = rng.randint(0, len(line))
            lines[at] = line[:place] + token + line[place + rng.randint(0, 3) :]
        elif kind == 6:
            lines[at] = f"{line} {token}"
        else:
            place = rng.randint(0, len(line))
            lines[at] = line[:place] + chr(rng.choice([rng.randrange(1, 128), rng.randrange(1, 0xD800)])) + line[place:]
        lines = lines or [""]
    return "\n".join(lines)


@pytest.mark.parametrize(("kind", "mutants"), [(CorpusSpec, 2000), (TrainingSpec, 500)], ids=["corpus", "training"])
def test_no_mutant_of_a_good_spec_does_more_than_be_refused(tmp_path: Path, kind: type[Any], mutants: int) -> None:
    path = tmp_path / "mutant.yaml"
    training = (REPOSITORY / "dags" / "corpora" / "training" / "python_reference.yaml").read_text(encoding="utf-8")
    text = FULL if kind is CorpusSpec else training
    path.write_text(text, encoding="utf-8")
    assert examine(path, kind).problems == ()
    rng, refused = random.Random(20_260_101), 0
    sections = re.findall(r"^\w.*\n(?:^[ -].*\n)*", text, re.MULTILINE)
    for _ in range(mutants):
        # All that is required, and a few of the other sections: PyYAML takes most of the time.
        some = sections[:5] + rng.sample(sections[5:], min(3, len(sections) - 5)) if kind is CorpusSpec else sections
        path.write_text(mutant("".join(some).splitlines(), rng), encoding="utf-8", errors="surrogatepass")
        try:
            read(path, kind)
        except SpecError as error:
            refused += 1
            str(error).encode("utf-8")
            assert error.problems and "hunter2" not in str(error)
    assert mutants // 3 < refused < mutants


@pytest.mark.skipif(not FIELD_SPECS.is_dir(), reason="the odd specs of the field test are not here")
def test_the_odd_specs_of_the_field_are_read_or_refused() -> None:
    fine, told = set(), {}
    for path in sorted(FIELD_SPECS.glob("*.y*ml")):
        try:
            read_spec(path)
            fine.add(path.name)
        except SpecError as error:
            told[path.name] = str(error)
    assert {"a_good.yaml", "h_bom.yaml", "t_date.yaml"} <= fine
    assert f"has more than {MOST_NODES:,} values" in told["i_bomb.yaml"]
    assert "put it in quotes" in told["p_norway.yaml"]
    assert {"c_latin1.yaml", "d_tab.yaml", "e_empty.yaml", "f_list.yaml", "v_nul.yaml"} <= set(told)
