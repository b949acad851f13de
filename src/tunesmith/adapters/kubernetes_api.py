"""The calls of the API server that launcher and replicas need, as plain JSON, on the official client."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.domain.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)

if TYPE_CHECKING:
    from kubernetes import client

Object = dict[str, Any]
"""An object as the API server wrote it: JSON, which has no better type."""

TIMEOUT_S = (3.0, 15.0)
"""To connect, and between two packets of an answer."""

WATCH_S = 60
"""How long one watch lasts; then it is asked for again from where it was."""

PAGE_SIZE = 500
MAX_LOG_BYTES = 1 << 20

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Gone(Exception):
    """The place to watch from is too old (410): everything must be listed again."""


class KubernetesApi:
    """Thread-safe. Connects, and imports the client, with the first call.

    Every method raises Unavailable while the API server does not answer, or answers 429 or 5xx.
    """

    def __init__(self, *, namespace: str = "", kubeconfig: str = "", context: str = "") -> None:
        self._wanted_namespace = namespace
        self._kubeconfig = kubeconfig
        self._context = context
        self._lock = threading.Lock()
        self._client: client.ApiClient | None = None
        self._namespace = ""

    @property
    def namespace(self) -> str:
        """Where everything is."""
        self._connected()
        return self._namespace

    def create_job(self, job: Object) -> Object:
        """AlreadyExists, PermissionRefused, ResourceExhausted, InvalidInput, FailedPrecondition."""
        return self._json("POST", self._jobs(), body=job)

    def get_job(self, name: str) -> Object:
        """NotFound."""
        return self._json("GET", self._jobs(name))

    def patch_job(self, name: str, patch: Mapping[str, Any]) -> Object:
        """Merge `patch` into the Job; NotFound."""
        return self._json("PATCH", self._jobs(name), body=dict(patch), content_type="application/merge-patch+json")

    def delete_job(self, name: str, *, uid: str) -> None:
        """Delete the Job and, in the background, its pods; NotFound, Conflict when it is another Job by now."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self._json("DELETE", self._jobs(name), body=body)

    def create_deployment(self, deployment: Object) -> Object:
        """AlreadyExists, PermissionRefused, ResourceExhausted, InvalidInput, FailedPrecondition."""
        return self._json("POST", self._collection("deployments"), body=deployment)

    def get_deployment(self, name: str) -> Object:
        """NotFound."""
        return self._json("GET", f"{self._collection('deployments')}/{name}")

    def delete_deployment(self, name: str, *, uid: str) -> None:
        """Delete the Deployment and, in the background, its pods; NotFound, Conflict when it is another by now."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self._json("DELETE", f"{self._collection('deployments')}/{name}", body=body)

    def get_pod_template(self, name: str) -> Object:
        """NotFound."""
        return self._json("GET", self._core("podtemplates", name))

    def get_pod(self, name: str) -> Object:
        """NotFound."""
        return self._json("GET", self._core("pods", name))

    def delete_pod(self, name: str, *, grace_s: int) -> None:
        """SIGTERM, and SIGKILL after `grace_s`; NotFound."""
        self._json("DELETE", self._core("pods", name), body={"gracePeriodSeconds": grace_s})

    def pod_log(self, name: str, container: str, *, lines: int) -> bytes:
        """The last lines of a pod's log, at most MAX_LOG_BYTES of them; NotFound, InvalidInput before it has begun."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(MAX_LOG_BYTES)}
        return self._read("GET", self._core("pods", name) + "/log", query=query, accept="*/*")

    def events_about(self, uid: str) -> list[Object]:
        """Events about an object, in no order."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": "50"}
        return list(self._json("GET", self._core("events"), query=query).get("items", []))

    def list(self, resource: str, selector: str) -> tuple[list[Object], str]:
        """All `jobs`, `pods` or `deployments` that `selector` selects, and the version to watch from.

        Raises Gone, to begin again.
        """
        items: list[Object] = []
        query = {"labelSelector": selector, "limit": str(PAGE_SIZE)}
        while True:
            page = self._json("GET", self._collection(resource), query=query)
            items += page.get("items", [])
            more = page["metadata"].get("continue")
            if not more:
                return items, str(page["metadata"]["resourceVersion"])
            query["continue"] = more

    def watch(self, resource: str, selector: str, version: str) -> Iterator[tuple[str, Object]]:
        """Changes after `version` as (ADDED, MODIFIED, DELETED or BOOKMARK, object), for WATCH_S; raises Gone."""
        query = {
            "labelSelector": selector,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        # Longer than the server's own limit, so that only a connection that died silently runs into it.
        timeout_s = (TIMEOUT_S[0], WATCH_S + 15.0)
        response = self._open("GET", self._collection(resource), query=query, timeout_s=timeout_s)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(int(event["object"].get("code", 500)), event["object"])
                yield event["type"], event["object"]
        except ValueError as error:
            raise Unavailable(f"the API server's watch was cut off: {error}") from error
        except _transport_errors() as error:
            raise Unavailable(f"the API server's watch ended: {error}") from error
        finally:
            response.close()
            response.release_conn()

    def close(self) -> None:
        """Release connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _jobs(self, name: str = "") -> str:
        return f"{self._collection('jobs')}/{name}" if name else self._collection("jobs")

    def _core(self, resource: str, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self.namespace}/{resource}"
        return f"{path}/{name}" if name else path

    def _collection(self, resource: str) -> str:
        group = {"jobs": "batch", "deployments": "apps"}.get(resource)
        return f"/apis/{group}/v1/namespaces/{self.namespace}/{resource}" if group else self._core(resource)

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = self._read(method, path, query=query, body=body, content_type=content_type)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise Unavailable(f"the API server answered {method} {path} with something that is no JSON") from error
        if not isinstance(answer, dict):
            raise Unavailable(f"the API server answered {method} {path} with something that is no object")
        return answer

    def _read(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        response = self._open(method, path, query=query, body=body, content_type=content_type, accept=accept)
        try:
            return bytes(response.read())
        except _transport_errors() as error:
            raise Unavailable(f"the API server broke off its answer to {method} {path}: {error}") from error
        finally:
            response.release_conn()

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_s: tuple[float, float] = TIMEOUT_S,
    ) -> Any:
        """The response, of which nothing was read yet; an error for any status but success."""
        api = self._connected()
        serialized = api.param_serialize(
            method=method,
            resource_path=path,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept} | ({"Content-Type": content_type} if body is not None else {}),
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = api.call_api(*serialized, _request_timeout=timeout_s).response
        except _transport_errors() as error:
            raise Unavailable(f"the API server does not answer: {error}") from error
        if not 200 <= response.status < 300:
            try:
                told = response.read()
            except _transport_errors():
                told = b""
            finally:
                response.release_conn()
            raise _error(response.status, _status_object(told))
        return response

    def _connected(self) -> client.ApiClient:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> client.ApiClient:
        # Importing the client takes seconds.
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        configuration = client.Configuration()
        namespace = ""
        try:
            if not self._kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=configuration)
                namespace = _NAMESPACE_FILE.read_text().strip()
            else:
                # The client itself looks at the variable only when it is imported.
                path = self._kubeconfig or os.environ.get("KUBECONFIG") or None
                config.load_kube_config(path, self._context or None, client_configuration=configuration)
                contexts, active = config.list_kube_config_contexts(path)
                chosen = next((c for c in contexts if c["name"] == self._context), active)
                namespace = chosen["context"].get("namespace", "default")
        except (ConfigException, OSError, KeyError, TypeError) as error:
            raise InvalidSettings(
                f"the setting `kubernetes` finds no cluster ({error}): run in a pod with a service account, or "
                "set TUNESMITH_KUBERNETES_KUBECONFIG and TUNESMITH_KUBERNETES_CONTEXT"
            ) from error
        # A request that is repeated unasked could report the success of its first try as a failure.
        configuration.retries = False
        if not configuration.verify_ssl:
            import urllib3

            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._namespace = self._wanted_namespace or namespace
        return client.ApiClient(configuration)


