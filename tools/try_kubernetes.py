"""Tries the whole system on a Kubernetes cluster, and prints a table of what held.

    python tools/try_kubernetes.py [--only STEP,…]

KUBECONFIG names the cluster. Its nodes have the images of k8s/overlays/local (README, "On Kubernetes"). Everything
happens in the namespace `tunesmith`, which is left as it is at the end. Standard library and kubectl only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OVERLAY = ROOT / "k8s" / "overlays" / "local"
NAMESPACE = "tunesmith"
SERVICES = {"scraper": 50401, "captioner": 50402, "trainer": 50403, "generator": 50404}
SERVERS = ",".join(f"{name}={name}:{port}" for name, port in SERVICES.items())
READY_LIMIT_S = 180.0
CALLS_PER_S = 50

CLIENT = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "client", "labels": {"app.kubernetes.io/name": "client", "tunesmith.io/client": "true"}},
    "spec": {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "client",
                "image": "tunesmith-scraper:0.1.0",
                "command": ["python", "-c", "import time; time.sleep(10**9)"],
                "env": [
                    {"name": "HOME", "value": "/tmp"},  # in the pod
                    {"name": "TUNESMITH_DATA", "value": "/tmp/data"},
                    {"name": "TUNESMITH_SERVER", "value": SERVERS},
                ],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}

LOAD = """
import asyncio, collections, os, sys, time
import grpc
from tunesmith.cli.connection import KEEPALIVE_S, SERVICE_CONFIG
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc

