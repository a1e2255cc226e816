"""A server on this machine that speaks as much of the Hugging Face Hub as its client asks for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

COMMIT = "c" * 40


class Hub:
    """Holds the files of repositories by name, and which of them are private."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.address = ""

    def create(self, content: dict[str, Any]) -> None:
        name = "/".join(filter(None, (content.get("organization"), content["name"])))
        self.files.setdefault(name, {})
        if content.get("private") or content.get("visibility") == "private":
            self.private.add(name)

    def commit(self, name: str, lines: bytes) -> None:
        for line in map(json.loads, lines.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.files[name][value["path"]] = base64.b64decode(value["content"])


@contextmanager
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Have ``huggingface_hub`` talk to a Hub of its own, with a cache in ``folder``."""
    constants = pytest.importorskip("huggingface_hub.constants")
    served = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    served.address = address
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            served.requests.append(f"POST {self.path}")
            parts = self.path.strip("/").split("/")
            if self.headers.get("Authorization") is None:
                self._send(401, {"error": "Unauthorized"})
            elif self.path == "/api/repos/create":
                served.create(json.loads(sent))
                self._send(200, {"url": f"{served.address}/org/name"})
            elif self.path == "/api/validate-yaml":
                self._send(200, {"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                names = [each["path"] for each in json.loads(sent)["files"]]
                answers = [
                    {"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in names
                ]
                self._send(200, {"files": answers})
            else:
                name = "/".join(parts[2:4])
                served.commit(name, sent)
                address = f"{served.address}/{name}/commit/{COMMIT}"
                self._send(200, {"commitUrl": address, "commitOid": COMMIT, "success": True})

        def do_GET(self) -> None:
            self._answer(with_content=True)

        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def _answer(self, with_content: bool) -> None:
            served.requests.append(f"{self.command} {self.path}")
            parts = unquote(self.path).strip("/").split("/")
            if parts[0] == "api":
                self._send(200, {"sha": COMMIT, "id": "/".join(parts[2:4]), "siblings": []})
                return
            name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            content = served.files.get(name, {}).get(file)
            unseen = name in served.private and self.headers.get("Authorization") is None
            if name not in served.files or unseen:
                self._send(401, {}, {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", COMMIT):
                self._send(404, {}, {"X-Error-Code": "RevisionNotFound"})
            elif content is None:
                headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                self._send(404, {}, headers)
            else:
                etag = hashlib.sha256(content).hexdigest()
                self._reply(
                    200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, with_content
                )

        def _send(
            self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            self._reply(status, json.dumps(answer).encode(), headers or {}, self.command != "HEAD")

        def _reply(
            self, status: int, content: bytes, headers: dict[str, str], with_content: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content)

    return Handler