def _transport_errors() -> tuple[type[BaseException], ...]:
    # ApiException: how the client tells of a certificate that it does not trust.
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    return (HTTPError, OSError, ApiException)


def _lines(response: Any) -> Iterator[bytes]:
    """Whole lines of a stream."""
    rest = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())


def _status_object(data: bytes) -> Object:
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"message": data[:500].decode(errors="replace")}


def _error(code: int, told: Object) -> TunesmithError | Gone:
    """The error that an API server's Status object means."""
    message = str(told.get("message", ""))[:1000]
    known: dict[int, Callable[[str], TunesmithError]] = {
        400: InvalidInput,
        401: lambda text: PermissionRefused(
            f"the API server refuses the credentials ({text}): renew the kubeconfig, or give the service's pod its "
            "service account's token",
            reason="CREDENTIALS_REFUSED",
        ),
        404: NotFound,
        405: InvalidInput,
        422: InvalidInput,
    }
    if code == 410:
        return Gone(message)
    if code == 409:
        return AlreadyExists(message) if told.get("reason") == "AlreadyExists" else Conflict(message)
    if code == 403:
        return _forbidden(message)
    if code in known:
        return known[code](message)
    return Unavailable(f"the API server answered {code}: {message or 'no reason'}", metadata={"status": str(code)})


def _forbidden(message: str) -> TunesmithError:
    if "exceeded quota" in message:
        return ResourceExhausted(
            f"the namespace's quota is used up ({message}): raise the ResourceQuota, or let other work end",
            reason="QUOTA_EXHAUSTED",
        )
    if "being terminated" in message:
        return FailedPrecondition(f"the namespace is being deleted ({message})", reason="NAMESPACE_GOING")
    return PermissionRefused(
        f"the API server forbids it ({message}): give the service's account the rights of k8s (Role "
        "tunesmith-launcher for Jobs, tunesmith-replicas for Deployments)",
        reason="FORBIDDEN",
    )
