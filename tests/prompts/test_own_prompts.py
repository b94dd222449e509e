"""The user's own prompts on a real S3 server: changed ones are another version, broken ones are refused by their
URI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import s3fs
import yaml

from memorag_pipeline.preflight import check
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.prompts.texts import read_own, texts_for
from memorag_pipeline.specs.corpus import CorpusSpec


def test_a_folder_of_prompts_on_s3(
    s3_store: tuple[str, dict[str, Any]], make_tiny_spec: Callable[..., CorpusSpec]
) -> None:
    bucket, options = s3_store
    folder = f"{bucket}/prompts"
    writer = s3fs.S3FileSystem(**options, skip_instance_cache=True)  # another machine, as far as the reader can tell

    def write(name: str, texts: dict[str, str]) -> None:
        writer.pipe_file(f"{folder}/{name}", yaml.safe_dump(texts, allow_unicode=True).encode())

    def problems(uri: str) -> list[str]:
        spec = make_tiny_spec("source", prompts={"uri": uri, "storage_options": options})
        return [problem.problem for problem in check(spec, "kb.yaml") if problem.key == "prompts"]

    def version() -> str:
        return load_prompts("en", read_own(folder, options)).version

    recall, answer = texts_for("en", "recall"), texts_for("zh", "answer")
    write("en/recall.yaml", {**recall, "draft": "Write a draft for $question"})
    assert problems(folder) == []
    assert load_prompts("en", read_own(folder, options)).recall("draft", "Why?") == "Write a draft for Why?"
    versions = [load_prompts("en").version, version()]
    write("en/recall.yaml", {**recall, "draft": "Write another draft for $question"})
    versions.append(version())
    write("zh/answer.yaml", {**answer, "system": "只用给出的段落回答。"})  # a file that the first listing did not have
    versions.append(version())
    assert len(set(versions)) == 4

    write("zh/answer.yaml", {"system": "没有别的。"})
    assert problems(folder)
    assert all(f"{folder}/zh/answer.yaml" in problem for problem in problems(folder))
    (missing,) = problems(f"{bucket}/no-such-folder")
    assert f"{bucket}/no-such-folder: holds no prompts" in missing
    (unknown,) = problems("s3://no-such-bucket-here/prompts")
    assert "s3://no-such-bucket-here/prompts" in unknown
    writer.rm(folder, recursive=True)
