"""A local hub that speaks the wire of uploads: who asks, repositories, what goes by LFS, one commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_right"
READS_ONLY = "hf_reads"
LARGE = (".safetensors", ".gguf")


class Hub(ThreadingHTTPServer):
    """Keeps repositories as files by name, and whether each is private; `stored` are the objects of LFS.

    `is_full` refuses commits. `uploads` counts the objects that were sent.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.visibility: dict[str, str] = {}
        self.stored: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.uploads = 0
        self.is_full = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/api/whoami-v2":
            known = self._token() in (TOKEN, READS_ONLY)
            self._send(200 if known else 401, {"name": "ada"} if known else {"error": "Invalid token"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/main)?", path):
            self._tell(found[1], is_tree=found[2] is not None)
        else:
            self._send(404, {"error": "Not found"})

    def do_PUT(self) -> None:
        data = self._body()
        assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
        self.server.uploads += 1
        self.server.stored[self.path.rpartition("/")[2]] = data
        self._send(200, {})

    def do_POST(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        if path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif self._token() != TOKEN:
            self._send(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self._send(200, {"files": [_mode(file) for file in json.loads(body)["files"]]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._send(200, {"objects": [self._action(each) for each in json.loads(body)["objects"]]})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._send(404, {"error": "Not found"})

    def _token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _tell(self, repo: str, *, is_tree: bool) -> None:
        files = self.server.files.get(repo)
        if files is None:
            self._send(404, {"error": "Repository not found"}, {"x-error-code": "RepoNotFound"})
        elif is_tree:
            facts = {"type": "file", "oid": "0" * 40}
            self._send(200, [{**facts, "path": name, "size": len(data)} for name, data in files.items()])
        else:
            siblings = [{"rfilename": name} for name in files]
            self._send(200, {"id": repo, "private": True, "siblings": siblings})

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.server.files:
            self._send(409, {"error": "You already created this model repo"})
            return
        self.server.files[repo] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self.server.visibility[repo] = asked.get("visibility", "public")
        self._send(200, {"url": f"{self.server.url}/{repo}", "name": repo})

    def _action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        told = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] in self.server.stored:
            return told
        return told | {"actions": {"upload": {"href": f"{self.server.url}/objects/{wanted['oid']}"}}}

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        if self.server.is_full:
            self._send(413, {"error": "Your private storage is full"})
            return
        files = dict(self.server.files[repo])
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    self.server.commits.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        self.server.files[repo] = files
        oid = hashlib.sha1(repr(lines).encode()).hexdigest()
        self._send(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(LARGE) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


@contextmanager
def a_hub() -> Iterator[Hub]:
    """Runs a hub on a thread."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
