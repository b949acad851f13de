from google.longrunning import operations_pb2 as _operations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublicationForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUBLICATION_FORM_UNSPECIFIED: _ClassVar[PublicationForm]
    PUBLICATION_FORM_ADAPTER: _ClassVar[PublicationForm]
    PUBLICATION_FORM_MERGED: _ClassVar[PublicationForm]
PUBLICATION_FORM_UNSPECIFIED: PublicationForm
PUBLICATION_FORM_ADAPTER: PublicationForm
PUBLICATION_FORM_MERGED: PublicationForm

class PublishRequest(_message.Message):
    __slots__ = ("recipe", "version", "form", "request_id", "priority")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    form: PublicationForm
    request_id: str
    priority: int
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ..., form: _Optional[_Union[PublicationForm, str]] = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class PublishedFile(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class Publication(_message.Message):
    __slots__ = ("id", "recipe", "version", "form", "files", "dtype", "passed", "reused")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    id: str
    recipe: str
    version: str
    form: PublicationForm
    files: _containers.RepeatedCompositeFieldContainer[PublishedFile]
    dtype: str
    passed: bool
    reused: bool
    def __init__(self, id: _Optional[str] = ..., recipe: _Optional[str] = ..., version: _Optional[str] = ..., form: _Optional[_Union[PublicationForm, str]] = ..., files: _Optional[_Iterable[_Union[PublishedFile, _Mapping]]] = ..., dtype: _Optional[str] = ..., passed: bool = ..., reused: bool = ...) -> None: ...

class ReadFileRequest(_message.Message):
    __slots__ = ("publication_id", "name")
    PUBLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    publication_id: str
    name: str
    def __init__(self, publication_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ReadFileResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class GetModelCardRequest(_message.Message):
    __slots__ = ("recipe", "version", "form", "repo_id")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    REPO_ID_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    form: PublicationForm
    repo_id: str
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ..., form: _Optional[_Union[PublicationForm, str]] = ..., repo_id: _Optional[str] = ...) -> None: ...

class GetModelCardResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
