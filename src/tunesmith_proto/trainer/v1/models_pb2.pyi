import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tunesmith_proto.trainer.v1 import parity_pb2 as _parity_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Measure(_message.Message):
    __slots__ = ("value", "low", "high", "n")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    n: int
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., n: _Optional[int] = ...) -> None: ...

class Measures(_message.Message):
    __slots__ = ("measures",)
    class MeasuresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Measure
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Measure, _Mapping]] = ...) -> None: ...
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    measures: _containers.MessageMap[str, Measure]
    def __init__(self, measures: _Optional[_Mapping[str, Measure]] = ...) -> None: ...

class GateResult(_message.Message):
    __slots__ = ("name", "metric", "passed", "value", "comparison", "limit", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    metric: str
    passed: bool
    value: float
    comparison: str
    limit: float
    detail: str
    def __init__(self, name: _Optional[str] = ..., metric: _Optional[str] = ..., passed: bool = ..., value: _Optional[float] = ..., comparison: _Optional[str] = ..., limit: _Optional[float] = ..., detail: _Optional[str] = ...) -> None: ...

class Samples(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("id", "recipe", "run_id", "dataset_id", "model_version", "champion_version", "metrics", "anchors", "samples", "gates", "passed", "create_time", "prompts", "parity")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Measures
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Measures, _Mapping]] = ...) -> None: ...
    class AnchorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SamplesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Samples
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Samples, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_VERSION_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    run_id: str
    dataset_id: str
    model_version: str
    champion_version: str
    metrics: _containers.MessageMap[str, Measures]
    anchors: _containers.ScalarMap[str, float]
    samples: _containers.MessageMap[str, Samples]
    gates: _containers.RepeatedCompositeFieldContainer[GateResult]
    passed: bool
    create_time: _timestamp_pb2.Timestamp
    prompts: _containers.RepeatedScalarFieldContainer[str]
    parity: _parity_pb2.ParityCheck
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., run_id: _Optional[str] = ..., dataset_id: _Optional[str] = ..., model_version: _Optional[str] = ..., champion_version: _Optional[str] = ..., metrics: _Optional[_Mapping[str, Measures]] = ..., anchors: _Optional[_Mapping[str, float]] = ..., samples: _Optional[_Mapping[str, Samples]] = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ..., passed: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., prompts: _Optional[_Iterable[str]] = ..., parity: _Optional[_Union[_parity_pb2.ParityCheck, _Mapping]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("id", "recipe", "run_id", "dataset_id", "base_model", "base_fingerprint", "adapter_hash", "report_id", "passed", "champion", "create_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_HASH_FIELD_NUMBER: _ClassVar[int]
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    run_id: str
    dataset_id: str
    base_model: str
    base_fingerprint: str
    adapter_hash: str
    report_id: str
    passed: bool
    champion: bool
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., run_id: _Optional[str] = ..., dataset_id: _Optional[str] = ..., base_model: _Optional[str] = ..., base_fingerprint: _Optional[str] = ..., adapter_hash: _Optional[str] = ..., report_id: _Optional[str] = ..., passed: bool = ..., champion: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AliasChange(_message.Message):
    __slots__ = ("version", "action", "time", "cause")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    version: str
    action: str
    time: _timestamp_pb2.Timestamp
    cause: str
    def __init__(self, version: _Optional[str] = ..., action: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cause: _Optional[str] = ...) -> None: ...

class Champion(_message.Message):
    __slots__ = ("recipe", "version", "rev", "history")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    rev: int
    history: _containers.RepeatedCompositeFieldContainer[AliasChange]
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ..., rev: _Optional[int] = ..., history: _Optional[_Iterable[_Union[AliasChange, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("recipe", "page_size", "page_token")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    page_size: int
    page_token: str
    def __init__(self, recipe: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("recipe", "version")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelVersion
    def __init__(self, model: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class GetReportRequest(_message.Message):
    __slots__ = ("recipe", "version")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: Report
    def __init__(self, report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class GetReportPageRequest(_message.Message):
    __slots__ = ("recipe", "version")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetReportPageResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class PromoteModelRequest(_message.Message):
    __slots__ = ("recipe", "version", "expected_champion")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    expected_champion: str
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ..., expected_champion: _Optional[str] = ...) -> None: ...

class PromoteModelResponse(_message.Message):
    __slots__ = ("champion", "changed")
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    champion: Champion
    changed: bool
    def __init__(self, champion: _Optional[_Union[Champion, _Mapping]] = ..., changed: bool = ...) -> None: ...

class RollbackModelRequest(_message.Message):
    __slots__ = ("recipe", "expected_champion")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    expected_champion: str
    def __init__(self, recipe: _Optional[str] = ..., expected_champion: _Optional[str] = ...) -> None: ...

class RollbackModelResponse(_message.Message):
    __slots__ = ("champion",)
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    champion: Champion
    def __init__(self, champion: _Optional[_Union[Champion, _Mapping]] = ...) -> None: ...

class GetChampionRequest(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    def __init__(self, recipe: _Optional[str] = ...) -> None: ...

class GetChampionResponse(_message.Message):
    __slots__ = ("champion",)
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    champion: Champion
    def __init__(self, champion: _Optional[_Union[Champion, _Mapping]] = ...) -> None: ...

class TraceLineageRequest(_message.Message):
    __slots__ = ("recipe", "subject", "max_rows")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    subject: str
    max_rows: int
    def __init__(self, recipe: _Optional[str] = ..., subject: _Optional[str] = ..., max_rows: _Optional[int] = ...) -> None: ...

class LineageNode(_message.Message):
    __slots__ = ("kind", "id", "summary", "facts")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    id: str
    summary: str
    facts: _containers.ScalarMap[str, str]
    def __init__(self, kind: _Optional[str] = ..., id: _Optional[str] = ..., summary: _Optional[str] = ..., facts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LineageEdge(_message.Message):
    __slots__ = ("from_id", "to_id")
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    from_id: str
    to_id: str
    def __init__(self, from_id: _Optional[str] = ..., to_id: _Optional[str] = ...) -> None: ...

class TraceLineageResponse(_message.Message):
    __slots__ = ("nodes", "edges", "truncated")
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[LineageNode]
    edges: _containers.RepeatedCompositeFieldContainer[LineageEdge]
    truncated: bool
    def __init__(self, nodes: _Optional[_Iterable[_Union[LineageNode, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[LineageEdge, _Mapping]]] = ..., truncated: bool = ...) -> None: ...
