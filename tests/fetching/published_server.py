"""A file server as the hub and a web site answer: lists of files, ranges, checksums, cut connections."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse


class Site:
    """What the server has, and what was asked of it.

    Attributes:
        repositories: Name -> path -> content.
        commits: Name -> commit of its newest revision.
        web: Path -> content, of files outside the hub.
        cut: Path's end -> bytes after which the connection is closed, once each time it is asked for.
        asked: How many bytes were sent of a path; ranges that were asked for.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, str] = {}
        self.web: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.sent: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.tokens: dict[str, str | None] = {}
        self.no_ranges = False
        self.url = ""

    def tree(self, name: str) -> list[dict[str, Any]]:
        """Return the hub's list of files; zip and parquet files lie in its large file storage."""
        found = []
        for path, content in sorted(self.repositories[name].items()):
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
            if path.endswith((".zip", ".parquet")):
                sha = hashlib.sha256(content).hexdigest()
                entry |= {"oid": "0" * 40, "lfs": {"oid": sha, "size": len(content), "pointerSize": 134}}
            found.append(entry)
        return found


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve a site on this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(200, b"")

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = unquote(urlparse(self.path).path)
            if path.startswith("/api/datasets/"):
                self._api(path.removeprefix("/api/datasets/"))
            elif path.startswith("/datasets/"):
                name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
                revision, _, file = rest.partition("/")
                known = site.repositories.get(name, {}) if revision == site.commits.get(name) else {}
                self._file(path, known.get(file))
            else:
                self._file(path, site.web.get(path.lstrip("/")))

        def _api(self, path: str) -> None:
            for word in ("/tree/", "/revision/"):
                name, found, _ = path.partition(word)
                if found and name in site.repositories:
                    self._json(site.tree(name) if word == "/tree/" else {"id": name, "sha": site.commits[name]})
                    return
            if path in site.repositories:
                self._json({"id": path, "sha": site.commits[path]})
                return
            self._answer(404, b"{}")

        def _json(self, value: Any) -> None:
            self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, path: str, content: bytes | None) -> None:
            site.tokens[path] = self.headers.get("Authorization")
            if content is None:
                self._answer(404, b"")
                return
            asked = self.headers.get("Range")
            start = 0
            if asked and not site.no_ranges:
                site.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
            body = content[start:]
            status = 206 if start else 200
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            cut = next((n for end, n in site.cut.items() if path.endswith(end)), None)
            sent = body if cut is None else body[:cut]
            site.sent[path.rpartition("/")[2]] += len(sent)
            self._answer(status, sent, headers, length=len(body))
            if cut is not None:
                self.close_connection = True

        def _answer(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
