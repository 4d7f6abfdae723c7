"""The chat page and its files, read once at the start. A fixed list: no path of a request reaches the file system."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from cupola.resources import resource_folder

# The page talks to its own server only, and nothing but its own files runs in it.
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str

    def respond(self, request: Request) -> Response:
        """The file, or 304 when the browser has it already."""
        headers = {
            "etag": self.etag,
            "cache-control": "no-cache",
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def load_assets() -> Mapping[str, Asset]:
    """The page's files by URL path; `index.html` is at `/`.

    Raises:
        StorageError: the installation holds no page.
    """
    assets = {}
    for file in resource_folder("web").iterdir():
        if file.is_file() and not file.name.startswith("."):
            content = file.read_bytes()
            media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            path = "/" if file.name == "index.html" else f"/{file.name}"
            assets[path] = Asset(content, media_type, etag)
    return assets
