import datetime

from google.longrunning import operations_pb2 as _operations_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FollowUp(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FOLLOW_UP_UNSPECIFIED: _ClassVar[FollowUp]
    FOLLOW_UP_NONE: _ClassVar[FollowUp]
    FOLLOW_UP_JUDGE: _ClassVar[FollowUp]
    FOLLOW_UP_PROMOTE: _ClassVar[FollowUp]
FOLLOW_UP_UNSPECIFIED: FollowUp
FOLLOW_UP_NONE: FollowUp
FOLLOW_UP_JUDGE: FollowUp
FOLLOW_UP_PROMOTE: FollowUp

class GateRule(_message.Message):
    __slots__ = ("name", "metric", "comparison", "limit", "relative_to", "why")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_TO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    name: str
    metric: str
    comparison: str
    limit: float
    relative_to: str
    why: str
    def __init__(self, name: _Optional[str] = ..., metric: _Optional[str] = ..., comparison: _Optional[str] = ..., limit: _Optional[float] = ..., relative_to: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Recipe(_message.Message):
    __slots__ = ("name", "title", "default_source", "record_fields", "default_base_model", "training_defaults", "curation_defaults", "gates", "needs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELDS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    CURATION_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    NEEDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    default_source: str
    record_fields: _containers.RepeatedScalarFieldContainer[str]
    default_base_model: str
    training_defaults: _struct_pb2.Struct
    curation_defaults: _struct_pb2.Struct
    gates: _containers.RepeatedCompositeFieldContainer[GateRule]
    needs: str
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., default_source: _Optional[str] = ..., record_fields: _Optional[_Iterable[str]] = ..., default_base_model: _Optional[str] = ..., training_defaults: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., curation_defaults: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., gates: _Optional[_Iterable[_Union[GateRule, _Mapping]]] = ..., needs: _Optional[str] = ...) -> None: ...

class ListRecipesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRecipesResponse(_message.Message):
    __slots__ = ("recipes", "not_loaded")
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    NOT_LOADED_FIELD_NUMBER: _ClassVar[int]
    recipes: _containers.RepeatedCompositeFieldContainer[Recipe]
    not_loaded: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recipes: _Optional[_Iterable[_Union[Recipe, _Mapping]]] = ..., not_loaded: _Optional[_Iterable[str]] = ...) -> None: ...

class BuildDatasetRequest(_message.Message):
    __slots__ = ("recipe", "collection_ids", "settings", "request_id", "priority")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_IDS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    collection_ids: _containers.RepeatedScalarFieldContainer[str]
    settings: _struct_pb2.Struct
    request_id: str
    priority: int
    def __init__(self, recipe: _Optional[str] = ..., collection_ids: _Optional[_Iterable[str]] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class Distribution(_message.Message):
    __slots__ = ("counts",)
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.ScalarMap[str, int]
    def __init__(self, counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("id", "recipe", "num_examples", "num_records", "dropped", "distributions", "settings", "collection_ids", "licences", "create_time", "reused")
    class NumExamplesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class DistributionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Distribution
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Distribution, _Mapping]] = ...) -> None: ...
    class LicencesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_IDS_FIELD_NUMBER: _ClassVar[int]
    LICENCES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    num_examples: _containers.ScalarMap[str, int]
    num_records: int
    dropped: _containers.ScalarMap[str, int]
    distributions: _containers.MessageMap[str, Distribution]
    settings: _struct_pb2.Struct
    collection_ids: _containers.RepeatedScalarFieldContainer[str]
    licences: _containers.ScalarMap[str, int]
    create_time: _timestamp_pb2.Timestamp
    reused: bool
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., num_examples: _Optional[_Mapping[str, int]] = ..., num_records: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., distributions: _Optional[_Mapping[str, Distribution]] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., collection_ids: _Optional[_Iterable[str]] = ..., licences: _Optional[_Mapping[str, int]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused: bool = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("recipe", "dataset_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    dataset_id: str
    def __init__(self, recipe: _Optional[str] = ..., dataset_id: _Optional[str] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("recipe", "page_size", "page_token")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    page_size: int
    page_token: str
    def __init__(self, recipe: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets", "next_page_token")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    next_page_token: str
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("recipe", "dataset_id", "base_model", "settings", "follow_up", "request_id", "priority")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_UP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    dataset_id: str
    base_model: str
    settings: _struct_pb2.Struct
    follow_up: FollowUp
    request_id: str
    priority: int
    def __init__(self, recipe: _Optional[str] = ..., dataset_id: _Optional[str] = ..., base_model: _Optional[str] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., follow_up: _Optional[_Union[FollowUp, str]] = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "recipe", "dataset_id", "base_model", "base_fingerprint", "settings", "adapter_hash", "num_steps", "stopped_early", "num_rows_dropped", "train_loss", "validation_loss", "create_time", "reused", "judge_job_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_HASH_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    STOPPED_EARLY_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    JUDGE_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    dataset_id: str
    base_model: str
    base_fingerprint: str
    settings: _struct_pb2.Struct
    adapter_hash: str
    num_steps: int
    stopped_early: bool
    num_rows_dropped: int
    train_loss: float
    validation_loss: float
    create_time: _timestamp_pb2.Timestamp
    reused: bool
    judge_job_id: str
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., dataset_id: _Optional[str] = ..., base_model: _Optional[str] = ..., base_fingerprint: _Optional[str] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., adapter_hash: _Optional[str] = ..., num_steps: _Optional[int] = ..., stopped_early: bool = ..., num_rows_dropped: _Optional[int] = ..., train_loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused: bool = ..., judge_job_id: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("recipe", "run_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    run_id: str
    def __init__(self, recipe: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("recipe", "page_size", "page_token")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    page_size: int
    page_token: str
    def __init__(self, recipe: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class JudgeRunRequest(_message.Message):
    __slots__ = ("recipe", "run_id", "promote", "request_id", "priority")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    run_id: str
    promote: bool
    request_id: str
    priority: int
    def __init__(self, recipe: _Optional[str] = ..., run_id: _Optional[str] = ..., promote: bool = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...
