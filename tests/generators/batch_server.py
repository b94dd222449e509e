"""A server on loopback with the files and batches of OpenAI's Batch API, which can be made to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.generators.chat_server import completion

Line = dict[str, Any]
CUT = "cut"  # the connection is closed without an answer


def well(line: Line) -> Line | None:
    """The result of a request: an answer. None leaves it undone."""
    return result(line, completion(f"answer to {question_of(line)}"))


def result(line: Line, body: Any, status: int = 200) -> Line:
    """A line of results."""
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": None}


def undone(line: Line, code: str = "batch_expired") -> Line:
    """The line of a request that was not done."""
    error = {"code": code, "message": "This request could not be executed."}
    return {"id": "batch_req_2", "custom_id": line["custom_id"], "response": None, "error": error}


def question_of(line: Line) -> str:
    return str(line["body"]["messages"][-1]["content"])


@dataclass
class Made:
    """A batch. It ends as `ends` when it is next looked at, unless it is held."""

    id: str
    input_file: str
    created: int
    metadata: dict[str, str]
    endpoint: str
    window: str
    status: str = "in_progress"
    output_file: str | None = None
    error_file: str | None = None
    lines: list[Line] = field(default_factory=list)


class BatchServer:
    """`answer` does each request of a batch when it ends; `fault` may answer a call in place of the server.

    `fault` gets method and path, and gives a status with a body, `CUT`, or None; with `after` it is asked after the
    call was done.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Line], Line | None] = well
        self.fault: Callable[[str, str], tuple[int, Any] | str | None] = lambda method, path: None
        self.after: Callable[[str, str], tuple[int, Any] | str | None] = lambda method, path: None
        self.ends, self.held = "completed", False
        self.errors: list[str] = []  # of batches that end as failed
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Made] = {}
        self.paid: list[str] = []  # questions that were answered
        self.calls: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Root of the API."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def sent(self) -> list[Line]:
        """The lines of all batches that live or ended well."""
        return [line for made in self.batches.values() if made.status != "cancelled" for line in made.lines]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def end(self, made: Made, status: str) -> None:
        """End a batch: its requests are done."""
        done = [] if status == "failed" else [(line, self.answer(line)) for line in made.lines]
        good = [each for _, each in done if each is not None and (each["response"] or {}).get("status_code") == 200]
        bad = [each for _, each in done if each is not None and each not in good]
        keys = {each["custom_id"] for each in good}
        self.paid += [question_of(line) for line, _ in done if line["custom_id"] in keys]
        made.output_file, made.error_file = self._results(good), self._results(bad)
        made.status = status

    def _results(self, lines: list[Line]) -> str | None:
        return self.put("".join(json.dumps(line) + "\n" for line in lines).encode()) if lines else None

    def put(self, data: bytes) -> str:
        """A new file."""
        name = f"file-{len(self.files) + 1}"
        self.files[name] = data
        return name

    def handle(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any] | str:
        url = urlsplit(target)
        with self._lock:
            self.calls.append((method, url.path))
            self.headers.append({name.lower(): value for name, value in headers.items()})
            fault = self.fault(method, url.path)
            if fault is not None:
                return fault
            parts = url.path.split("/")[2:]
            response = self._do(method, parts, parse_qs(url.query), headers, body)
            return self.after(method, url.path) or response

    def _do(self, method: str, parts: list[str], query: Any, headers: Any, body: bytes) -> tuple[int, Any]:
        match method, parts:
            case "POST", ["files"]:
                form = message_from_bytes(b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
                fields = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
                assert fields["purpose"].get_payload() == "batch"
                return 200, self._file(self.put(fields["file"].get_payload(decode=True)))
            case "GET", ["files", name] if name in self.files:
                return 200, self._file(name)
            case "DELETE", ["files", name] if self.files.pop(name, None) is not None:
                return 200, {"id": name, "object": "file", "deleted": True}
            case "GET", ["files", name, "content"] if name in self.files:
                return 200, self.files[name]
            case "POST", ["batches"]:
                return 200, self._json(self._make(json.loads(body)))
            case "GET", ["batches"]:
                return 200, self._list(query)
            case "GET", ["batches", name] if name in self.batches:
                made = self.batches[name]
                if made.status == "in_progress" and not self.held:
                    self.end(made, self.ends)
                return 200, self._json(made)
            case "POST", ["batches", name, "cancel"] if name in self.batches:
                self.batches[name].status = "cancelled"
                return 200, self._json(self.batches[name])
        return 404, {"error": {"message": "no such object", "type": "invalid_request_error"}}

    def _make(self, values: Any) -> Made:
        made = Made(
            f"batch_{len(self.batches) + 1}",
            values["input_file_id"],
            int(time.time()),
            values["metadata"],
            values["endpoint"],
            values["completion_window"],
        )
        made.lines = [json.loads(line) for line in self.files[made.input_file].splitlines()]
        self.batches[made.id] = made
        return made

    def _list(self, query: Any) -> dict[str, Any]:
        names = list(reversed(self.batches))
        if "after" in query:
            names = names[names.index(query["after"][0]) + 1 :]
        page = names[: int(query.get("limit", ["20"])[0])]
        data = [self._json(self.batches[name]) for name in page]
        return {"object": "list", "data": data, "has_more": len(page) < len(names)}

    def _file(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "file",
            "bytes": len(self.files[name]),
            "created_at": 0,
            "filename": "x.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def _json(self, made: Made) -> dict[str, Any]:
        done = len(made.lines) if made.status == "completed" else 0
        errors = [{"code": "x", "line": None, "message": message, "param": None} for message in self.errors]
        return {
            "id": made.id,
            "object": "batch",
            "endpoint": made.endpoint,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": made.input_file,
            "completion_window": made.window,
            "status": made.status,
            "output_file_id": made.output_file,
            "error_file_id": made.error_file,
            "created_at": made.created,
            "request_counts": {"total": len(made.lines), "completed": done, "failed": 0},
            "metadata": made.metadata,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                response = server.handle(self.command, self.path, self.headers, body)
                if isinstance(response, str):
                    self.close_connection = True
                    return
                status, value = response
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