async def main(targets, rate, stop_after_s):
    config = SERVICE_CONFIG.read_text("utf-8")
    options = [("grpc.service_config", config), ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000)]
    stubs = [jobs_pb2_grpc.JobServiceStub(grpc.aio.insecure_channel(target, options=options)) for target in targets]
    known = await stubs[0].ListJobs(jobs_pb2.ListJobsRequest(page_size=1), timeout=60)
    request = jobs_pb2.GetJobRequest(job_id=known.jobs[0].id)
    failed, waits, under_way = collections.Counter(), [], set()

    async def call(stub):
        began = time.monotonic()
        try:
            await stub.GetJob(request, timeout=30)
        except grpc.RpcError as error:
            failed[f"{error.code().name}: {error.details()[:120]}"] += 1
        waits.append(time.monotonic() - began)

    # Each call begins when it is due, however long those before it take; a pause of this process is made up for.
    began, number = time.monotonic(), 0
    while not os.path.exists("/tmp/stop") and time.monotonic() - began < stop_after_s:
        task = asyncio.create_task(call(stubs[number % len(stubs)]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        number += 1
        await asyncio.sleep(began + number / rate - time.monotonic())
    took_s = time.monotonic() - began
    await asyncio.gather(*under_way)
    waits.sort()
    print(f"{len(waits)} calls at {number / took_s:.0f}/s, {sum(failed.values())} failed, "
          f"p99 {1000 * waits[int(len(waits) * 0.99)]:.0f} ms, the longest {waits[-1]:.1f} s {dict(failed) or ''}")

asyncio.run(main(sys.argv[1].split(","), float(sys.argv[2]), float(sys.argv[3])))
"""


class Failed(Exception):
    """A step that did not hold; the message says what was seen."""


def kubectl(*words: str, given: str = "", check: bool = True, timeout_s: float = 600.0) -> str:
    """Output of kubectl in the namespace."""
    done = subprocess.run(
        ["kubectl", "-n", NAMESPACE, *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode:
        raise Failed(f"kubectl {' '.join(words)[:80]}: {done.stderr.strip()[-300:]}")
    return done.stdout


def listed(kind: str, *words: str) -> list[dict[str, Any]]:
    """Objects of a kind."""
    items: list[dict[str, Any]] = json.loads(kubectl("get", kind, "-o", "json", *words))["items"]
    return items


def until(what: str, condition: Callable[[], Any], *, limit_s: float, pause_s: float = 1.0) -> Any:
    """The first truthy value of `condition`."""
    began = time.monotonic()
    while not (value := condition()):
        if time.monotonic() - began > limit_s:
            raise Failed(f"{what}: not within {limit_s:.0f} s")
        time.sleep(pause_s)
    return value


def volumes() -> str:
    """Where the cluster has no StorageClass, volumes on this machine, which is then its node."""
    classes = json.loads(kubectl("get", "storageclass", "-o", "json"))["items"]
    if classes:
        return f"StorageClass {classes[0]['metadata']['name']}"
    node = listed("nodes")[0]["metadata"]["name"]
    made = []
    for name, size in (("kafka", "5Gi"), ("minio", "10Gi")):
        folder = Path("/var/lib/tunesmith-try") / name
        folder.mkdir(parents=True, exist_ok=True)
        made.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"tunesmith-{name}"},
                "spec": {
                    "capacity": {"storage": size},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": NAMESPACE, "name": name},
                    "local": {"path": str(folder)},
                    "nodeAffinity": {
                        "required": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
                                    ]
                                }
                            ]
                        }
                    },
                },
            }
        )
    kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    return f"{len(made)} volumes on {node}"


_applied_s: list[float] = []
"""When the overlay was applied first in this run of the tool."""


def apply_twice() -> str:
    """`kubectl apply -k`, twice in a row."""
    _applied_s.append(time.monotonic())
    kubectl("apply", "-k", str(OVERLAY))
    second = kubectl("apply", "-k", str(OVERLAY)).splitlines()
    # "configured" may mean that only defaults were sent again; a difference is what counts.
    difference = kubectl("diff", "-k", str(OVERLAY), check=False)
    if difference.strip():
        raise Failed(f"the second apply left a difference: {difference[:200]}")
    return f"{len(second)} objects, no difference after the second time"


def all_ready() -> str:
    """All pods of Deployments and StatefulSets Ready, and the setup done, counted from the first apply."""
    began = _applied_s[0] if _applied_s else time.monotonic()
    until("all pods ready", lambda: _not_ready() == [], limit_s=began + READY_LIMIT_S - time.monotonic())
    until("setup done", lambda: "True" in _setup_state(), limit_s=began + READY_LIMIT_S - time.monotonic())
    return f"{len(listed('pods'))} pods after {time.monotonic() - began:.0f} s"


def _setup_state() -> str:
    return kubectl("get", "job", "setup", "-o", "jsonpath={.status.conditions[?(@.type=='Complete')].status}")


def _not_ready() -> list[str]:
    missing = []
    for kind in ("deployments", "statefulsets"):
        for item in listed(kind):
            status, wanted = item.get("status", {}), item["spec"]["replicas"]
            seen = status.get("observedGeneration") == item["metadata"]["generation"]
            if (
                not seen
                or status.get("readyReplicas", 0) != wanted
                or status.get("updatedReplicas", 0) != wanted
                or status.get("replicas", 0) != wanted
            ):
                missing.append(item["metadata"]["name"])
    return missing


def client() -> str:
    """A pod to call from, as a user's pod in the cluster would."""
    if "client" not in [pod["metadata"]["name"] for pod in listed("pods")]:
        kubectl("apply", "-f", "-", given=json.dumps(CLIENT))
    kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s")
    return "ready"


def tunesmith(*words: str, timeout_s: float = 1500.0) -> Any:
    """What `tunesmith --json …` prints in the client's pod. Refused by the gates (exit code 3) is an answer too."""
    command = ["kubectl", "-n", NAMESPACE, "exec", "client", "--", "tunesmith", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode not in (0, 3):
        raise Failed(f"tunesmith {' '.join(words)}: {(done.stderr or done.stdout).strip()[-300:]}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        return json.loads(done.stdout.strip().splitlines()[-1])


def run_to_champion(*, disturb: Callable[[], str] = lambda: "") -> str:
    """A micro-genre run over gRPC, of a seed that was not trained with yet, while `disturb` does its worst."""
    told: list[str] = []
    failed: list[str] = []

    def work() -> None:
        try:
            told.append(disturb())
        except (Failed, subprocess.SubprocessError) as error:
            failed.append(str(error))

    began, before, models_before = time.monotonic(), _jobs_by_kind(), len(_models())
    thread = threading.Thread(target=work)
    thread.start()
    tunesmith("run", "micro_genre", "--set", f"seed={42 + before.get('tune', 0)}", "--samples", "5")
    thread.join()
    if failed:
        raise Failed(failed[0])
    models = _models()
    champion = next((model["id"] for model in models if model.get("champion")), "")
    if not champion:
        raise Failed("no champion")
    new = {kind: count - before.get(kind, 0) for kind, count in _jobs_by_kind().items()}
    doubled = [kind for kind, count in new.items() if count > 1]
    if doubled or len(models) - models_before != 1:
        raise Failed(f"{len(models) - models_before} model versions; doubled jobs: {doubled or 'none'}")
    attempts = max(job.get("attempt", 0) for job in tunesmith("jobs", "list", "--kind", "tune")["jobs"])
    return (
        f"champion {champion}, 1 version after {time.monotonic() - began:.0f} s, up to {attempts} attempts; "
        f"{told[0] or 'undisturbed'}"
    )


def _jobs_by_kind() -> dict[str, int]:
    counts: dict[str, int] = {}
    for job in tunesmith("jobs", "list").get("jobs", []):
        counts[job["kind"]] = counts.get(job["kind"], 0) + 1
    return counts


def _models() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tunesmith("models", "micro_genre")["models"]
    return found


def delete_training_pod_three_times() -> str:
    """Take away the pod that trains, each attempt's once it has really begun."""
    names: list[str] = []
    for attempt in range(1, 4):
        pod = until(f"attempt {attempt} trains", lambda: _training_pod(names), limit_s=600.0, pause_s=0.5)
        time.sleep(15.0)
        kubectl("delete", "pod", pod, "--wait=false", check=False)
        names.append(pod)
    return f"deleted {len(names)} training pods"


def _training_pod(seen: Sequence[str]) -> str:
    for pod in listed("pods", "-l", "tunesmith.io/kind=tune"):
        if pod["metadata"]["name"] not in seen and pod["status"].get("phase") == "Running":
            return str(pod["metadata"]["name"])
    return ""


def delete_every_pod() -> str:
    """Every pod of every service, of the broker and the store, one after the other."""
    gone = 0
    for name in ("kafka", "minio", *SERVICES):
        for pod in listed("pods", "-l", f"app.kubernetes.io/name={name}"):
            kubectl("delete", "pod", pod["metadata"]["name"], "--timeout=120s")
            gone += 1
            until(f"{name} ready again", lambda: _not_ready() == [], limit_s=300.0)
    return f"deleted {gone} pods"


def rolling_update() -> str:
    """All four services roll under load."""
    targets = ",".join(f"{name}:{port}" for name, port in SERVICES.items())
    kubectl("exec", "client", "--", "rm", "-f", "/tmp/stop")
    words = ["exec", "client", "--", "python", "-c", LOAD, targets, str(CALLS_PER_S), "900"]
    told: list[str] = []
    load = threading.Thread(target=lambda: told.append(kubectl(*words, timeout_s=1200)))
    load.start()
    time.sleep(5.0)
    kubectl("rollout", "restart", *[f"deployment/{name}" for name in SERVICES])
    for name in SERVICES:
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=400s")
    time.sleep(12.0)  # the last old pods end
    kubectl("exec", "client", "--", "touch", "/tmp/stop")
    load.join()
    if " 0 failed" not in told[0] or float(told[0].partition(" calls at ")[2].partition("/s")[0]) < 0.9 * CALLS_PER_S:
        raise Failed(told[0].strip())
    return told[0].strip()


TROUBLES: dict[str, tuple[dict[str, str], str]] = {
    "image cannot be pulled": ({"IMAGE": "no.such.registry/tunesmith:9"}, "IMAGE_NOT_PULLED"),
    "secret missing": ({"ENV_FROM": "configmap/tunesmith,secret/no-such-secret"}, "SECRET_MISSING"),
    "no node with a GPU": ({"WORK__GPU": "1"}, "NO_GPU"),
    "quota used up": ({}, "QUOTA_EXHAUSTED"),
    "no right to create Jobs": ({}, "FORBIDDEN"),
    "service account missing": ({"SERVICE_ACCOUNT": "nobody"}, "POD_REFUSED"),
}


def trouble(what: str) -> str:
    """A surrounding that does not let Jobs run: the job must end with the reason, and with the fix."""
    settings, reason = TROUBLES[what]
    quick = {"START_TIMEOUT_S": "15", "SCHEDULE_TIMEOUT_S": "15", **settings}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "nothing"},
        "spec": {"hard": {"pods": "0"}},
    }
    try:
        kubectl("set", "env", "deployment/scraper", *[f"TUNESMITH_KUBERNETES_{k}={v}" for k, v in quick.items()])
        kubectl("rollout", "status", "deployment/scraper", "--timeout=300s")
        # An old pod that is ending still launches, by its own settings.
        until("one generation", lambda: len(listed("pods", "-l", "app.kubernetes.io/name=scraper")) == 2, limit_s=120)
        if what == "quota used up":
            kubectl("apply", "-f", "-", given=json.dumps(quota))
        if what == "no right to create Jobs":
            kubectl("delete", "rolebinding", "tunesmith-launcher")
        began, known = time.monotonic(), {job["id"] for job in tunesmith("jobs", "list")["jobs"]}
        text = "".join(f"{what} {began:.0f} {n}\n" for n in range(30))
        kubectl("exec", "-i", "client", "--", "sh", "-c", "cat > /tmp/t.txt", given=text)
        collect = ("collect", "micro_genre", "--source", "/tmp/t.txt", "--licence", "CC0-1.0")
        kubectl("exec", "client", "--", "tunesmith", *collect, check=False)
        new = [job for job in tunesmith("jobs", "list")["jobs"] if job["id"] not in known]
        if len(new) != 1:
            raise Failed(f"{len(new)} new jobs")
        [job] = new
        error = job.get("error") or {}
        if error.get("reason") != reason:
            raise Failed(f"the job is {job.get('state', job.get('phase'))} with {error or 'no error'}")
        return f"{reason} after {time.monotonic() - began:.0f} s: {error['message'][:90]}…"
    finally:
        kubectl("delete", "resourcequota", "nothing", "--ignore-not-found")
        kubectl("set", "env", "deployment/scraper", *[f"TUNESMITH_KUBERNETES_{k}-" for k in quick])
        kubectl("apply", "-k", str(OVERLAY))
        kubectl("rollout", "status", "deployment/scraper", "--timeout=300s")


STEPS: dict[str, Callable[[], str]] = {
    "volumes": volumes,
    "apply": apply_twice,
    "ready": all_ready,
    "client": client,
    "run": run_to_champion,
    "training-pod": lambda: run_to_champion(disturb=delete_training_pod_three_times),
    "any-pod": lambda: run_to_champion(disturb=delete_every_pod),
    "rolling": rolling_update,
    **{what.replace(" ", "-"): (lambda what=what: trouble(what)) for what in TROUBLES},  # type: ignore[misc]
}


def main(argv: Sequence[str]) -> int:
    """Run the steps; 1 when one did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STEPS), help=f"steps, of {', '.join(STEPS)}")
    chosen = parser.parse_args(argv).only.split(",")
    if unknown := [name for name in chosen if name not in STEPS]:
        parser.error(f"no such step: {', '.join(unknown)}")
    rows = []
    for name in chosen:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows.append((name, "held", STEPS[name]()))
        except (Failed, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
            rows.append((name, "FAILED", str(error)))
        print("  " + "  ".join(rows[-1][1:]), file=sys.stderr, flush=True)
    width = max(len(name) for name, _, _ in rows)
    for name, outcome, told in rows:
        print(f"{name:{width}}  {outcome:6}  {told}")
    return int(any(outcome != "held" for _, outcome, _ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
