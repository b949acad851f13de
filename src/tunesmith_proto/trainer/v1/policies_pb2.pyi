import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tunesmith_proto.trainer.v1 import trainer_pb2 as _trainer_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Policy(_message.Message):
    __slots__ = ("recipe", "enabled", "min_new_examples", "min_growth_share", "cool_down_s", "every_s", "base_model", "settings", "follow_up", "priority", "rev")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    MIN_NEW_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MIN_GROWTH_SHARE_FIELD_NUMBER: _ClassVar[int]
    COOL_DOWN_S_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_UP_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    enabled: bool
    min_new_examples: int
    min_growth_share: float
    cool_down_s: float
    every_s: float
    base_model: str
    settings: _struct_pb2.Struct
    follow_up: _trainer_pb2.FollowUp
    priority: int
    rev: int
    def __init__(self, recipe: _Optional[str] = ..., enabled: bool = ..., min_new_examples: _Optional[int] = ..., min_growth_share: _Optional[float] = ..., cool_down_s: _Optional[float] = ..., every_s: _Optional[float] = ..., base_model: _Optional[str] = ..., settings: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., follow_up: _Optional[_Union[_trainer_pb2.FollowUp, str]] = ..., priority: _Optional[int] = ..., rev: _Optional[int] = ...) -> None: ...

class PolicyRun(_message.Message):
    __slots__ = ("dataset_id", "job_id", "start_time", "end_time", "outcome", "detail")
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    job_id: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    outcome: str
    detail: str
    def __init__(self, dataset_id: _Optional[str] = ..., job_id: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class PolicyStanding(_message.Message):
    __slots__ = ("reason", "message", "until", "dataset_id", "num_new_examples", "num_needed_examples", "num_trained_examples", "last_run")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_NEEDED_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_TRAINED_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LAST_RUN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    until: _timestamp_pb2.Timestamp
    dataset_id: str
    num_new_examples: int
    num_needed_examples: int
    num_trained_examples: int
    last_run: PolicyRun
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dataset_id: _Optional[str] = ..., num_new_examples: _Optional[int] = ..., num_needed_examples: _Optional[int] = ..., num_trained_examples: _Optional[int] = ..., last_run: _Optional[_Union[PolicyRun, _Mapping]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    def __init__(self, recipe: _Optional[str] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("policy", "standing")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    standing: PolicyStanding
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., standing: _Optional[_Union[PolicyStanding, _Mapping]] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("policy", "expected_rev")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REV_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    expected_rev: int
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., expected_rev: _Optional[int] = ...) -> None: ...

class SetPolicyResponse(_message.Message):
    __slots__ = ("policy", "standing")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    standing: PolicyStanding
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., standing: _Optional[_Union[PolicyStanding, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    class Entry(_message.Message):
        __slots__ = ("policy", "standing")
        POLICY_FIELD_NUMBER: _ClassVar[int]
        STANDING_FIELD_NUMBER: _ClassVar[int]
        policy: Policy
        standing: PolicyStanding
        def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., standing: _Optional[_Union[PolicyStanding, _Mapping]] = ...) -> None: ...
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[ListPoliciesResponse.Entry]
    def __init__(self, policies: _Optional[_Iterable[_Union[ListPoliciesResponse.Entry, _Mapping]]] = ...) -> None: ...
