"""Writing pairs through a real HTTP server: counted, kept row by row, never asked twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from doubles.fake_clock import FakeClock
from doubles.language_model_server import LanguageModelServer, serving
from fixtures_places import Place
from tunesmith.adapters.http_endpoint import HttpEndpoint, Limits
from tunesmith.adapters.tgi_language_model import TgiLanguageModel
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    Interrupted,
    InvalidInput,
    NotFound,
    NoUsableRows,
    PermissionRefused,
    TunesmithError,
    Unavailable,
    Unsupported,
)
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Progress
from tunesmith.domain.records import Collection, Licence, Provenance, Record
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith_trainer.pair_writing import GIVE_UP_AFTER, WriteRequest, Written, plan_writing, write_pairs

NUM_PLAYLISTS = 8
LIMITS = Limits(total_timeout_s=20, max_reply_bytes=100_000, attempts=2, backoff_s=0)


def good_answer(prompt: str, seed: int) -> str:
    """What a model that follows instructions writes."""
    shown = re.search(r"no instructions\.\n(\{.*\})\n", prompt)
    songs = json.loads(shown[1])["songs"] if shown else [{"title": f"Tune {seed}", "artist": "Rue"}]
    row = {
        "prompt": f"I feel like {seed}",
        "title": f"Mix {seed}",
        "opening": "I hear you.",
        "songs": [{**song, "reason": "it fits"} for song in songs],
        "closing": "Keep going.",
    }
    return f"```json\n{json.dumps(row)}\n```"


def playlist(number: int, **changes: str) -> Record:
    songs = json.dumps([{"title": f"Song {number}x{n}", "artist": "Rue"} for n in range(3)])
    provenance = Provenance("mixes", "test:", "test:", Licence("CC0-1.0"), "2026-01-01T00:00:00Z", "0" * 64)
    return Record.make({"title": f"Mix {number}", "songs": songs} | changes, provenance)


@dataclass
class Desk:
    """`write_pairs` with everything it needs."""

    store: Store
    server: LanguageModelServer
    scratch: Path
    concurrency: int = 3
    progress: list[Progress] = field(default_factory=list)
    should_stop: Callable[[], bool] = bool

    def collect(self, records: list[Record]) -> str:
        shard = keys.record_shard("playlist", "col-1", 0)
        self.store.put(shard, b"".join(canonical_json(record.to_json()) + b"\n" for record in records))
        made = Collection("col-1", "playlist", "mixes", len(records), (shard,), {"CC0-1.0": len(records)}, "2026")
        self.store.put(keys.collection("playlist", "col-1"), canonical_json(made.to_json()))
        return made.id

    def write(self, *, mode: str = "rewrite", num_pairs: int = 0, seed: int = 0) -> Written:
        request = plan_writing(
            self.store,
            "playlist",
            "col-1" if mode == "rewrite" else "",
            invent=mode == "invent",
            num_pairs=num_pairs,
            seed=seed,
            llm=f"tgi+{self.server.url}",
            key=True,
        )
        return write_pairs(
            WriteRequest.from_json(request.to_json()),
            store=self.store,
            clock=FakeClock(),
            open_model=lambda: TgiLanguageModel(HttpEndpoint(self.server.url, limits=LIMITS)),
            concurrency=self.concurrency,
            scratch=self.scratch,
            report=self.progress.append,
            should_stop=self.should_stop,
        )

    def records(self, written: Written) -> list[Record]:
        lines = (line for key in written.collection.shards for line in self.store.get(key).data.splitlines())
        return [Record.from_json(json.loads(line)) for line in lines]


@pytest.fixture
def desk(place: Place, tmp_path: Path) -> Iterator[Desk]:
    with serving(good_answer) as server:
        desk = Desk(place.store(tmp_path), server, tmp_path / "scratch")
        desk.collect([playlist(number) for number in range(NUM_PLAYLISTS)])
        yield desk


def example_of(record: Record) -> Example | Dropped:
    return recipe_named("playlist").example(record, index=0)


def test_every_playlist_gets_a_pair_and_keeps_its_id_and_provenance(desk: Desk) -> None:
    written = desk.write()

    records = desk.records(written)
    assert [record.id for record in records] == [playlist(n).id for n in range(NUM_PLAYLISTS)]
    assert all(record.provenance == playlist(0).provenance for record in records)
    assert all(isinstance(example_of(record), Example) for record in records)
    assert "1. Song 0x0 — Rue: it fits" in records[0].fields["reply"]
    assert (written.num_written, written.bad) == (NUM_PLAYLISTS, {})
    assert written.collection.derived_from == "col-1"
    assert written.collection.derived_by == "stand-in@abc123, playlist-pairs 1, rewrite"
    assert written.collection.licences == {"CC0-1.0": NUM_PLAYLISTS}
    assert (desk.progress[-1].done, desk.progress[-1].total) == (NUM_PLAYLISTS, NUM_PLAYLISTS)


def test_the_rows_of_a_finished_writing_are_put_away_and_the_same_request_finds_it(desk: Desk) -> None:
    first = desk.write()
    asked = len(desk.server.prompts)

    again = desk.write()

    assert again.reused
    assert again.collection == first.collection
    assert len(desk.server.prompts) == asked
    assert len(list(desk.store.list("pairs/"))) == 1


def test_bad_replies_are_counted_by_reason_and_shown(desk: Desk) -> None:
    bad = iter(["I cannot.", '{"prompt": 5}', good_answer("", 3), "", '{"prompt": "cut'])
    desk.server.answer = lambda prompt, seed: next(bad, good_answer(prompt, seed))
    desk.concurrency = 1

    written = desk.write()

    assert written.bad == {"empty_reply": 1, "missing_prompt": 1, "not_json": 2, "other_songs": 1}
    assert written.num_written == NUM_PLAYLISTS - 5
    assert ("not_json", "I cannot.") in written.bad_replies
    assert [record.fields.get("pair_error", "") for record in desk.records(written)][:3] == [
        "not_json",
        "missing_prompt",
        "other_songs",
    ]
    dropped = example_of(desk.records(written)[0])
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "needs_pairs"


def test_a_reply_that_ran_out_of_tokens_is_cut_off(desk: Desk) -> None:
    desk.server.answer = lambda prompt, seed: (
        good_answer(prompt, seed) if "Song 0x0" in prompt else '{"prompt": "' + "la " * 1000
    )

    assert desk.write().bad == {"cut_off": NUM_PLAYLISTS - 1}


def test_records_without_songs_are_counted_and_those_with_a_pair_are_not_asked_about(desk: Desk) -> None:
    pair = {"prompt": "rain", "reply": "# A\nB\n1. C — D: e\nF"}
    desk.collect([playlist(0, songs=""), playlist(1, **pair), playlist(2)])

    written = desk.write()

    assert written.bad == {"no_songs": 1}
    assert written.num_written == 2
    assert len(desk.server.prompts) == 1
    assert desk.records(written)[1].fields["reply"] == pair["reply"]


def test_a_writing_that_was_stopped_goes_on_without_asking_again(desk: Desk) -> None:
    desk.concurrency = 1
    desk.should_stop = lambda: len(desk.server.prompts) >= 3
    with pytest.raises(Interrupted, match="kept"):
        desk.write()
    kept = sum(1 for info in desk.store.list("pairs/"))
    before = len(desk.server.prompts)
    assert 0 < kept < NUM_PLAYLISTS

    desk.should_stop = bool
    written = desk.write()

    assert written.num_written == NUM_PLAYLISTS
    assert len(desk.server.prompts) - before == NUM_PLAYLISTS - kept


def test_a_stopped_writing_ends_with_the_collection_of_an_undisturbed_one(
    desk: Desk, place: Place, tmp_path: Path
) -> None:
    desk.should_stop = lambda: len(desk.server.prompts) >= 3
    with pytest.raises(Interrupted):
        desk.write()
    desk.should_stop = bool
    resumed = desk.write()

    undisturbed = Desk(place.store(tmp_path / "other"), desk.server, tmp_path / "scratch-2")
    undisturbed.collect([playlist(number) for number in range(NUM_PLAYLISTS)])

    assert undisturbed.write().collection == resumed.collection


def test_an_endpoint_that_goes_down_ends_the_job_and_what_was_written_is_kept(desk: Desk) -> None:
    desk.concurrency = 1
    desk.server.answer = lambda prompt, seed: (
        (desk.server.refusals.extend([(503, {}, b"down")] * 50) if len(desk.server.prompts) == 4 else None)
        or good_answer(prompt, seed)
    )
    with pytest.raises(Unavailable, match="HTTP 503"):
        desk.write()

    desk.server.refusals.clear()
    desk.server.answer = good_answer
    desk.server.prompts.clear()

    assert desk.write().num_written == NUM_PLAYLISTS
    assert len(desk.server.prompts) == NUM_PLAYLISTS - 4


def test_a_wrong_key_ends_the_job_at_once(desk: Desk) -> None:
    desk.server.key = "sk-other"

    with pytest.raises(PermissionRefused, match="TUNESMITH_LLM_API_KEY"):
        desk.write()
    assert len(desk.server.bodies) <= desk.concurrency


def test_a_question_that_the_server_refuses_is_counted_and_the_others_go_on(desk: Desk) -> None:
    desk.server.refusals.append((422, {}, b'{"error": "too long", "error_type": "validation"}'))

    written = desk.write()

    assert written.bad == {"question_refused": 1}
    assert written.num_written == NUM_PLAYLISTS - 1
    assert "too long" in written.bad_replies[0][1]


def test_a_server_that_refuses_every_question_is_to_blame_itself(desk: Desk) -> None:
    desk.collect([playlist(number) for number in range(30)])
    desk.server.refusals += [(422, {}, b'{"error": "nothing goes"}')] * 100

    with pytest.raises(InvalidInput, match="nothing goes"):
        desk.write()
    assert len(desk.server.bodies) < 20


def test_an_endless_answer_is_one_bad_row(desk: Desk) -> None:
    desk.collect([playlist(0), playlist(1)])
    desk.concurrency = 1
    desk.write(seed=1)
    desk.server.endless = True
    with pytest.raises(NoUsableRows, match="reply_too_large 2"):
        desk.write(seed=2)


def test_a_model_that_cannot_do_it_is_given_up_soon(desk: Desk) -> None:
    desk.collect([playlist(number) for number in range(3 * GIVE_UP_AFTER)])
    desk.server.answer = lambda _prompt, _seed: "la la la"

    with pytest.raises(NoUsableRows, match=r"not one usable pair.*not_json 5\d.*'la la la'") as given_up:
        desk.write()

    assert given_up.value.reason == "NO_USABLE_PAIRS"
    assert len(desk.server.prompts) < GIVE_UP_AFTER + 2 * desk.concurrency
    assert not list(desk.store.list("collections/playlist/col-2"))


def test_pairs_are_invented_with_provenance_of_their_own(desk: Desk) -> None:
    written = desk.write(mode="invent", num_pairs=12)

    records = desk.records(written)
    assert written.num_written == len(records) == 12
    assert all(isinstance(example_of(record), Example) for record in records)
    assert len({record.id for record in records}) == 12
    assert records[3].provenance.source == "written:stand-in@abc123"
    assert records[3].provenance.licence.id == "unknown"
    assert written.collection.derived_from == ""


def test_another_seed_asks_anew(desk: Desk) -> None:
    first, second = desk.write(mode="invent", num_pairs=3), desk.write(mode="invent", num_pairs=3, seed=5)

    assert first.collection.id != second.collection.id
    assert len(desk.server.prompts) == 6


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"recipe": "micro_genre"}, Unsupported, "no pairs"),
        ({"collection": "col-9"}, NotFound, "col-9"),
        ({"collection": ""}, InvalidInput, "collection_id"),
        ({"num_pairs": 3}, InvalidInput, "mode to invent"),
        ({"invent": True, "num_pairs": 3}, InvalidInput, "leave collection_id out"),
        ({"invent": True, "collection": "", "num_pairs": 0}, InvalidInput, "num_pairs=0"),
        ({"invent": True, "collection": "", "num_pairs": 100_001}, InvalidInput, "num_pairs=100001"),
    ],
)
def test_a_request_that_cannot_work_is_refused_at_once(
    desk: Desk, arguments: dict[str, Any], error: type[TunesmithError], why: str
) -> None:
    with pytest.raises(error, match=why):
        plan_writing(
            desk.store,
            arguments.get("recipe", "playlist"),
            arguments.get("collection", "col-1"),
            invent=arguments.get("invent", False),
            num_pairs=arguments.get("num_pairs", 0),
            seed=0,
            llm="embedded",
            key=True,
        )
