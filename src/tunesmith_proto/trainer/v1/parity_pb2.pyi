import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ParityCheck(_message.Message):
    __slots__ = ("checked", "agrees", "num_prompts", "num_agreeing", "num_tokens", "num_compared", "largest_difference", "tolerance", "backend", "detail", "check_time")
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    AGREES_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    NUM_AGREEING_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_COMPARED_FIELD_NUMBER: _ClassVar[int]
    LARGEST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CHECK_TIME_FIELD_NUMBER: _ClassVar[int]
    checked: bool
    agrees: bool
    num_prompts: int
    num_agreeing: int
    num_tokens: int
    num_compared: int
    largest_difference: float
    tolerance: float
    backend: str
    detail: str
    check_time: _timestamp_pb2.Timestamp
    def __init__(self, checked: bool = ..., agrees: bool = ..., num_prompts: _Optional[int] = ..., num_agreeing: _Optional[int] = ..., num_tokens: _Optional[int] = ..., num_compared: _Optional[int] = ..., largest_difference: _Optional[float] = ..., tolerance: _Optional[float] = ..., backend: _Optional[str] = ..., detail: _Optional[str] = ..., check_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
