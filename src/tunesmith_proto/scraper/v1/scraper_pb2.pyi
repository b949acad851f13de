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

class SourceFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_FORMAT_UNSPECIFIED: _ClassVar[SourceFormat]
    SOURCE_FORMAT_TEXT: _ClassVar[SourceFormat]
    SOURCE_FORMAT_CSV: _ClassVar[SourceFormat]
    SOURCE_FORMAT_JSON: _ClassVar[SourceFormat]
    SOURCE_FORMAT_HTML: _ClassVar[SourceFormat]
    SOURCE_FORMAT_JSPF: _ClassVar[SourceFormat]
SOURCE_FORMAT_UNSPECIFIED: SourceFormat
SOURCE_FORMAT_TEXT: SourceFormat
SOURCE_FORMAT_CSV: SourceFormat
SOURCE_FORMAT_JSON: SourceFormat
SOURCE_FORMAT_HTML: SourceFormat
SOURCE_FORMAT_JSPF: SourceFormat

class Source(_message.Message):
    __slots__ = ("url", "format", "columns", "css_selector", "licence_id", "licence_url", "display_name", "attribute", "join", "preset", "skip_undecodable")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    CSS_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    LICENCE_ID_FIELD_NUMBER: _ClassVar[int]
    LICENCE_URL_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    SKIP_UNDECODABLE_FIELD_NUMBER: _ClassVar[int]
    url: str
    format: SourceFormat
    columns: _containers.ScalarMap[str, str]
    css_selector: str
    licence_id: str
    licence_url: str
    display_name: str
    attribute: str
    join: Join
    preset: str
    skip_undecodable: bool
    def __init__(self, url: _Optional[str] = ..., format: _Optional[_Union[SourceFormat, str]] = ..., columns: _Optional[_Mapping[str, str]] = ..., css_selector: _Optional[str] = ..., licence_id: _Optional[str] = ..., licence_url: _Optional[str] = ..., display_name: _Optional[str] = ..., attribute: _Optional[str] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., preset: _Optional[str] = ..., skip_undecodable: bool = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("url", "format", "key", "other_key", "columns", "display_name")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OTHER_KEY_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    url: str
    format: SourceFormat
    key: str
    other_key: str
    columns: _containers.ScalarMap[str, str]
    display_name: str
    def __init__(self, url: _Optional[str] = ..., format: _Optional[_Union[SourceFormat, str]] = ..., key: _Optional[str] = ..., other_key: _Optional[str] = ..., columns: _Optional[_Mapping[str, str]] = ..., display_name: _Optional[str] = ...) -> None: ...

class CollectRequest(_message.Message):
    __slots__ = ("recipe", "source", "request_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    source: Source
    request_id: str
    def __init__(self, recipe: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("id", "recipe", "source", "num_records", "licences", "skipped", "create_time", "reused", "derived_from", "derived_by")
    class LicencesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class SkippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    LICENCES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    DERIVED_BY_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    source: str
    num_records: int
    licences: _containers.ScalarMap[str, int]
    skipped: _containers.ScalarMap[str, int]
    create_time: _timestamp_pb2.Timestamp
    reused: bool
    derived_from: str
    derived_by: str
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., source: _Optional[str] = ..., num_records: _Optional[int] = ..., licences: _Optional[_Mapping[str, int]] = ..., skipped: _Optional[_Mapping[str, int]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reused: bool = ..., derived_from: _Optional[str] = ..., derived_by: _Optional[str] = ...) -> None: ...

class UploadSourceRequest(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class UploadSourceResponse(_message.Message):
    __slots__ = ("url", "size_bytes")
    URL_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    url: str
    size_bytes: int
    def __init__(self, url: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("recipe", "collection_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    collection_id: str
    def __init__(self, recipe: _Optional[str] = ..., collection_id: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ("recipe", "page_size", "page_token")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    page_size: int
    page_token: str
    def __init__(self, recipe: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections", "next_page_token")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    next_page_token: str
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
