"""The plugin's pages when something is wrong: readable, with a way back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec
from tests.storage.conftest import manifest_of

pytest.importorskip("airflow")


def back(page: Any) -> str:
    """Where the link to the list of corpora leads."""
    found = re.search(r'href="([^"]*)">← all corpora', page.text)
    assert found is not None
    return str(page.url.join(found[1]))


def test_a_store_that_cannot_be_read_is_told_in_the_list_and_on_a_page_with_a_way_back(
    airflow_home: Path, source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec, pages: Any
) -> None:
    write_spec(make_spec(source))
    write_spec(make_spec(source, corpus="other"), "other")
    for corpus in ("topics", "other"):
        store = Pipeline(make_spec(source, corpus=corpus)).store
        store.versions.publish(manifest_of(store, index=b"one"), "run")
    store.objects.put(store.objects.list("versions")[0], b"7")

    listed = pages.get("/")
    assert listed.status_code == 200
    assert "store cannot be read" in listed.text.partition("other/")[2].partition("</tr>")[0]
    assert "store cannot be read" not in listed.text.partition("topics/")[2].partition("</tr>")[0]
    home = str(listed.url)

    page = pages.get("/other/")
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert "The store of this corpus cannot be read" in page.text and "was altered" in page.text
    assert back(page) == home
    for path in ("/unknown/", "/topics/runs/refresh/x", "/topics/runs/faq/20260102T030405Z-0123456789ab", "/a/b/c/d"):
        page = pages.get(path)
        assert page.status_code == 404 and "There is no such page" in page.text
        assert back(page) == home
