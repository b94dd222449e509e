"""The pages behind the plugin of Airflow's UI: the corpora, each corpus, each of its runs.

In:  the folder of specs (MEMORAG_SPECS, or `corpora` of the DAG folder), and the stores that they name, read only; of
     Airflow's metadata database the pools.
Out: HTML without scripts.
Wrong: not logged in: 401. A corpus whose refresh DAG the user may not read, or that does not exist: 404. A store that
       cannot be read: 502 with the reason, which is also in its row of the list of corpora. These pages have a link to
       the list, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from memorag_operators.pools import pool_problem
from memorag_operators.spec_folder import SpecFolder, read_spec_folder, refresh_dag_id, spec_folder
from memorag_pipeline.errors import MemoragError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.overview import CorpusLine, OverviewReader, corpora_page, overview_page, problem_page
from memorag_pipeline.reports.page import run_page
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.file import spec_files

_RUN = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


def make_app() -> FastAPI:
    """The app, to be mounted by Airflow's API server."""
    app = FastAPI(title="MemoRAG corpora", docs_url=None, redoc_url=None, openapi_url=None)
    readers: dict[str, OverviewReader] = {}

    def reader(spec: CorpusSpec) -> OverviewReader:
        """One for each current spec; that of a changed spec is replaced."""
        grace = timedelta(days=spec.store.retention.grace_days)
        return readers.setdefault(spec.model_dump_json(), OverviewReader(Pipeline(spec).store, grace))

    def line(spec: CorpusSpec) -> CorpusLine:
        try:
            return reader(spec).line(spec.corpus, spec.description)
        except MemoragError as error:
            return CorpusLine(spec.corpus, spec.description, problem=str(error))

    @app.exception_handler(MemoragError)
    async def unreadable(request: Request, error: MemoragError) -> HTMLResponse:
        return _problem(request, "The store of this corpus cannot be read", str(error), 502)

    @app.exception_handler(404)
    async def unknown(request: Request, error: HTTPException) -> HTMLResponse:
        return _problem(request, "There is no such page", str(error.detail), 404)

    @app.get("/")
    def corpora(user: GetUserDep) -> HTMLResponse:
        found = _specs()
        readable = list(_readable(found, user))
        return _page(
            corpora_page(
                in_threads(line, readable),
                [str(problem) for problem in found.problems] if _may_read(user, None) else [],
                list(filter(None, (pool_problem(pool) for pool in sorted({spec.compute.pool for spec in readable})))),
            )
        )

    @app.get("/{corpus}/")
    def corpus(corpus: str, user: GetUserDep) -> HTMLResponse:
        spec = _spec(corpus, user)
        return _page(overview_page(spec.corpus, spec.description, reader(spec).read(), pool_problem(spec.compute.pool)))

    @app.get("/{corpus}/runs/{kind}/{run}")
    def run(corpus: str, kind: str, run: str, user: GetUserDep) -> HTMLResponse:
        spec = _spec(corpus, user)
        known = kind == "refresh" or kind in spec.jobs
        report = reader(spec).run(kind, run) if known and _RUN.fullmatch(run) else None
        if report is None:
            raise HTTPException(404, "no report of such a run")
        return _page(run_page(report, back="../../"))

    return app


def _specs() -> SpecFolder:
    folder = spec_folder(Path(conf.get_mandatory_value("core", "dags_folder")) / "corpora")
    files = [path for path in [*spec_files(folder), *spec_files(folder / "training")] if path.is_file()]
    return _read_specs(folder, tuple((str(path), path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=4)
def _read_specs(folder: Path, files: tuple[tuple[str, int], ...]) -> SpecFolder:
    """The specs of a folder; read again when one of its `files` (with their times) changes."""
    return read_spec_folder(folder)


def _readable(found: SpecFolder, user: GetUserDep) -> Iterator[CorpusSpec]:
    return (spec for spec in found.specs.values() if _may_read(user, refresh_dag_id(spec)))


def _spec(corpus: str, user: GetUserDep) -> CorpusSpec:
    for spec in _readable(_specs(), user):
        if spec.corpus == corpus:
            return spec
    raise HTTPException(404, "no corpus of this name whose refresh DAG you may read")


def _may_read(user: GetUserDep, dag_id: str | None) -> bool:
    """Whether the user may read a DAG; None: all DAGs."""
    team = DagModel.get_team_name(dag_id) if dag_id else None
    return get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=dag_id, team_name=team), user=user)


def _page(html: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(html, status, headers=_HEADERS)


def _problem(request: Request, title: str, problem: str, status: int) -> HTMLResponse:
    """A page that leads back to the list of corpora, from however deep it is below it."""
    below = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/")
    depth = below.count("/") + (below != "" and request.url.path.endswith("/"))
    return _page(problem_page(title, problem, "../" * depth or "./"), status)
