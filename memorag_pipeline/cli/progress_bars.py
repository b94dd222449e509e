"""Progress on a terminal: bars with done and total, rate and time left; plain lines without a terminal.

In:  a rich console (of stderr, so that stdout stays free for results).
Out: a reporter for `memorag_pipeline.progress.install`.
Wrong: never raises; see `progress`.
"""

from __future__ import annotations

import threading

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from memorag_pipeline.progress import Bar, LogReporter, Reporter, bytes_rate_text, rate_text


def reporter_for(console: Console) -> Reporter:
    """Bars if `console` is a terminal, otherwise a line every ten seconds and one at the end of each step."""
    if console.is_terminal:
        return RichReporter(console)
    return LogReporter(write=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


class RichBar:
    """One bar; may be advanced from any thread."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self.task = progress, task
        self._lock = threading.Lock()

    def advance(self, amount: float = 1) -> None:
        """Move the bar on by `amount` units."""
        with self._lock:
            self._progress.advance(self.task, amount)

    def skip(self, amount: float) -> None:
        """Advance the bar by what was done before."""
        with self._lock:
            task = self._progress.tasks[self._progress.task_ids.index(self.task)]
            task.completed += amount  # not by `advance` nor `update`, which would count it for the speed
            task.fields["skipped"] += amount

    def read(self, size: int) -> None:
        """Count bytes that the work took."""
        with self._lock:
            self._progress.tasks[self._progress.task_ids.index(self.task)].fields["bytes"] += size


class RichReporter:
    """Bars that run at the same time are drawn together; when the last of them ends, they stay on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._open = 0

    def start(self, name: str, total: float | None, unit: str) -> RichBar:
        """Draw a new bar."""
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    SpinnerColumn(finished_text="[green]✓"),
                    TextColumn("{task.description:<28}", markup=False),
                    BarColumn(bar_width=30),
                    _DoneColumn(),
                    _RateColumn(),
                    _TimeColumn(),
                    console=self._console,
                )
                self._progress.start()
            self._open += 1
            return RichBar(self._progress, self._progress.add_task(name, total=total, unit=unit, skipped=0.0, bytes=0))

    def finish(self, bar: Bar) -> None:
        """Stop a bar's clock. A bar without work disappears; one that fell short of its total shows that."""
        with self._lock:
            if self._progress is None or not isinstance(bar, RichBar):
                return
            task = self._progress.tasks[self._progress.task_ids.index(bar.task)]
            self._progress.stop_task(bar.task)
            if not _done_now(task):
                self._progress.remove_task(bar.task)
            elif task.total is None:
                self._progress.update(bar.task, total=task.completed)
            self._open -= 1
            if not self._open:
                self._progress.stop()
                self._progress = None


class _DoneColumn(ProgressColumn):
    """Done and total, in the bar's unit."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{total} {task.fields['unit']}", style="progress.download")


class _RateColumn(ProgressColumn):
    """Units per second: lately while the bar runs, over all of it afterwards; and bytes per second over all of it."""

    def render(self, task: Task) -> Text:
        overall = _done_now(task) / task.elapsed if task.elapsed else 0.0
        rate = overall if task.stop_time is not None else task.speed or overall
        if not rate:
            return Text("")
        read = bytes_rate_text(task.fields["bytes"] / task.elapsed if task.elapsed else 0.0)
        return Text(f"{rate_text(rate, task.fields['unit'])}{read}", style="progress.data.speed")


class _TimeColumn(ProgressColumn):
    """Time left while the bar runs, time taken afterwards."""

    def render(self, task: Task) -> Text:
        if task.stop_time is not None:
            return Text(f"in {_clock(task.elapsed or 0.0)}", style="progress.elapsed")
        done = _done_now(task)
        if task.total is None or not done or not task.elapsed:
            return Text("")
        left = (task.total - task.completed) * task.elapsed / done
        return Text(f"{_clock(max(left, 0.0))} left", style="progress.remaining")


def _done_now(task: Task) -> float:
    """Units that were done while the bar ran."""
    return task.completed - float(task.fields["skipped"])


def _clock(seconds: float) -> str:
    """Seconds as `4.2 s`, or as minutes and hours when there are more."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"
