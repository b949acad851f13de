import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tunesmith_proto.scraper.v1 import scraper_pb2 as _scraper_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Watch(_message.Message):
    __slots__ = ("id", "recipe", "source", "every_s", "create_time", "next_time", "seen", "problem")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    source: _scraper_pb2.Source
    every_s: float
    create_time: _timestamp_pb2.Timestamp
    next_time: _timestamp_pb2.Timestamp
    seen: _containers.RepeatedCompositeFieldContainer[SeenSource]
    problem: str
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., source: _Optional[_Union[_scraper_pb2.Source, _Mapping]] = ..., every_s: _Optional[float] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seen: _Optional[_Iterable[_Union[SeenSource, _Mapping]]] = ..., problem: _Optional[str] = ...) -> None: ...

class SeenSource(_message.Message):
    __slots__ = ("name", "job_id", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    job_id: str
    problem: str
    def __init__(self, name: _Optional[str] = ..., job_id: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class PutWatchRequest(_message.Message):
    __slots__ = ("recipe", "source", "every_s")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    source: _scraper_pb2.Source
    every_s: float
    def __init__(self, recipe: _Optional[str] = ..., source: _Optional[_Union[_scraper_pb2.Source, _Mapping]] = ..., every_s: _Optional[float] = ...) -> None: ...

class PutWatchResponse(_message.Message):
    __slots__ = ("watch",)
    WATCH_FIELD_NUMBER: _ClassVar[int]
    watch: Watch
    def __init__(self, watch: _Optional[_Union[Watch, _Mapping]] = ...) -> None: ...

class ListWatchesRequest(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    def __init__(self, recipe: _Optional[str] = ...) -> None: ...

class ListWatchesResponse(_message.Message):
    __slots__ = ("watches",)
    WATCHES_FIELD_NUMBER: _ClassVar[int]
    watches: _containers.RepeatedCompositeFieldContainer[Watch]
    def __init__(self, watches: _Optional[_Iterable[_Union[Watch, _Mapping]]] = ...) -> None: ...

class DeleteWatchRequest(_message.Message):
    __slots__ = ("watch_id",)
    WATCH_ID_FIELD_NUMBER: _ClassVar[int]
    watch_id: str
    def __init__(self, watch_id: _Optional[str] = ...) -> None: ...

class DeleteWatchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
