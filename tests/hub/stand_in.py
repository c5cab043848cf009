"""A stand-in for the Hub on loopback: what the client asks for, in memory, with faults on order.

``python tests/hub/stand_in.py`` starts one and prints its address, for HF_ENDPOINT.
"""

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_of_me"
LFS = (".safetensors", ".png", ".bin", ".parquet")


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """Branches and tags name commits; main is there from the beginning, as on the Hub."""

    private: bool = False
    commits: list[Commit] = field(default_factory=lambda: [Commit("0" * 39 + "1", "initial", {})])
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 39 + "1"})
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], message: str = "", branch: str = "main") -> Commit:
        """Makes these all the files of a branch."""
        oid = hashlib.sha1(f"{id(self)} {len(self.commits)}".encode()).hexdigest()
        self.commits.append(Commit(oid, message, files))
        self.branches[branch] = oid
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for commit in self.commits if commit.oid == oid), None)

    @property
    def head(self) -> Commit:
        found = self.at("main")
        assert found is not None
        return found


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests that a pattern fits.

    Args:
        pattern: searched in ``"METHOD path"``.
        times: how often.
        status: to answer with instead.
        headers: of that answer.
        cut: bytes of the body after which the connection is closed.
        spoil: from the body to the one that is sent in its place.
        pause: seconds between blocks of 1 KiB.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    spoil: object = None
    pause: float = 0.0


