"""Which language model a request may name, and whether the server's key goes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tunesmith.domain.errors import InvalidInput, PermissionRefused
from tunesmith.platform import Platform
from tunesmith.rpc.jobs import JobBoard
from tunesmith.settings import Settings
from tunesmith_proto.trainer.v1 import pairs_pb2
from tunesmith_trainer.pair_servicer import PairServicer, pairs_result
from tunesmith_trainer.settings import TrainerSettings

OWN, OTHER = "openai+https://own.test/v1", "openai+https://other.test/v1"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def platforms(data: Path) -> Iterator[Any]:
    opened: list[Platform] = []

    def open_on(listen: str) -> Platform:
        opened.append(Platform.open(Settings.read(data=data, listen=listen, llm=OWN, llm_api_key="sk-own")))
        return opened[-1]

    yield open_on
    for platform in opened:
        with closing(platform):
            pass


async def asked(platform: Platform, llm: str, *, allowed: bool | None = None) -> dict[str, Any]:
    board = JobBoard(platform.jobs)
    board.register("write", pairs_result)
    servicer = PairServicer(platform, board, TrainerSettings(llm_from_requests=allowed))
    request = pairs_pb2.WritePairsRequest(recipe="playlist", mode=2, num_pairs=3, llm=llm)
    operation = await servicer.WritePairs(request, None)
    return dict(platform.jobs.get(operation.name.removeprefix("operations/")).request)


@pytest.mark.parametrize(
    ("listen", "allowed", "llm", "with_key"),
    [
        ("127.0.0.1:0", None, "", True),
        ("127.0.0.1:0", None, OWN, True),
        ("127.0.0.1:0", None, OTHER, True),
        ("0.0.0.0:0", None, "", True),
        ("0.0.0.0:0", None, OWN, True),
        ("0.0.0.0:0", True, OTHER, False),
    ],
)
async def test_the_key_goes_to_the_servers_own_model_and_elsewhere_only_from_loopback(
    platforms: Any, listen: str, allowed: bool | None, llm: str, with_key: bool
) -> None:
    request = await asked(platforms(listen), llm, allowed=allowed)

    assert (request["llm"], request["with_key"]) == (llm or OWN, with_key)
    assert "sk-own" not in str(request)


@pytest.mark.parametrize(("listen", "allowed"), [("0.0.0.0:0", None), ("0.0.0.0:0", False), ("127.0.0.1:0", False)])
async def test_a_server_beyond_loopback_connects_nowhere_that_a_request_says(
    platforms: Any, listen: str, allowed: bool | None
) -> None:
    with pytest.raises(PermissionRefused, match="TUNESMITH_TRAINER_LLM_FROM_REQUESTS"):
        await asked(platforms(listen), OTHER, allowed=allowed)


@pytest.mark.parametrize("llm", ["http://host", "openai+http://u:secret@host/v1", "file:///etc/passwd", "tgi+ftp://x"])
async def test_an_address_that_is_none_is_invalid_input_and_its_password_is_not_repeated(
    platforms: Any, llm: str
) -> None:
    with pytest.raises(InvalidInput, match="TUNESMITH_LLM") as refused:
        await asked(platforms("127.0.0.1:0"), llm)
    assert "secret" not in refused.value.message
