"""Progress is shown as bars on a terminal and as plain lines elsewhere, and never disturbs the work."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from memorag_pipeline import progress
from memorag_pipeline.cli.progress_bars import reporter_for
from memorag_pipeline.progress import LogReporter, rate_text, track


@pytest.fixture(autouse=True)
def default_reporter() -> Iterator[None]:
    yield
    progress.install(LogReporter())


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def output_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", console.file.getvalue())


def test_a_terminal_shows_done_total_rate_and_time() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with track("documents", 2000, "documents") as bar:
        bar.advance(500)
        bar.advance(1500)
    last = output_of(console).strip().splitlines()[-1]
    assert "documents" in last
    assert "2,000/2,000 documents" in last
    assert re.search(r"[\d,.]+ documents/s", last)
    assert re.search(r"in \d+\.\d s", last)


def test_time_left_is_estimated_while_a_bar_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with track("tokens", 100, "tokens") as bar:
        threading.Event().wait(0.3)
        bar.advance(10)
        threading.Event().wait(0.3)  # one frame at ten per second
    assert re.search(r"10/100 tokens +[\d.]+ tokens/s +[\d.]+ s left", output_of(console))


def test_bars_in_a_row_all_stay_on_the_screen() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    for name in ("documents", "chunks", "questions"):
        with track(name, 3, name) as bar:
            bar.advance(3)
    lines = output_of(console).strip().splitlines()
    assert [name for name in ("documents", "chunks", "questions") if any(f"3/3 {name}" in line for line in lines)] == [
        "documents",
        "chunks",
        "questions",
    ]


def test_a_bar_inside_another_is_drawn_with_it() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with track("shards", 1, "shards") as outer:
        with track("tokens", 10, "tokens") as inner:
            inner.advance(10)
        outer.advance()
    last = output_of(console).rstrip().splitlines()[-2:]
    assert "1/1 shards" in last[0]
    assert "10/10 tokens" in last[1]


def test_a_bar_of_unknown_length_ends_full_and_one_without_work_disappears() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with track("listed", None, "objects") as bar:
        bar.advance(7)
    assert "7/7 objects" in output_of(console).splitlines()[-1]
    console = terminal()
    progress.install(reporter_for(console))
    with track("embedded", 0, "chunks"):
        pass
    assert isinstance(console.file, io.StringIO)
    after_the_last_erased_line = console.file.getvalue().rpartition("\x1b[2K")[2]
    assert after_the_last_erased_line and "chunks" not in after_the_last_erased_line


def test_an_error_passes_through_and_leaves_the_bar_where_it_was() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with pytest.raises(RuntimeError, match="parser"), track("documents", 9, "documents") as bar:
        bar.advance(4)
        raise RuntimeError("parser")
    assert "4/9 documents" in output_of(console)
    with track("chunks", 1, "chunks") as bar:
        bar.advance()
    assert "1/1 chunks" in output_of(console)


def test_threads_may_share_a_bar() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with track("blobs", 400, "blobs") as bar:
        threads = [threading.Thread(target=lambda: [bar.advance() for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "400/400 blobs" in output_of(console)


def test_without_a_terminal_each_piece_of_work_is_one_plain_line() -> None:
    console = plain()
    progress.install(reporter_for(console))
    with track("tokens memorized", 4096, "tokens") as bar:
        bar.advance(4096)
    with track("chunks embedded", 0, "chunks"):
        pass
    (line,) = output_of(console).splitlines()
    assert re.fullmatch(r"tokens memorized: 4,096 of 4,096 tokens, [\d,.]+ tokens/s, [\d.]+ s", line)


def test_long_work_without_a_terminal_speaks_now_and_then() -> None:
    lines: list[str] = []
    progress.install(LogReporter(interval=0.05, write=lines.append))
    with track("documents", 4, "documents") as bar:
        for _ in range(4):
            threading.Event().wait(0.06)
            bar.advance()
    assert len(lines) == 5
    assert re.fullmatch(r"documents: 1 of 4 documents, [\d.]+ documents/s, \d+ s left", lines[0])
    assert "left" not in lines[-1]


def test_what_an_earlier_run_did_counts_as_done_and_not_for_the_rate() -> None:
    lines: list[str] = []
    progress.install(LogReporter(interval=0.0, write=lines.append))
    with track("train", 1_000_000, "tokens") as bar:
        bar.skip(999_000)
        threading.Event().wait(0.1)
        bar.advance(500)
    speaking, last = lines
    rate = float(re.search(r"([\d,.]+) tokens/s", speaking)[1].replace(",", ""))  # type: ignore[index]
    assert speaking.startswith("train: 999,500 of 1,000,000 tokens")
    assert rate <= 5000
    assert last.startswith("train: 999,500 of 1,000,000 tokens")
    lines.clear()
    with track("train", 1000, "tokens") as bar:
        bar.skip(1000)
    assert lines == []


def test_a_terminal_rates_what_was_done_since() -> None:
    console = terminal()
    progress.install(reporter_for(console))
    with track("train", 1_000_000, "tokens") as bar:
        bar.skip(999_000)
        for _ in range(3):
            threading.Event().wait(0.1)
            bar.advance(100)
    shown = re.findall(r"(\d[\d,]*)/1,000,000 tokens +([\d,.]+) tokens/s", output_of(console))
    assert shown[-1][0] == "999,300"
    assert all(float(rate.replace(",", "")) <= 3000 for _, rate in shown)
    assert re.search(r"999,\d00/1,000,000 tokens .* [\d.]+ s left", output_of(console))


def test_slow_rates_keep_digits_that_count() -> None:
    assert rate_text(1234.56, "tokens") == "1,234.6 tokens/s"
    assert rate_text(0.01875, "questions") == "0.019 questions/s"


def test_workers_report_to_their_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "memorag_pipeline.progress"), track("documents", 2, "documents") as bar:
        bar.advance(2)
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == ["documents: 2 of 2 documents"]


@pytest.mark.parametrize("console", [terminal(), plain()], ids=["terminal", "log"])
def test_bytes_are_shown_per_second_beside_the_rate(console: Console) -> None:
    progress.install(reporter_for(console))
    with track("documents", 2, "documents") as bar:
        bar.read(3_000_000)
        bar.advance(2)
    with track("chunks", 2, "chunks") as bar:
        bar.advance(2)
    shown = output_of(console)
    assert re.search(r"[\d,.]+ documents/s, [\d,.]+ MB/s", shown)
    assert not re.search(r"chunks/s, [\d,.]+ MB/s", shown)
