import datetime

from google.longrunning import operations_pb2 as _operations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WriteMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_MODE_UNSPECIFIED: _ClassVar[WriteMode]
    WRITE_MODE_REWRITE: _ClassVar[WriteMode]
    WRITE_MODE_INVENT: _ClassVar[WriteMode]
WRITE_MODE_UNSPECIFIED: WriteMode
WRITE_MODE_REWRITE: WriteMode
WRITE_MODE_INVENT: WriteMode

class WritePairsRequest(_message.Message):
    __slots__ = ("recipe", "mode", "collection_id", "num_pairs", "seed", "llm", "request_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_PAIRS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LLM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    mode: WriteMode
    collection_id: str
    num_pairs: int
    seed: int
    llm: str
    request_id: str
    def __init__(self, recipe: _Optional[str] = ..., mode: _Optional[_Union[WriteMode, str]] = ..., collection_id: _Optional[str] = ..., num_pairs: _Optional[int] = ..., seed: _Optional[int] = ..., llm: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class BadReply(_message.Message):
    __slots__ = ("reason", "text")
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    text: str
    def __init__(self, reason: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class WrittenPairs(_message.Message):
    __slots__ = ("id", "recipe", "derived_from", "derived_by", "num_records", "num_written", "bad", "bad_replies", "create_time", "reused")
    class BadEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    DERIVED_BY_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    NUM_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    BAD_REPLIES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    derived_from: str
    derived_by: str
    num_records: int
    num_written: int
    bad: _containers.ScalarMap[str, int]
    bad_replies: _containers.RepeatedCompositeFieldContainer[BadReply]
    create_time: _timestamp_pb2.Timestamp
    reused: bool
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., derived_from: _Optional[str] = ..., derived_by: _Optional[str] = ..., num_records: _Optional[int] = ..., num_written: _Optional[int] = ..., bad: _Optional[_Mapping[str, int]] = ..., bad_replies: _Optional[_Iterable[_Union[BadReply, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused: bool = ...) -> None: ...
