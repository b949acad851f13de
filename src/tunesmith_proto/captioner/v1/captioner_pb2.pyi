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

class MediaKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEDIA_KIND_UNSPECIFIED: _ClassVar[MediaKind]
    MEDIA_KIND_AUDIO: _ClassVar[MediaKind]
    MEDIA_KIND_VIDEO: _ClassVar[MediaKind]
MEDIA_KIND_UNSPECIFIED: MediaKind
MEDIA_KIND_AUDIO: MediaKind
MEDIA_KIND_VIDEO: MediaKind

class Captioner(_message.Message):
    __slots__ = ("name", "version", "media_kinds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MEDIA_KINDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    media_kinds: _containers.RepeatedScalarFieldContainer[MediaKind]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., media_kinds: _Optional[_Iterable[_Union[MediaKind, str]]] = ...) -> None: ...

class ListCaptionersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCaptionersResponse(_message.Message):
    __slots__ = ("captioners",)
    CAPTIONERS_FIELD_NUMBER: _ClassVar[int]
    captioners: _containers.RepeatedCompositeFieldContainer[Captioner]
    def __init__(self, captioners: _Optional[_Iterable[_Union[Captioner, _Mapping]]] = ...) -> None: ...

class CaptionClipsRequest(_message.Message):
    __slots__ = ("recipe", "collection_id", "captioners", "request_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTIONERS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    collection_id: str
    captioners: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    def __init__(self, recipe: _Optional[str] = ..., collection_id: _Optional[str] = ..., captioners: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CaptionedCollection(_message.Message):
    __slots__ = ("id", "recipe", "derived_from", "derived_by", "num_records", "num_failed", "failures", "create_time", "reused")
    class FailuresEntry(_message.Message):
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
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    derived_from: str
    derived_by: str
    num_records: int
    num_failed: int
    failures: _containers.ScalarMap[str, int]
    create_time: _timestamp_pb2.Timestamp
    reused: bool
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., derived_from: _Optional[str] = ..., derived_by: _Optional[str] = ..., num_records: _Optional[int] = ..., num_failed: _Optional[int] = ..., failures: _Optional[_Mapping[str, int]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused: bool = ...) -> None: ...
