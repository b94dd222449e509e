"""Reports of runs in a store: written beside the versions, found by run, version or job.

In:  a corpus store, a run.
Out: `reports/refresh/{run}.json` and `.html`, of a job `reports/jobs/{job}/{run}.json` and `.html`; of each the newest
     `KEPT` runs.
Wrong: a report that cannot be read counts as absent, with a warning. None is ever needed by a stage.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby

from pydantic import ValidationError

from memorag_pipeline.errors import ObjectNotFoundError, ObjectTooLargeError
from memorag_pipeline.reports.facts import RunReport
from memorag_pipeline.runs.tasks import FOLDER as TASKS
from memorag_pipeline.runs.tasks import JOBS_FOLDER, RUNS_KEPT, Run, old_reports, run_digest
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.layout import own
from memorag_pipeline.storage.objects import ObjectStore

logger = logging.getLogger(__name__)

FOLDER = "reports"
KEPT = 100  # runs of the refresh, and of each job


def folder_of(job: str | None) -> str:
    """Key of the folder with the reports of a job's runs, or of the refreshes."""
    return f"{FOLDER}/refresh" if job is None else f"{FOLDER}/jobs/{job}"


def write(objects: ObjectStore, run: Run, report: RunReport, page: str) -> str:
    """Keep a report in both forms, in place of an earlier one of the same run; returns the key without its ending."""
    key = f"{folder_of(run.job)}/{run.name}"
    replace(objects, key, report, page)
    return key


def replace(objects: ObjectStore, key: str, report: RunReport, page: str) -> None:
    """Keep a report under this key (without its ending)."""
    objects.put(f"{key}.html", page.encode())
    objects.put(f"{key}.json", report.model_dump_json().encode())


def delete(objects: ObjectStore, key: str) -> None:
    """Delete a report in both forms."""
    for ending in ("html", "json"):
        objects.delete(f"{key}.{ending}")


def read(objects: ObjectStore, key: str) -> RunReport | None:
    """The report with this key (without its ending)."""
    try:
        return RunReport.model_validate_json(objects.read(f"{key}.json"))
    except ObjectNotFoundError:
        return None
    except (ValidationError, ObjectTooLargeError):
        logger.warning("%s.json is not a report that this release can read, and is left out", objects.uri_of(key))
        return None


def listing(objects: ObjectStore, job: str | None = None) -> list[StoredObject]:
    """The JSON forms of the reports of a job's runs, or of the refreshes, the oldest first."""
    return [stored for stored in own(objects, folder_of(job)) if stored.key.endswith(".json")]


def keys(objects: ObjectStore) -> list[str]:
    """Keys (without their endings) of all that is there of reports of refreshes and jobs, sorted."""
    return sorted({stored.key.rpartition(".")[0] for stored in own(objects, FOLDER)})


def jobs(objects: ObjectStore) -> list[str]:
    """Names of the jobs that have reports, sorted."""
    return sorted({stored.key.split("/")[2] for stored in own(objects, f"{FOLDER}/jobs")})


def newest(objects: ObjectStore, job: str | None = None) -> RunReport | None:
    """The report of a job's newest run, or of the newest refresh."""
    for stored in reversed(listing(objects, job)):
        if (report := read(objects, stored.key.removesuffix(".json"))) is not None:
            return report
    return None


def of_run(objects: ObjectStore, run_id: str) -> RunReport | None:
    """The report of the newest run with this id, of a refresh or a job."""
    ending = f"-{run_digest(run_id)}.json"
    keys = [stored.key for stored in own(objects, FOLDER) if stored.key.endswith(ending)]
    for key in sorted(keys, key=lambda key: key.rpartition("/")[2], reverse=True):
        if (report := read(objects, key.removesuffix(".json"))) is not None:
            return report
    return None


def outdated(objects: ObjectStore) -> Iterator[tuple[StoredObject, str]]:
    """What the sweep deletes, and why: the reports of tasks and of runs that later runs have pushed out."""
    for folder in (TASKS, JOBS_FOLDER):
        tasks = {stored.key: stored for stored in own(objects, folder)}
        for key in old_reports(tasks):
            yield tasks[key], f"report of a task of a run before the last {RUNS_KEPT}"
    runs = {stored.key: stored for stored in own(objects, FOLDER)}
    for key in old_runs(runs):
        yield runs[key], f"report of a run before the last {KEPT}"


def old_runs(keys: Iterable[str], keep: int = KEPT) -> list[str]:
    """Of keys of reports, those that are of none of the newest `keep` runs of the refresh or of their job."""
    old: list[str] = []
    for _, same in groupby(sorted(keys), lambda key: key.rpartition("/")[0]):
        found = list(same)
        kept = set(sorted({key.rpartition(".")[0] for key in found})[-keep:])
        old += [key for key in found if key.rpartition(".")[0] not in kept]
    return old
