"""The generated code is what the proto files give, and events have the shape that the proto files promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

from tunesmith.domain.events import EventType
from tunesmith_proto.events.v1 import events_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_code_is_fresh_and_the_proto_files_follow_bufs_standard():
    done = subprocess.run(
        [sys.executable, str(ROOT / "proto" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_event_type_has_a_message_and_every_message_a_type():
    types = {name.removeprefix("tunesmith.").removesuffix(".v1") for name in get_args(EventType)}

    assert types == set(events_pb2.DESCRIPTOR.message_types_by_name)
