"""Settings of the Kubernetes launcher: where Jobs go and what their pods look like."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

GPU_KINDS = ("tune", "judge", "sweep")
"""Kinds of jobs that compute with a model: only their pods get GPUs."""

MODEL_KINDS = (*GPU_KINDS, "publish")
"""Kinds of jobs that load a model. Publishing merges on the CPU, for the same bytes everywhere."""

SHARED_KINDS = ("tune",)
"""Kinds of jobs that several processes can do together: only they get more than one."""

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class PodShape(BaseModel):
    """What a job's pod asks the cluster for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str = "1"
    """CPUs that are set aside, as Kubernetes writes quantities."""
    cpu_limit: str = ""
    """Most CPUs, where others leave some free; empty: as many as are set aside."""
    memory: str = "2Gi"
    """Memory; asked for and the limit. A process that wants more is killed."""
    gpu: int = Field(default=0, ge=0, le=64)
    """GPUs per pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPU resource."""
    shm: str = ""
    """Size of a memory-backed /dev/shm, which PyTorch's data loaders and NCCL use; it counts as memory. Empty: the
    container runtime's 64 MiB."""
    disk: str = "20Gi"
    """Limit of the pod's own folder for data sets, base models and checkpoints."""
    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """As in a pod's `tolerations`, in JSON."""
    deadline_s: int = Field(default=86_400, ge=60)
    """Seconds after which an attempt is ended, whatever it does."""
    grace_s: int = Field(default=60, ge=1, le=3600)
    """Seconds that a pod gets to save after SIGTERM."""
    nodes: int = Field(default=1, ge=1, le=64)
    """Pods that share each training (an Indexed Job); other jobs have one."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes a pod that share each training, one for each GPU; other jobs are one process, with one's share of
    `gpu`."""

    @model_validator(mode="after")
    def _gpu_each(self) -> PodShape:
        if self.gpu and self.gpu != self.processes:
            raise ValueError(f"gpu={self.gpu} and processes={self.processes}: one GPU a process, make them equal")
        return self

    @field_validator("cpu", "cpu_limit", "memory", "disk", "shm")
    @classmethod
    def _quantity(cls, value: str) -> str:
        if value and not _QUANTITY.fullmatch(value):
            raise ValueError("must be a Kubernetes quantity such as 500m, 2 or 4Gi")
        return value


class KubernetesSettings(BaseSettings):
    """Where Jobs are made and how. A part of a shape has a variable of its own: TUNESMITH_KUBERNETES_MODEL__GPU=1."""

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_KUBERNETES_", env_nested_delimiter="__", extra="ignore", frozen=True
    )

    namespace: str = ""
    """Empty: the namespace of the pod that this runs in, or of the kubeconfig's context."""
    kubeconfig: str = ""
    """File to connect by; empty: the pod's service account inside a cluster, else KUBECONFIG or ~/.kube/config."""
    context: str = ""
    """Context of the kubeconfig; empty for the current one."""
    instance: str = "tunesmith"
    """Label that tells the Jobs of two installations in one namespace apart."""
    image: str = ""
    """Image of the jobs' pods; empty: the one that the service itself runs from, inside a cluster."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secret: str = ""
    """Secret with the registry's credentials."""
    service_account: str = "tunesmith-job"
    """Service account of the jobs' pods; it needs no rights, and its token is not mounted."""
    env_from: str = ""
    """ConfigMaps and Secrets whose entries the jobs get as environment: `configmap/NAME,secret/NAME`. Credentials
    reach jobs this way alone; none is ever written into a Job."""
    user: int = Field(default=10001, ge=1)
    """User and group id that pods run as."""
    queue: str = ""
    """Kueue's local queue; Jobs are then made suspended, and Kueue starts them."""
    subdomain: str = "tunesmith-jobs"
    """Headless Service over the pods of jobs with several nodes, by which they find each other."""
    work: PodShape = PodShape()
    """Pods of jobs that load no model."""
    model: PodShape = PodShape(cpu="2", memory="6Gi")
    """Pods of jobs that load a model: tune, judge, sweep and publish; those of publish get no GPU, and the nodes of
    `work`."""
    kinds: dict[str, PodShape] = {}
    """Shapes of single kinds, in JSON by kind; they replace the two above."""
    start_timeout_s: float = Field(default=300, gt=0)
    """How long a pod may fail to start (image, secret, admission) before the job fails with the reason."""
    schedule_timeout_s: float = Field(default=1800, gt=0)
    """How long a pod may wait for a node or for quota, which others may free, before the job fails with the reason."""
    replica_template: str = "tgi"
    """PodTemplate that a replica is made from (k8s/components/tgi-replicas)."""
    replica_pods: int = Field(default=1, ge=1, le=256)
    """Pods that serve one model version."""
    replica_timeout_s: int = Field(default=1800, ge=10)
    """How long a replica may take until it is ready, its model's way to the node included."""
    keep_s: int = Field(default=86_400, ge=0)
    """Seconds that the Job of a failed or cancelled job is kept, for looking into it."""

    @field_validator("instance", "subdomain")
    @classmethod
    def _label(cls, value: str) -> str:
        if not _DNS_LABEL.fullmatch(value):
            raise ValueError("must be lower-case letters, digits and '-', at most 63")
        return value

    @field_validator("env_from")
    @classmethod
    def _sources(cls, value: str) -> str:
        for source in filter(None, value.split(",")):
            kind, _, name = source.partition("/")
            if kind not in ("configmap", "secret") or not name:
                raise ValueError("must be configmap/NAME or secret/NAME, joined by commas")
        return value

    def shape(self, kind: str) -> PodShape:
        """The pods of jobs of `kind`."""
        if kind in self.kinds:
            shape = self.kinds[kind]
        elif kind in GPU_KINDS:
            shape = self.model
        elif kind in MODEL_KINDS:
            where = {"node_selector": self.work.node_selector, "tolerations": self.work.tolerations}
            shape = self.model.model_copy(update={"gpu": 0, "shm": "", **where})
        else:
            shape = self.work
        if kind in SHARED_KINDS:
            return shape
        return shape.model_copy(update={"nodes": 1, "processes": 1, "gpu": shape.gpu // shape.processes})
