"""The few endpoints of the Hugging Face hub that loading and uploading use, on this computer."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test"
COMMIT = "c" * 40


class Hub:
    """Repositories in memory.

    Attributes:
        repos: OWNER/NAME -> revision -> file -> content.
        private: names of repositories that are private.
        commits: message and files of each commit.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.commits: list[tuple[str, list[str]]] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
        if found is None:
            return self.answer(404)
        if self.headers["Authorization"] not in (None, f"Bearer {TOKEN}"):
            return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        repo, revision, file = found.groups()
        is_known = repo in self.hub.repos
        if not is_known or (repo in self.hub.private and self.headers["Authorization"] != f"Bearer {TOKEN}"):
            return self.answer(401 if not is_known else 404, X_Error_Code="RepoNotFound")
        if revision not in self.hub.repos[repo]:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        content = self.hub.repos[repo][revision].get(file)
        if content is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag = hashlib.sha256(content).hexdigest()
        commit = hashlib.sha1(f"{repo} {revision}".encode()).hexdigest()
        self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/validate-yaml":
            return self.answer(200)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit|branch)/(.+)", self.path)
        if found is None:
            return self.answer(404)
        repo, what, revision = found.groups()
        if repo not in self.hub.repos:
            return self.answer(404, X_Error_Code="RepoNotFound")
        if what == "branch":
            is_new = revision not in self.hub.repos[repo]
            self.hub.repos[repo].setdefault(revision, {})
            return self.answer(200 if is_new else 409)
        if revision not in self.hub.repos[repo]:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if what == "preupload":
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            files = [{"path": file["path"], **plain} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        self.hub.repos[repo][revision] |= {name: base64.b64decode(content) for name, content in files.items()}
        self.hub.commits.append((lines[0]["value"]["summary"], list(files)))
        self.answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})

    def create(self, asked: dict[str, str]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "others":
            return self.answer(403, {"error": "You don't have the rights"})
        if repo in self.hub.repos:
            return self.answer(409, {"url": f"{self.hub.url}/{repo}"})
        self.hub.repos[repo] = {"main": {}}
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(repo)
        self.answer(200, {"url": f"{self.hub.url}/{repo}"})
