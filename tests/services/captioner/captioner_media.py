"""Media files made by rule, in many containers and many ways broken, and collections of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from _synthetic_music import click_track

from doubles.fake_clock import FakeClock
from fixtures_places import Place
from tunesmith.domain import keys
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Progress
from tunesmith.domain.records import Collection, Licence, Provenance, Record
from tunesmith.ports.store import Store
from tunesmith_captioner.decode.limits import DecodeLimits
from tunesmith_captioner.handlers import CaptionedCollection, CaptionRequest, caption, plan_captions

AUDIO_RATE = 48_000

RED, GREEN, BLUE, WHITE, BLACK = (200, 20, 20), (20, 180, 20), (30, 40, 200), (250, 250, 250), (5, 5, 5)

Colour = tuple[int, int, int]


def shots(*colours: Colour, seconds: float, size: tuple[int, int] = (160, 90), fps: int = 25) -> list[np.ndarray]:
    """One plain picture a frame, the colours in turn for equal times."""
    width, height = size
    total = round(seconds * fps)
    picture = [np.full((height, width, 3), colour, np.uint8) for colour in colours]
    return [picture[min(number * len(colours) // total, len(colours) - 1)] for number in range(total)]


def clicks(seconds: float, bpm: float = 120) -> np.ndarray:
    """A click track at AUDIO_RATE."""
    return click_track(bpm, seconds=seconds, rate=AUDIO_RATE)


def write_media(
    path: Path,
    *,
    pictures: Sequence[np.ndarray] = (),
    sound: np.ndarray | None = None,
    times: Callable[[int], Fraction] = lambda number: Fraction(number, 25),
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    video_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A file of the container that the suffix names. `times` gives each picture's time in seconds."""
    with av.open(str(path), "w", options=container_options or {}) as out:
        video = audio = None
        if len(pictures):
            video = out.add_stream(video_codec, rate=25)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = video.codec_context.codec.video_formats[0].name
            video.codec_context.time_base = Fraction(1, 1000) if video_codec == "libx264" else Fraction(1, 25)
            video.options = {"preset": "ultrafast", **(video_options or {})} if video_codec == "libx264" else {}
        if sound is not None:
            audio = out.add_stream(audio_codec, rate=AUDIO_RATE, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = video.codec_context.time_base
            frame.pts = round(times(number) / frame.time_base)
            out.mux(video.encode(frame))
        if video is not None:
            out.mux(video.encode(None))
        if sound is not None:
            size = audio.codec_context.frame_size or 1024
            for start in range(0, len(sound), size):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(sound[None, start : start + size]), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


@dataclass
class Workshop:
    """A store with a collection of media, and the captioner over it."""

    folder: Path
    place: Place
    store: Store = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    progress: list[Progress] = field(default_factory=list)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    should_stop: Callable[[], bool] = lambda: False
    batch_size: int = 2

    def __post_init__(self) -> None:
        self.store = self.place.store(self.folder)
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(parents=True)

    def add_media(self, path: Path) -> str:
        """Put a file into the store and return its hash."""
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.store.put_file(keys.media(sha256), path)
        return sha256

    def collection(self, *media: str, name: str = "col-media", shard_size: int = 2, **fields: str) -> Collection:
        """A collection with a record for each hash, two to a shard."""
        licence = Licence("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/")
        records = [
            Record.make(
                {"media": sha256, "name": f"clip {number}", **fields},
                Provenance("tests", "file:///a", "file:///a", licence, "2026-11-21T10:00:00Z", sha256, position=number),
            )
            for number, sha256 in enumerate(media)
        ]
        shards = [records[start : start + shard_size] for start in range(0, len(records), shard_size)]
        collection = Collection(
            id=name,
            recipe="video_tags",
            source="tests",
            num_records=len(records),
            shards=tuple(keys.record_shard("video_tags", name, number) for number in range(len(shards))),
            licences={"CC0-1.0": len(records)},
            created_at="2026-11-21T10:00:00Z",
        )
        for key, shard in zip(collection.shards, shards, strict=True):
            self.store.create(key, b"".join(canonical_json(record.to_json()) + b"\n" for record in shard))
        self.store.create(keys.collection("video_tags", name), canonical_json(collection.to_json()))
        return collection

    def plan(self, collection: Collection, *wanted: str) -> CaptionRequest:
        """The request to caption a collection."""
        return plan_captions(self.store, "video_tags", collection.id, wanted, clip_s=self.limits.clip_s)

    def caption(self, collection: Collection, *wanted: str) -> CaptionedCollection:
        """Caption a collection."""
        return caption(
            self.plan(collection, *wanted),
            store=self.store,
            clock=self.clock,
            limits=self.limits,
            num_decoders=2,
            batch_size=self.batch_size,
            report=self.progress.append,
            should_stop=self.should_stop,
            scratch=self.scratch,
        )

    def records(self, collection: Collection) -> list[Record]:
        """All records of a collection, in order."""
        import json

        return [
            Record.from_json(json.loads(line))
            for key in collection.shards
            for line in self.store.get(key).data.splitlines()
        ]

    def fields_of(self, path: Path, *wanted: str) -> dict[str, Any]:
        """The fields of a lone record with that file, captioned."""
        made = self.caption(self.collection(self.add_media(path), name=f"col-{path.stem}"), *wanted)
        return dict(self.records(made.collection)[0].fields)
