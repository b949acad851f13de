"""The captioners of this build against the contract."""

from __future__ import annotations

import pytest

from contract.captioner_contract import CaptionerContract
from tunesmith_captioner.captioners import CAPTIONERS, Installed
from tunesmith_captioner.captioning import Captioner


@pytest.fixture(params=CAPTIONERS, ids=lambda one: one.name)
def captioner(request: pytest.FixtureRequest) -> Captioner:
    """Each captioner that is listed."""
    return request.param.load()


class TestInstalledCaptioners(CaptionerContract):
    """All of them."""


@pytest.mark.parametrize("listed", CAPTIONERS, ids=lambda one: one.name)
def test_the_list_says_what_the_captioner_says_of_itself(listed: Installed) -> None:
    loaded = listed.load()

    assert (listed.name, listed.version, listed.media_kind) == (loaded.name, loaded.version, loaded.media_kind)
