"""The full local Airflow on loopback: api-server, scheduler, dag-processor and triggerer.

In:  `python infra/airflow_local.py`, which `make airflow` calls; all state is in `.memorag/airflow`.
Out: the pools that the specs name, and the address of the UI, once everything is healthy; the variables that a second
     shell must export to reach this Airflow. Ctrl-C stops everything.
Wrong: a taken port, or a component that ends, stops the rest; the message names the component's log.

Everybody who can reach the port is admin (SimpleAuthManager), so all servers listen on the loopback address alone.
Tasks run as processes of the LocalExecutor; their logs are read from disk, so no log server is started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
COMPONENTS = {
    "api-server": ["api-server", "--host", HOST, "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
# No secret is among them: a second shell needs none.
EXPORTED = (
    "AIRFLOW_HOME",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__LOAD_EXAMPLES",
    "MEMORAG_HOME",
    "MEMORAG_CACHE",
    "MEMORAG_SPECS",
)


class StackError(Exception):
    """The stack could not start, or did not stay up."""


class LocalAirflow:
    """The processes of a local Airflow whose state is in `home`; use it as a context manager."""

    def __init__(self, home: Path, port: int, environment: Mapping[str, str] | None = None) -> None:
        self.home, self.port = home, port
        self.url = f"http://{HOST}:{port}"
        self.environment = {**os.environ, **settings(home, port), **(environment or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token: str | None = None  # it holds for a day

    def __enter__(self) -> LocalAirflow:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, seconds: float = 180) -> None:
        """Migrate the database, start all components and wait until they report to be healthy."""
        with socket.socket() as probe:
            if probe.connect_ex((HOST, self.port)) == 0:
                raise StackError(
                    f"port {self.port} is taken; stop what listens there, or choose another: make airflow PORT=8091"
                )
        self.home.mkdir(parents=True, exist_ok=True)
        if self._open("migrate", ["db", "migrate"]).wait() != 0:
            raise StackError(self._ended("migrate"))
        for name, arguments in COMPONENTS.items():
            port = ["--port", str(self.port)] if name == "api-server" else []
            self.add(name, [*arguments, *port])
        deadline = time.monotonic() + seconds
        while not self.is_healthy():
            self.require_running()
            if time.monotonic() > deadline:
                raise StackError(f"not healthy after {seconds:.0f} s; see the logs in {self.home}")
            time.sleep(0.5)

    def make_pools(self) -> str:
        """Create the pools that the specs name, as `memorag airflow setup` does; returns what it says against specs."""
        folder = self.environment.get("MEMORAG_SPECS") or str(REPOSITORY / "dags" / "corpora")
        done = subprocess.run(
            [sys.executable, "-c", "from memorag_pipeline.cli.app import main; main()", "airflow", "setup", folder],
            env={**self.environment, "NO_COLOR": "1"},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return "" if done.returncode == 0 else done.stderr.strip()

    def exports(self) -> str:
        """Lines for a second shell, in which `airflow` and `memorag` then mean this Airflow and its state."""
        return "\n".join(
            f"  export {name}={shlex.quote(self.environment[name])}" for name in EXPORTED if name in self.environment
        )

    def add(self, name: str, arguments: list[str]) -> None:
        """Start one more component by its `airflow` arguments, such as a Celery worker; its log is `log(name)`."""
        self._processes[name] = self._open(name, arguments)

    def kill(self, name: str) -> None:
        """Kill a component by SIGKILL with everything that it started, as when its machine is lost."""
        process = self._processes.pop(name)
        _kill(_started_by(process))
        process.kill()
        process.wait()

    def stop(self, seconds: float = 15) -> None:
        """Stop all components with everything that they started."""
        started = [child for process in self._processes.values() for child in _started_by(process)]
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + seconds
        for name, process in self._processes.items():
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                print(f"{name} does not stop; killing it", file=sys.stderr)
            # Also processes that a component may leave, such as a worker of the web server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _kill(started)
        self._processes.clear()

    def require_running(self) -> None:
        """Raise StackError when a component has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise StackError(self._ended(name))

    def is_healthy(self) -> bool:
        """Whether the database and all components report to be healthy."""
        try:
            parts = self.call("GET", "/api/v2/monitor/health", token=False)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all((parts.get(name) or {}).get("status") == "healthy" for name in names)

    def call(self, method: str, path: str, body: Any = None, token: bool = True) -> Any:
        """Call the REST API and return the JSON answer; HTTPError as the server answers."""
        headers = {"Content-Type": "application/json"}
        if token:
            if self._token is None:
                self._token = self.call("GET", "/auth/token", token=False)["access_token"]
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        # No proxy: a configured one would be asked for the loopback address.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    def log(self, name: str) -> Path:
        """The log file of a component."""
        return self.home / f"{name}.log"

    def _open(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _ended(self, name: str) -> str:
        tail = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-15:])
        return f"{name} ended; its log {self.log(name)} ends with:\n{tail}"


def _started_by(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes below one; a running task among them has its own process group."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def settings(home: Path, port: int) -> dict[str, str]:
    """Airflow's configuration as environment variables, which all components share."""
    memorag = REPOSITORY / ".memorag"
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Each task that loads a model takes memory for it: as many at once as a small machine bears.
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{port}",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(),
        # A changed spec should show soon.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "MEMORAG_HOME": os.environ.get("MEMORAG_HOME", str(memorag)),
        "MEMORAG_CACHE": os.environ.get("MEMORAG_CACHE", str(memorag / "cache")),
        "NO_PROXY": HOST,
        "no_proxy": HOST,
        "TOKENIZERS_PARALLELISM": "false",
    }


def main() -> None:
    """Start the stack and keep it until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="port of the UI and the API (default 8080)")
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    stack = LocalAirflow(REPOSITORY / ".memorag" / "airflow", port)
    write_demo_source(Path(stack.environment["MEMORAG_HOME"]) / "source")
    print("Starting api-server, scheduler, dag-processor and triggerer; this takes about half a minute.", flush=True)
    try:
        with stack:
            if problems := stack.make_pools():
                print(f"Pools of these specs could not be created; their GPU tasks would not start:\n{problems}")
            print(f"For airflow and memorag in a second shell:\n{stack.exports()}")
            print(f"Airflow is ready: {stack.url} (no login). Logs: {stack.home}. Ctrl-C stops it.", flush=True)
            while True:
                time.sleep(1)
                stack.require_running()
    except StackError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped.")


def write_demo_source(folder: Path) -> None:
    """Write the documents of the demo corpus, unless `make demo` did; its DAG would find nothing to refresh."""
    if not folder.exists():
        demo = runpy.run_path(str(REPOSITORY / "examples" / "demo.py"))
        demo["write_source"](folder, demo["MOST_CHARACTERS"])


if __name__ == "__main__":
    main()
