"""A stand-in of the Hugging Face Hub: the part of its HTTP API that a push of model files uses, over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_the-right-token"
READ_TOKEN = "hf_reads-only"

LFS_SUFFIXES = (".safetensors",)


@dataclass
class Repository:
    """A repository's newest files and its commits, oldest first."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["initial commit"])

    @property
    def head(self) -> str:
        """The newest commit's id."""
        return hashlib.sha1("\0".join(self.commits).encode()).hexdigest()


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Large files by SHA-256, committed or not."""
    num_uploads: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path."""
    tokens_elsewhere: list[str] = field(default_factory=list)
    """Authorization headers that came with uploads, which go to storage of another owner."""
    failures: dict[str, int] = field(default_factory=dict)
    """Status to answer once, by a part of the path; 0 hangs up after the work was done."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    do_PUT = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, *args: Any) -> None:
        """Tests look at what was asked instead."""

    def _answer(self, body: bytes) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.requests.append((self.command, path))
        planned = next((part for part in hub.failures if part in path), "")
        status = hub.failures.pop(planned, -1) if planned else -1
        if status > 0:
            self._send({"error": "planned"}, status=status)
            return
        reply, code = self._routed(path, body)
        if status == 0:
            self.close_connection = True
            return
        self._send(reply, status=code)

    def _routed(self, path: str, body: bytes) -> tuple[Any, int]:
        hub = self.hub
        if path.startswith("/storage/"):
            hub.tokens_elsewhere += [self.headers["Authorization"]] if self.headers["Authorization"] else []
            if hashlib.sha256(body).hexdigest() != path.rpartition("/")[2]:
                return {"error": "wrong bytes"}, 400
            hub.blobs[path.rpartition("/")[2]] = body
            hub.num_uploads += 1
            return {}, 200
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if token not in (TOKEN, READ_TOKEN):
            return {"error": "Invalid username or password."}, 401
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}, 200
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._model("/".join(parts[2:4]), parts[4:], body, token)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body), token)
        return {"error": "no such path"}, 404

    def _create(self, asked: dict[str, Any], token: str) -> tuple[Any, int]:
        name = f"{asked['organization']}/{asked['name']}"
        if token != TOKEN:
            return {"error": f"You don't have the rights to create a model under {asked['organization']}"}, 403
        if name in self.hub.repositories:
            return {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409
        self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"}, 200

    def _model(self, name: str, rest: list[str], body: bytes, token: str) -> tuple[Any, int]:
        found = self.hub.repositories.get(name)
        if found is None:
            return {"error": "Repository not found"}, 404
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": name} for name in found.files]
            return {"id": name, "sha": found.head, "private": found.private, "tags": [], "siblings": siblings}, 200
        if rest[0] == "tree":
            return [_entry(path, data) for path, data in sorted(found.files.items())], 200
        if token != TOKEN:
            return {"error": "Forbidden: you need write access"}, 403
        if rest[0] == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    **({"oid": _oid(file["path"], found.files[file["path"]])} if file["path"] in found.files else {}),
                }
                for file in json.loads(body)["files"]
            ]
            return {"files": files}, 200
        return self._commit(name, found, [json.loads(line) for line in body.splitlines() if line.strip()])

    def _commit(self, name: str, found: Repository, lines: list[dict[str, Any]]) -> tuple[Any, int]:
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, found.head):
            return {"error": "The branch has moved"}, 412
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return {"error": "LFS pointer pointed to a file that does not exist"}, 400
                found.files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del found.files[value["path"]]
        found.commits.append(header["summary"])
        return {
            "success": True,
            "commitOid": found.head,
            "commitUrl": f"{self.hub.url}/{name}/commit/{found.head}",
        }, 200

    def _batch(self, asked: dict[str, Any], token: str) -> tuple[Any, int]:
        if token != TOKEN:
            return {"error": "Forbidden"}, 403
        objects = []
        for one in asked["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/storage/{one['oid']}", "header": {}}}
            objects.append({**one, **({} if one["oid"] in self.hub.blobs else {"actions": actions})})
        return {"transfer": "basic", "objects": objects}, 200

    def _send(self, reply: Any, *, status: int) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _oid(path: str, data: bytes) -> str:
    """As git and git-lfs name contents."""
    if path.endswith(LFS_SUFFIXES):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def serving() -> Iterator[Hub]:
    """The server on a free port of the loopback, while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
