"""Channels: named pointers with a history."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.storage import CorpusStore, Manifest
from tests.storage.conftest import Root


@pytest.fixture
def versions(store: CorpusStore, make_manifest: Callable[..., Manifest]) -> CorpusStore:
    """A store with versions 1 to 3."""
    for text in (b"one", b"two", b"three"):
        store.versions.publish(make_manifest(documents=text), "run")
    return store


def test_a_channel_points_to_the_last_promoted_version_and_keeps_its_history(versions: CorpusStore) -> None:
    channels = versions.channels
    assert channels.names() == []
    for version, why in ((1, "first"), (3, "better"), (1, "roll back")):
        record = channels.promote("production", version, by="ann", why=why)
        assert channels.version("production") == version
        assert (record.version, record.by, record.why) == (version, "ann", why)
    channels.promote("staging", 2, by="bob", why="to try")
    assert channels.names() == ["production", "staging"]
    assert [(r.version, r.why) for r in channels.history("production")] == [
        (1, "first"),
        (3, "better"),
        (1, "roll back"),
    ]
    moments = [record.since for record in channels.history("production")]
    assert moments == sorted(moments)


def test_promotions_at_once_are_all_kept(root: Root, versions: CorpusStore) -> None:
    gate = threading.Barrier(6)

    def promote(number: int) -> None:
        own = CorpusStore(*root)
        gate.wait()
        own.channels.promote("production", number % 3 + 1, by=f"user-{number}", why="race")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(promote, range(6)))
    assert sorted(record.by for record in versions.channels.history("production")) == [f"user-{n}" for n in range(6)]


def test_an_unknown_channel_or_version_is_told_with_those_that_exist(versions: CorpusStore) -> None:
    versions.channels.promote("production", 1, by="ann", why="first")
    with pytest.raises(NotFoundError, match=r"no channel 'prod'; it has: production"):
        versions.channels.version("prod")
    with pytest.raises(NotFoundError, match=r"no version 9; it has: 1, 2, 3"):
        versions.channels.promote("production", 9, by="ann", why="typing error")
    assert versions.channels.version("production") == 1


@pytest.mark.parametrize("name", ["../versions", "a/b", "", "X", "."])
def test_a_name_that_cannot_be_a_channel_is_refused(versions: CorpusStore, name: str) -> None:
    with pytest.raises(NotFoundError, match="cannot be a channel"):
        versions.channels.promote(name, 1, by="ann", why="x")
    with pytest.raises(NotFoundError, match="cannot be a channel"):
        versions.channels.version(name)


def test_an_altered_record_is_named(versions: CorpusStore) -> None:
    versions.channels.promote("production", 1, by="ann", why="first")
    (key,) = versions.objects.list("channels")
    versions.objects.put(key, b"{}")
    with pytest.raises(CorruptBlobError, match=f"{key} was altered"):
        versions.channels.version("production")
