from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RecordsCollected(_message.Message):
    __slots__ = ("job_id", "recipe", "collection_id", "num_records", "manifest_key", "reused")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_KEY_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    collection_id: str
    num_records: int
    manifest_key: str
    reused: bool
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., collection_id: _Optional[str] = ..., num_records: _Optional[int] = ..., manifest_key: _Optional[str] = ..., reused: bool = ...) -> None: ...

class ClipsCaptioned(_message.Message):
    __slots__ = ("job_id", "recipe", "collection_id", "derived_from", "num_records", "num_failed", "manifest_key", "reused")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_KEY_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    collection_id: str
    derived_from: str
    num_records: int
    num_failed: int
    manifest_key: str
    reused: bool
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., collection_id: _Optional[str] = ..., derived_from: _Optional[str] = ..., num_records: _Optional[int] = ..., num_failed: _Optional[int] = ..., manifest_key: _Optional[str] = ..., reused: bool = ...) -> None: ...

class PairsWritten(_message.Message):
    __slots__ = ("job_id", "recipe", "collection_id", "derived_from", "num_records", "num_failed", "manifest_key", "reused")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_KEY_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    collection_id: str
    derived_from: str
    num_records: int
    num_failed: int
    manifest_key: str
    reused: bool
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., collection_id: _Optional[str] = ..., derived_from: _Optional[str] = ..., num_records: _Optional[int] = ..., num_failed: _Optional[int] = ..., manifest_key: _Optional[str] = ..., reused: bool = ...) -> None: ...

class DatasetBuilt(_message.Message):
    __slots__ = ("job_id", "recipe", "dataset_id", "num_train_examples", "manifest_key", "reused")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_TRAIN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_KEY_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    dataset_id: str
    num_train_examples: int
    manifest_key: str
    reused: bool
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., dataset_id: _Optional[str] = ..., num_train_examples: _Optional[int] = ..., manifest_key: _Optional[str] = ..., reused: bool = ...) -> None: ...

class RunSucceeded(_message.Message):
    __slots__ = ("job_id", "recipe", "run_id", "dataset_id", "adapter_hash", "follow_up")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_HASH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_UP_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    run_id: str
    dataset_id: str
    adapter_hash: str
    follow_up: str
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., run_id: _Optional[str] = ..., dataset_id: _Optional[str] = ..., adapter_hash: _Optional[str] = ..., follow_up: _Optional[str] = ...) -> None: ...

class ModelJudged(_message.Message):
    __slots__ = ("job_id", "recipe", "run_id", "model_version", "report_id", "passed")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    run_id: str
    model_version: str
    report_id: str
    passed: bool
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., run_id: _Optional[str] = ..., model_version: _Optional[str] = ..., report_id: _Optional[str] = ..., passed: bool = ...) -> None: ...

class ModelPromoted(_message.Message):
    __slots__ = ("recipe", "model_version", "adapter_hash", "rev", "action")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_HASH_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    model_version: str
    adapter_hash: str
    rev: int
    action: str
    def __init__(self, recipe: _Optional[str] = ..., model_version: _Optional[str] = ..., adapter_hash: _Optional[str] = ..., rev: _Optional[int] = ..., action: _Optional[str] = ...) -> None: ...

class ModelRejected(_message.Message):
    __slots__ = ("job_id", "recipe", "model_version", "failed_gates")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    FAILED_GATES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    recipe: str
    model_version: str
    failed_gates: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[str] = ..., recipe: _Optional[str] = ..., model_version: _Optional[str] = ..., failed_gates: _Optional[_Iterable[str]] = ...) -> None: ...

class JobFailed(_message.Message):
    __slots__ = ("job_id", "kind", "code", "reason", "message")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    kind: str
    code: str
    reason: str
    message: str
    def __init__(self, job_id: _Optional[str] = ..., kind: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
