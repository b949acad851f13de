import datetime

from google.longrunning import operations_pb2 as _operations_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tunesmith_proto.trainer.v1 import models_pb2 as _models_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SweepAxis(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Value]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[_Union[_struct_pb2.Value, _Mapping]]] = ...) -> None: ...

class StartSweepRequest(_message.Message):
    __slots__ = ("recipe", "dataset_id", "base_model", "settings", "axes", "metric", "num_samples", "request_id", "priority")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    dataset_id: str
    base_model: str
    settings: _struct_pb2.Struct
    axes: _containers.RepeatedCompositeFieldContainer[SweepAxis]
    metric: str
    num_samples: int
    request_id: str
    priority: int
    def __init__(self, recipe: _Optional[str] = ..., dataset_id: _Optional[str] = ..., base_model: _Optional[str] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., axes: _Optional[_Iterable[_Union[SweepAxis, _Mapping]]] = ..., metric: _Optional[str] = ..., num_samples: _Optional[int] = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class SweepCell(_message.Message):
    __slots__ = ("values", "run_id", "metrics", "failed_gates", "competes", "difference", "p_value", "samples")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _models_pb2.Measure
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_models_pb2.Measure, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FAILED_GATES_FIELD_NUMBER: _ClassVar[int]
    COMPETES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    values: _struct_pb2.Struct
    run_id: str
    metrics: _containers.MessageMap[str, _models_pb2.Measure]
    failed_gates: _containers.RepeatedScalarFieldContainer[str]
    competes: bool
    difference: _models_pb2.Measure
    p_value: float
    samples: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., run_id: _Optional[str] = ..., metrics: _Optional[_Mapping[str, _models_pb2.Measure]] = ..., failed_gates: _Optional[_Iterable[str]] = ..., competes: bool = ..., difference: _Optional[_Union[_models_pb2.Measure, _Mapping]] = ..., p_value: _Optional[float] = ..., samples: _Optional[_Iterable[str]] = ...) -> None: ...

class Sweep(_message.Message):
    __slots__ = ("id", "recipe", "dataset_id", "base_model", "axes", "objective", "higher_is_better", "num_samples", "num_heldout_rows", "cells", "best_cell", "default_cell", "chosen_cell", "clear", "tied_cells", "verdict", "commands", "prompts", "create_time", "reused")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_HELDOUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    BEST_CELL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_CELL_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_CELL_FIELD_NUMBER: _ClassVar[int]
    CLEAR_FIELD_NUMBER: _ClassVar[int]
    TIED_CELLS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    dataset_id: str
    base_model: str
    axes: _containers.RepeatedCompositeFieldContainer[SweepAxis]
    objective: str
    higher_is_better: bool
    num_samples: int
    num_heldout_rows: int
    cells: _containers.RepeatedCompositeFieldContainer[SweepCell]
    best_cell: int
    default_cell: int
    chosen_cell: int
    clear: bool
    tied_cells: _containers.RepeatedScalarFieldContainer[int]
    verdict: str
    commands: _containers.RepeatedScalarFieldContainer[str]
    prompts: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    reused: bool
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., dataset_id: _Optional[str] = ..., base_model: _Optional[str] = ..., axes: _Optional[_Iterable[_Union[SweepAxis, _Mapping]]] = ..., objective: _Optional[str] = ..., higher_is_better: bool = ..., num_samples: _Optional[int] = ..., num_heldout_rows: _Optional[int] = ..., cells: _Optional[_Iterable[_Union[SweepCell, _Mapping]]] = ..., best_cell: _Optional[int] = ..., default_cell: _Optional[int] = ..., chosen_cell: _Optional[int] = ..., clear: bool = ..., tied_cells: _Optional[_Iterable[int]] = ..., verdict: _Optional[str] = ..., commands: _Optional[_Iterable[str]] = ..., prompts: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused: bool = ...) -> None: ...

class GetSweepRequest(_message.Message):
    __slots__ = ("recipe", "sweep_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SWEEP_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    sweep_id: str
    def __init__(self, recipe: _Optional[str] = ..., sweep_id: _Optional[str] = ...) -> None: ...

class GetSweepResponse(_message.Message):
    __slots__ = ("sweep",)
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    sweep: Sweep
    def __init__(self, sweep: _Optional[_Union[Sweep, _Mapping]] = ...) -> None: ...

class ListSweepsRequest(_message.Message):
    __slots__ = ("recipe", "page_size", "page_token")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    page_size: int
    page_token: str
    def __init__(self, recipe: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSweepsResponse(_message.Message):
    __slots__ = ("sweeps", "next_page_token")
    SWEEPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sweeps: _containers.RepeatedCompositeFieldContainer[Sweep]
    next_page_token: str
    def __init__(self, sweeps: _Optional[_Iterable[_Union[Sweep, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetSweepPageRequest(_message.Message):
    __slots__ = ("recipe", "sweep_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SWEEP_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    sweep_id: str
    def __init__(self, recipe: _Optional[str] = ..., sweep_id: _Optional[str] = ...) -> None: ...

class GetSweepPageResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...
