import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Catalogue(_message.Message):
    __slots__ = ("recipe", "hash", "num_names", "create_time", "sample")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    NUM_NAMES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    hash: str
    num_names: int
    create_time: _timestamp_pb2.Timestamp
    sample: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recipe: _Optional[str] = ..., hash: _Optional[str] = ..., num_names: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sample: _Optional[_Iterable[str]] = ...) -> None: ...

class SetCatalogueRequest(_message.Message):
    __slots__ = ("recipe", "url")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    url: str
    def __init__(self, recipe: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...

class SetCatalogueResponse(_message.Message):
    __slots__ = ("catalogue",)
    CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    catalogue: Catalogue
    def __init__(self, catalogue: _Optional[_Union[Catalogue, _Mapping]] = ...) -> None: ...

class GetCatalogueRequest(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    def __init__(self, recipe: _Optional[str] = ...) -> None: ...

class GetCatalogueResponse(_message.Message):
    __slots__ = ("catalogue",)
    CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    catalogue: Catalogue
    def __init__(self, catalogue: _Optional[_Union[Catalogue, _Mapping]] = ...) -> None: ...

class ClearCatalogueRequest(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    def __init__(self, recipe: _Optional[str] = ...) -> None: ...

class ClearCatalogueResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