class StandInHub(ThreadingHTTPServer):
    """The server: ``repositories`` by type and name, ``requests`` as they came, ``faults``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.lock = Lock()
        self.reset()

    def reset(self) -> None:
        self.repositories.clear()
        self.requests: list[str] = []
        self.faults: list[Fault] = []

    def model(self, name: str) -> Repository:
        return self.repositories["model", name]

    def put(self, name: str, files: dict[str, bytes], **options) -> Repository:
        """A model repository with these files, as if someone had pushed them."""
        repository = self.repositories["model", name] = Repository(**options)
        repository.commit(files)
        return repository

    def start(self) -> "StandInHub":
        Thread(target=self.serve_forever, daemon=True).start()
        return self


def is_lfs(path: str) -> bool:
    return path.endswith(LFS)


def oid_of(path: str, content: bytes) -> str:
    if is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


REPO = r"(?P<id>[^/]+/[^/]+)"
API = rf"/api/(?P<type>model|dataset)s/{REPO}"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create"),
    ("GET", rf"{API}(/revision/(?P<rev>[^/]+))?", "info"),
    ("GET", rf"{API}/tree/(?P<rev>[^/]+)", "tree"),
    ("GET", rf"{API}/refs", "refs"),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", "make_branch"),
    ("POST", rf"{API}/tag/(?P<rev>[^/]+)", "make_tag"),
    ("POST", rf"{API}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"{API}/commit/(?P<rev>[^/]+)", "commit"),
    ("POST", rf"/(?P<type>datasets/)?{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_put"),
    ("GET|HEAD", r"/lfs/(?P<oid>\w+)", "lfs_get"),
    ("GET|HEAD", rf"/(?P<type>datasets/)?{REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
]


class RefusalError(Exception):
    def __init__(self, status: int, code: str = "", **headers: str) -> None:
        self.status, self.headers = status, {"X-Error-Code": code} if code else {}
        self.headers |= {key.replace("_", "-"): value for key, value in headers.items()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Or else what follows the headers waits 40 ms for the client to have confirmed them.
    disable_nagle_algorithm = True
    server: StandInHub

    def log_message(self, *_) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        asked = f"{self.command} {url.path}"
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests.append(f"{asked} {self.headers.get('Range', '')}".strip())
            self.fault = next((f for f in self.server.faults if re.search(f.pattern, asked)), None)
            if self.fault is not None:
                self.fault.times -= 1
                if self.fault.times == 0:
                    self.server.faults.remove(self.fault)
        try:
            if self.fault is not None and self.fault.status is not None:
                raise RefusalError(self.fault.status, **self.fault.headers)
            for methods, pattern, name in ROUTES:
                found = re.fullmatch(pattern, url.path)
                if found and self.command in methods.split("|"):
                    parts = {k: unquote(v) for k, v in found.groupdict().items() if v}
                    return getattr(self, name)(**parts)
            raise RefusalError(404)
        except RefusalError as refusal:
            self.send(refusal.status, b"{}", **refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        fault = self.fault or Fault("")
        if fault.spoil is not None:
            body = fault.spoil(body)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut is not None:
            body, self.close_connection = body[: fault.cut], True
        block = 1024 if fault.pause else len(body) or 1
        try:
            for start in range(0, len(body), block):
                self.wfile.write(body[start : start + block])
                time.sleep(fault.pause)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def json(self, content: object, status: int = 200) -> None:
        self.send(status, json.dumps(content).encode(), Content_Type="application/json")

    def user(self) -> bool:
        """Whether the request has the owner's token; a wrong one is refused."""
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {TOKEN}":
            raise RefusalError(401, X_Error_Message="Invalid credentials in Authorization header")
        return given is not None

    def owner(self) -> None:
        if not self.user():
            raise RefusalError(401)

    def repository(self, type: str, id: str) -> Repository:
        found = self.server.repositories.get((type.removesuffix("s/"), id))
        mine = self.user()
        # The Hub does not tell what is private from what is not there.
        if found is None or (found.private and not mine):
            raise RefusalError(404 if mine else 401, "RepoNotFound")
        return found

    def commit_of(self, type: str, id: str, rev: str) -> Commit:
        found = self.repository(type, id).at(rev)
        if found is None:
            raise RefusalError(404, "RevisionNotFound")
        return found

    def whoami(self) -> None:
        self.owner()
        self.json({"name": "me", "type": "user", "orgs": []})

    def validate_yaml(self) -> None:
        header = re.match(r"---\r?\n(.*?)---", json.loads(self.body)["content"], re.DOTALL)
        try:
            yaml.safe_load(header[1] if header else "")
        except yaml.YAMLError as error:
            return self.json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return self.json({"errors": [], "warnings": []})

    def create(self) -> None:
        self.owner()
        asked = json.loads(self.body)
        key = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            raise RefusalError(403, X_Error_Message="You don't have the rights")
        url = f"{self.server.url}/{'datasets/' * (key[0] == 'dataset')}{key[1]}"
        there = key in self.server.repositories
        if not there:
            private = asked.get("visibility") == "private"
            self.server.repositories[key] = Repository(private)
        self.json({"url": url}, 409 if there else 200)

    def info(self, type: str, id: str, rev: str = "main") -> None:
        commit, private = self.commit_of(type, id, rev), self.repository(type, id).private
        siblings = [{"rfilename": path} for path in commit.files]
        self.json(
            {"id": id, "sha": commit.oid, "private": private, "siblings": siblings, "tags": []}
        )

    def tree(self, type: str, id: str, rev: str) -> None:
        rows = []
        for path, content in sorted(self.commit_of(type, id, rev).files.items()):
            row = {"type": "file", "path": path, "size": len(content), "oid": oid_of("", content)}
            if is_lfs(path):
                row["lfs"] = {"oid": oid_of(path, content), "size": len(content)}
                row["lfs"]["pointerSize"] = 130
            rows.append(row)
        self.json(rows)

    def refs(self, type: str, id: str) -> None:
        found = self.repository(type, id)
        self.json(
            {
                kind: [
                    {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid}
                    for name, oid in names.items()
                ]
                for kind, folder, names in (
                    ("branches", "heads", found.branches),
                    ("tags", "tags", found.tags),
                    ("converts", "convert", {}),
                )
            }
        )

    def make_branch(self, type: str, id: str, branch: str) -> None:
        self.owner()
        found = self.repository(type, id)
        if branch in found.branches:
            raise RefusalError(409)
        found.branches[branch] = found.branches["main"]
        self.json({})

    def make_tag(self, type: str, id: str, rev: str) -> None:
        self.owner()
        tag, found = json.loads(self.body)["tag"], self.repository(type, id)
        if tag in found.tags:
            raise RefusalError(409)
        found.tags[tag] = self.commit_of(type, id, rev).oid
        self.json({})

    def preupload(self, type: str, id: str, rev: str) -> None:
        self.owner()
        files = self.commit_of(type, id, rev).files
        rows = []
        for asked in json.loads(self.body)["files"]:
            path = asked["path"]
            mode = "lfs" if is_lfs(path) else "regular"
            row = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            rows.append(row | ({"oid": oid_of(path, files[path])} if path in files else {}))
        self.json({"files": rows})

    def lfs_batch(self, id: str, type: str = "models/") -> None:
        self.owner()
        rows = []
        for asked in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}", "header": {}}}
            new = asked["oid"] not in self.server.objects
            rows.append(asked | ({"actions": upload} if new else {}))
        self.json({"transfer": "basic", "objects": rows})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusalError(400)
        self.server.objects[oid] = self.body
        self.send(200)

    def commit(self, type: str, id: str, rev: str) -> None:
        self.owner()
        found, files, message = self.repository(type, id), {}, ""
        files |= self.commit_of(type, id, rev).files
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        with self.server.lock:
            pull_request = "create_pr" in self.query
            branch = f"refs/pr/{len(found.commits)}" if pull_request else rev
            made = found.commit(files, message, branch)
        url = f"{self.server.url}/{id}"
        answer = {"commitUrl": f"{url}/commit/{made.oid}", "commitOid": made.oid}
        if pull_request:
            answer["pullRequestUrl"] = f"{url}/discussions/{branch.rpartition('/')[2]}"
        self.json(answer)

    def resolve(self, id: str, rev: str, path: str, type: str = "models/") -> None:
        commit = self.commit_of(type, id, rev)
        if path not in commit.files:
            raise RefusalError(404, "EntryNotFound", X_Repo_Commit=commit.oid)
        content = commit.files[path]
        oid = oid_of(path, content)
        headers = {"X_Repo_Commit": commit.oid, "ETag": f'"{oid}"'}
        if not is_lfs(path):
            return self.send(200, content, **headers)
        self.server.objects[oid] = content
        headers |= {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(len(content))}
        # To another host, as on the Hub: the client follows its own host and loses the headers.
        place = f"http://localhost:{self.server.server_port}/lfs/{oid}"
        return self.send(302, b"", Location=place, **headers)

    def lfs_get(self, oid: str) -> None:
        content = self.server.objects[oid]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked is None:
            return self.send(200, content)
        start, size = int(asked[1]), len(content)
        return self.send(206, content[start:], Content_Range=f"bytes {start}-{size - 1}/{size}")


if __name__ == "__main__":
    hub = StandInHub()
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
    hub.serve_forever()
