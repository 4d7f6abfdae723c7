"""A stand-in of the Hugging Face hub: repositories out of folders, over the hub's own HTTP interface.

It knows revisions, private and gated repositories, ETags and ranges, keeps what it was asked, and can break a line.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Asked:
    """One request: its method and path, and of its headers what tests ask about."""

    method: str
    path: str
    token: str | None
    range: str | None


@dataclass
class Repository:
    """A repository: its revisions as folders; `token`: who may read it; `gated`: whose licence nobody accepted."""

    revisions: dict[str, Path]
    token: str | None = None
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a commit."""
        commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in self.revisions}
        return commits.get(revision) or next((commit for commit in commits.values() if commit == revision), None)

    def folder(self, commit: str) -> Path:
        return next(folder for name, folder in self.revisions.items() if self.commit(name) == commit)


@dataclass
class Hub:
    """What a test sees of it.

    Args:
        break_after: names of files, and after how many bytes the line of their next answer breaks.
        fails_for: a file that cannot be had.
    """

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    break_after: dict[str, int] = field(default_factory=dict)
    fails_for: str | None = None

    def files(self, method: str = "GET") -> list[str]:
        """The names of the files that were asked for."""
        found = (_RESOLVE.fullmatch(asked.path) for asked in self.asked if asked.method == method)
        return sorted(match["file"] for match in found if match)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Runs a hub without repositories."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        server.hub = hub  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield hub
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        match = _API.fullmatch(path) or _RESOLVE.fullmatch(path)
        if match is not None:  # the library asks about itself, too
            hub.asked.append(Asked(self.command, path, token, self.headers.get("Range")))
        repository = hub.repositories.get(match["repo"]) if match else None
        if hub.fails_for is not None and path.endswith(hub.fails_for):
            return self._send(501)  # one that the library does not try again for a minute
        if match is None or repository is None:
            return self._send(401 if token is None else 404, {"X-Error-Code": "RepoNotFound"})
        if token not in (repository.token and f"Bearer {repository.token}", None):
            return self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if repository.token is not None and token is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        if repository.gated and match.re is _RESOLVE:
            return self._send(403, {"X-Error-Code": "GatedRepo"})
        commit = repository.commit(match["revision"] or "main")
        if commit is None:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        folder = repository.folder(commit)
        if match.re is _RESOLVE:
            return self._send_file(hub, folder / match["file"], commit)
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        if match["what"] == "tree":
            return self._send_json(
                [
                    {"type": "file", "path": str(p.relative_to(folder)), "size": p.stat().st_size, "oid": _etag(p)}
                    for p in files
                ]
            )
        siblings = [{"rfilename": str(p.relative_to(folder))} for p in files]
        return self._send_json({"id": match["repo"], "modelId": match["repo"], "sha": commit, "siblings": siblings})

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _send_json(self, value: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send_file(self, hub: Hub, file: Path, commit: str) -> None:
        if not file.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data, headers = file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": commit}
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[start:]
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(len(data))}
        if self.command == "GET" and (count := hub.break_after.pop(file.name, None)) is not None:
            data = data[:count]
            self.close_connection = True
        return self._send(status, headers, data)


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
