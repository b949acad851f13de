from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnswerProbesRequest(_message.Message):
    __slots__ = ("recipe", "version", "prompts", "max_new_tokens", "stop")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    version: str
    prompts: _containers.RepeatedScalarFieldContainer[str]
    max_new_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recipe: _Optional[str] = ..., version: _Optional[str] = ..., prompts: _Optional[_Iterable[str]] = ..., max_new_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ...) -> None: ...

class ProbeAnswer(_message.Message):
    __slots__ = ("tokens",)
    class Token(_message.Message):
        __slots__ = ("id", "text", "logprob")
        ID_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        LOGPROB_FIELD_NUMBER: _ClassVar[int]
        id: int
        text: str
        logprob: float
        def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ...) -> None: ...
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[ProbeAnswer.Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[ProbeAnswer.Token, _Mapping]]] = ...) -> None: ...

class AnswerProbesResponse(_message.Message):
    __slots__ = ("answers", "adapter_hash", "backend", "number_format")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_HASH_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FORMAT_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[ProbeAnswer]
    adapter_hash: str
    backend: str
    number_format: str
    def __init__(self, answers: _Optional[_Iterable[_Union[ProbeAnswer, _Mapping]]] = ..., adapter_hash: _Optional[str] = ..., backend: _Optional[str] = ..., number_format: _Optional[str] = ...) -> None: ...
