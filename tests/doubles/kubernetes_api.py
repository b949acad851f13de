"""A small API server of Kubernetes on localhost, with a Job controller and a kubelet that run real processes.

It speaks what the launcher uses: create, get, list (in pages), watch, merge-patch and delete of Jobs, and pods, logs
and events; and of Deployments and PodTemplates what replicas use, where tests write the pods' states. It can be
told to refuse, to break off, to forget its history (410), and to be away.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Object = dict[str, Any]

_PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1|apis/apps/v1)/namespaces/(?P<ns>[^/]+)/"
    r"(?P<res>jobs|pods|events|deployments|podtemplates)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)


class FakeCluster:
    """The cluster's objects and the processes of its pods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.version = 1000
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.history_from = 0
        self.watchers: list[tuple[str, queue.Queue[tuple[str, Object] | None]]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.answers: list[tuple[Callable[[str, str], bool], int, Object]] = []
        self.is_away = False
        self.runs_pods = True
        """Whether a Job gets a pod with a process; else a test makes pods itself."""
        cluster = self

        class Handler(_Handler):
            pass

        Handler.cluster = cluster
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                    "users": [{"name": "me", "user": {"token": "secret"}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": "music"}}],
                }
            )
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.sever()
        self.server.shutdown()
        self.server.server_close()
        for process in self.processes.values():
            process.kill()
            process.wait()

    def answer_next(self, code: int, message: str, *, reason: str = "", on: Callable[[str, str], bool]) -> None:
        """Answer the next request for which `on(method, path)` holds with this Status, and do nothing else."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        self.answers.append((on, code, status | {"message": message, "reason": reason}))

    def sever(self) -> None:
        """Break off all watches."""
        with self.lock:
            for _, events in self.watchers:
                events.put(None)

    def garble(self) -> None:
        """Tell the watches of every object without its version, as no API server should."""
        with self.lock:
            for (kind, _), item in self.objects.items():
                meta = {key: value for key, value in item["metadata"].items() if key != "resourceVersion"}
                for watched, events in self.watchers:
                    if watched == kind:
                        events.put(("MODIFIED", {**item, "metadata": meta}))

    def forget_history(self) -> None:
        """Let every version before now be too old to watch from."""
        with self.lock:
            self.version += 1
            self.history.clear()
            self.history_from = self.version

    def write(self, kind: str, item: Object, *, change: str = "MODIFIED") -> None:
        """Store the next version of an object and tell watchers."""
        with self.lock:
            self.version += 1
            item = json.loads(json.dumps(item))
            item["metadata"]["resourceVersion"] = str(self.version)
            key = (kind, item["metadata"]["name"])
            if change == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = item
            self.history.append((self.version, kind, change, item))
            for watched, events in self.watchers:
                if watched == kind:
                    events.put((change, item))

    def get(self, kind: str, name: str) -> Object | None:
        with self.lock:
            return self.objects.get((kind, name))

    def job(self, name: str) -> Object:
        found = self.get("jobs", name)
        assert found is not None, name
        return found

    def add_event(self, uid: str, reason: str, message: str) -> None:
        name = f"event-{uuid.uuid4().hex}"
        meta = {"name": name, "uid": name}
        self.write(
            "events",
            {"metadata": meta, "involvedObject": {"uid": uid}, "reason": reason, "message": message},
            change="ADDED",
        )

    def add_pod(self, job: str, status: Object, *, name: str = "", deleted: bool = False) -> Object:
        """A pod of a Job in some state."""
        owner = self.job(job)["metadata"]
        meta = {
            "name": name or f"{job}-{uuid.uuid4().hex[:5]}",
            "uid": str(uuid.uuid4()),
            "labels": {
                **self.job(job)["spec"]["template"]["metadata"]["labels"],
                "batch.kubernetes.io/controller-uid": owner["uid"],
                "batch.kubernetes.io/job-name": job,
            },
            "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        pod = {"metadata": meta, "spec": {}, "status": status}
        self.write("pods", pod, change="ADDED")
        return pod

    def create_deployment(self, deployment: Object) -> Object:
        """As it is at first: its pods are not there yet."""
        deployment = json.loads(json.dumps(deployment))
        deployment["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
        deployment["status"] = {}
        name = str(deployment["metadata"]["name"])
        self.write("deployments", deployment, change="ADDED")
        found = self.get("deployments", name)
        assert found is not None
        return found

    def set_deployment(self, name: str, status: Object, *, pod: Object | None = None) -> None:
        """Its status, and that of its one pod."""
        with self.lock:
            found = self.get("deployments", name)
            assert found is not None, name
            self.write("deployments", {**found, "status": status})
            labels = found["spec"]["template"]["metadata"]["labels"]
            meta = {"name": f"{name}-pod", "uid": f"{name}-pod", "labels": labels}
            if pod is not None:
                self.write("pods", {"metadata": meta, "spec": {}, "status": pod}, change="ADDED")

    def delete_deployment(self, name: str) -> None:
        with self.lock:
            for kind, one in [("deployments", name), ("pods", f"{name}-pod")]:
                if found := self.get(kind, one):
                    self.write(kind, found, change="DELETED")

    def fail(self, job: str, reason: str, message: str = "") -> None:
        """End a Job as failed."""
        self._end(job, {"type": "Failed", "status": "True", "reason": reason, "message": message})

    def create(self, job: Object) -> Object:
        job = json.loads(json.dumps(job))
        job["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
        job["status"] = {}
        self.write("jobs", job, change="ADDED")
        if self.runs_pods and not job["spec"].get("suspend"):
            self._start(job)
        return self.job(job["metadata"]["name"])

    def patch(self, name: str, patch: Object) -> Object:
        with self.lock:
            job = json.loads(json.dumps(self.job(name)))
            job["metadata"].setdefault("annotations", {}).update(patch.get("metadata", {}).get("annotations", {}))
            job["spec"].update(patch.get("spec", {}))
            self.write("jobs", job)
        if patch.get("spec", {}).get("activeDeadlineSeconds") == 1 and not job["status"].get("conditions"):
            threading.Thread(target=self._expire, args=(name,), daemon=True).start()
        return self.job(name)

    def delete_pod(self, name: str, grace_s: float) -> None:
        pod = self.get("pods", name)
        if pod is None:
            return
        pod = json.loads(json.dumps(pod))
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
        self.write("pods", pod)
        threading.Thread(target=self._terminate, args=(name, grace_s), daemon=True).start()

    def delete_job(self, name: str) -> None:
        job = self.job(name)
        for pod in self._pods_of(job):
            self.delete_pod(pod["metadata"]["name"], 1.0)
            if pod["metadata"]["name"] not in self.processes:
                self.write("pods", pod, change="DELETED")
        self.write("jobs", job, change="DELETED")

    def _start(self, job: Object) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        env = {**os.environ, **{e["name"]: e["value"].replace("$$(", "$(") for e in container["env"]}}
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                [word.replace("$$(", "$(") for word in container["command"]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
            )
        self.processes[name] = process
        pod = self.add_pod(
            job["metadata"]["name"],
            {"phase": "Running", "containerStatuses": [{"name": "worker", "state": {"running": {}}}]},
            name=name,
        )
        threading.Thread(target=self._wait, args=(pod, process), daemon=True).start()

    def _wait(self, pod: Object, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        name, job = pod["metadata"]["name"], pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        terminated = {"exitCode": 128 - code if code < 0 else code, "reason": "Completed" if code == 0 else "Error"}
        with self.lock:
            current = json.loads(json.dumps(self.get("pods", name) or pod))
            current["status"] = {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [{"name": "worker", "state": {"terminated": terminated}}],
            }
            self.write("pods", current)
            found = self.get("jobs", job)
            if (
                found is not None
                and found["metadata"]["uid"] == pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"]
            ):
                if code == 0:
                    self._end(job, {"type": "Complete", "status": "True"})
                elif found["spec"].get("activeDeadlineSeconds") == 1:
                    self.fail(job, "DeadlineExceeded")
                else:
                    self.fail(job, "BackoffLimitExceeded")

    def _terminate(self, name: str, grace_s: float) -> None:
        process = self.processes.get(name)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _expire(self, name: str) -> None:
        job = self.get("jobs", name)
        pods = self._pods_of(job) if job else []
        for pod in pods:
            if pod["metadata"]["name"] not in self.processes:
                self.write("pods", pod, change="DELETED")
        if not any(pod["metadata"]["name"] in self.processes for pod in pods):
            self.fail(name, "DeadlineExceeded")

    def _pods_of(self, job: Object) -> list[Object]:
        with self.lock:
            uid = job["metadata"]["uid"]
            pods = [item for (kind, _), item in self.objects.items() if kind == "pods"]
            return [pod for pod in pods if pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] == uid]

    def _end(self, name: str, condition: Object) -> None:
        with self.lock:
            found = self.get("jobs", name)
            if found is None or found["status"].get("conditions"):
                return
            job = json.loads(json.dumps(found))
            job["status"] = {"conditions": [condition]}
            self.write("jobs", job)


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        cluster = self.cluster
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        cluster.requests.append((self.command, self.path))
        if cluster.is_away:
            self.close_connection = True
            return
        for planned in cluster.answers:
            if planned[0](self.command, self.path):
                cluster.answers.remove(planned)
                self._answer(planned[1], planned[2])
                return
        match = _PATH.fullmatch(parts.path)
        if match is None or self.headers.get("Authorization") != "Bearer secret":
            self._status(401 if match else 404, "Unauthorized" if match else f"no {parts.path}", "")
        elif match["ns"] != "music":
            self._status(404, f'namespaces "{match["ns"]}" not found', "NotFound")
        elif match["log"]:
            self._log(match["name"], query)
        elif match["name"]:
            self._one(match["res"], match["name"], body)
        elif self.command == "POST":
            self._create(match["res"], body)
        elif query.get("watch"):
            self._watch(match["res"], query)
        else:
            self._list(match["res"], query)

    def _create(self, kind: str, item: Object) -> None:
        name = item["metadata"]["name"]
        with self.cluster.lock:
            if self.cluster.get(kind, name):
                self._status(409, f'{kind} "{name}" already exists', "AlreadyExists")
            elif kind == "deployments":
                self._answer(201, self.cluster.create_deployment(item))
            else:
                self._answer(201, self.cluster.create(item))

    def _one(self, kind: str, name: str, body: Object) -> None:
        found = self.cluster.get(kind, name)
        if found is None:
            self._status(404, f'{kind} "{name}" not found', "NotFound")
        elif self.command == "GET":
            self._answer(200, found)
        elif self.command == "PATCH":
            self._answer(200, self.cluster.patch(name, body))
        elif kind == "pods":
            self.cluster.delete_pod(name, float(body["gracePeriodSeconds"]))
            self._answer(200, found)
        elif body["preconditions"]["uid"] != found["metadata"]["uid"]:
            self._status(409, "Precondition failed: UID", "Conflict")
        else:
            if kind == "deployments":
                self.cluster.delete_deployment(name)
            else:
                self.cluster.delete_job(name)
            self._answer(200, {"kind": "Status", "status": "Success"})

    def _log(self, name: str, query: dict[str, str]) -> None:
        path = self.cluster.folder / f"{name}.log"
        if self.cluster.get("pods", name) is None or not path.exists():
            self._status(404, f'pods "{name}" not found', "NotFound")
            return
        lines = path.read_bytes().splitlines(keepends=True)[-int(query["tailLines"]) :]
        self._answer(200, b"".join(lines)[: int(query["limitBytes"])])

    def _list(self, kind: str, query: dict[str, str]) -> None:
        with self.cluster.lock:
            items = [
                item for (k, _), item in sorted(self.cluster.objects.items()) if k == kind and _selected(item, query)
            ]
            meta = {"resourceVersion": str(self.cluster.version)}
        start, size = int(query.get("continue", 0)), min(int(query.get("limit", 500)), 3)
        if start + size < len(items):
            meta["continue"] = str(start + size)
        self._answer(200, {"metadata": meta, "items": items[start : start + size]})

    def _watch(self, kind: str, query: dict[str, str]) -> None:
        cluster, since = self.cluster, int(query["resourceVersion"])
        events: queue.Queue[tuple[str, Object] | None] = queue.Queue()
        with cluster.lock:
            is_gone = since < cluster.history_from
            for version, changed, change, item in cluster.history:
                if changed == kind and version > since:
                    events.put((change, item))
            cluster.watchers.append((kind, events))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            if is_gone:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                self._chunk({"type": "ERROR", "object": status})
                return
            while (event := events.get()) is not None:
                if _selected(event[1], query):
                    self._chunk({"type": event[0], "object": event[1]})
        except OSError:
            pass
        finally:
            with cluster.lock:
                cluster.watchers.remove((kind, events))

    def _chunk(self, event: Object) -> None:
        data = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _status(self, code: int, message: str, reason: str) -> None:
        self._answer(code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})

    def _answer(self, code: int, body: Object | bytes) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _selected(item: Object, query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    wanted = [part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part]
    field = query.get("fieldSelector", "").partition("involvedObject.uid=")[2]
    return all(labels.get(key) == value for key, value in wanted) and (
        not field or item.get("involvedObject", {}).get("uid") == field
    )
