"""Pairs written by a language model: asked row by row, every answer kept at once, so that nothing is asked twice."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    DeadlineExceeded,
    Interrupted,
    InvalidInput,
    NotFound,
    NoUsableRows,
    ResourceExhausted,
    TunesmithError,
    Unsupported,
)
from tunesmith.domain.examples import Dropped
from tunesmith.domain.ids import canonical_json, content_id, sha256_hex
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.records import Collection, Licence, Provenance, Record
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.language_model import DescribedLanguageModel, GenerationParameters
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith.recipes.pair_writing import BadReply, Mode, PairWriter
from tunesmith.stored_collections import RecordSpool, create_once, publish_collection, read_collection
from tunesmith_trainer.curation.steps import read_rows

log = logging.getLogger(__name__)

MAX_PAIRS = 100_000
"""Invented pairs of one request."""

MAX_KEPT_REPLIES = 10
"""Samples of bad replies in a result."""
MAX_KEPT_OF_A_REASON = 3
MAX_REPLY_CHARS = 500
"""Of one such sample."""
GIVE_UP_AFTER = 50
"""Bad replies without a single good one, after which a model will not learn the form."""
MAX_FAILURES_IN_A_ROW = 10
"""Requests that fail one after the other, each for a reason of its own, before the server itself is to blame."""
STOP_POLL_S = 0.2

_OWN_FAULTS: Mapping[type[TunesmithError], str] = {
    InvalidInput: "question_refused",
    ResourceExhausted: "reply_too_large",
    DeadlineExceeded: "reply_too_late",
}
"""Errors that are one row's bad luck; every other one ends the job, which goes on from there when it is sent again."""


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What to write, and who writes it."""

    recipe: str
    collection_id: str
    """The records to rewrite; empty in the mode `invent`."""
    mode: Mode
    num_pairs: int
    """Pairs to invent; 0 in the mode `rewrite`."""
    seed: int
    """Of the questions' wording and the sampling: another one asks anew."""
    llm: str
    """Address of the language model, without secrets; see `Settings.llm`."""
    with_key: bool
    """Whether the server's key is sent there."""

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {name: getattr(self, name) for name in self.__slots__}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> WriteRequest:
        """The inverse of `to_json`."""
        return WriteRequest(**{name: row[name] for name in WriteRequest.__slots__})


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome: a derived collection, and what became of the rows that are not pairs."""

    collection: Collection
    num_written: int
    """Records that have a pair now; the others hold a `pair_error`."""
    bad: Mapping[str, int]
    """Number of rows without a pair, by reason."""
    bad_replies: tuple[tuple[str, str], ...]
    """Reasons and texts of some bad replies, shortened."""
    reused: bool = False

    def to_json(self) -> dict[str, Any]:
        """The outcome as a job's result, and as its object in the store."""
        return {
            "collection": self.collection.to_json(),
            "num_written": self.num_written,
            "bad": dict(self.bad),
            "bad_replies": [list(pair) for pair in self.bad_replies],
            "reused": self.reused,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Written:
        """The inverse of `to_json`."""
        replies = tuple((reason, text) for reason, text in row["bad_replies"])
        return Written(
            Collection.from_json(row["collection"]), row["num_written"], dict(row["bad"]), replies, row["reused"]
        )


def plan_writing(
    store: Store, recipe_name: str, collection_id: str, *, invent: bool, num_pairs: int, seed: int, llm: str, key: bool
) -> WriteRequest:
    """The request, checked. Raises UnknownRecipe, Unsupported (a recipe without pairs), InvalidInput, NotFound."""
    recipe = recipe_named(recipe_name)
    _writer_of(recipe.name)
    if invent:
        if collection_id:
            raise InvalidInput("invented pairs are made of no collection; leave collection_id out")
        if not 1 <= num_pairs <= MAX_PAIRS:
            raise InvalidInput(
                f"num_pairs={num_pairs} must lie between 1 and {MAX_PAIRS}",
                metadata={"field": "num_pairs", "value": str(num_pairs)},
            )
    elif not collection_id or num_pairs:
        raise InvalidInput(
            "rewriting needs a collection_id and no num_pairs; to have pairs made up, set the mode to invent",
            metadata={"field": "collection_id"},
        )
    else:
        read_collection(store, recipe.name, collection_id)
    return WriteRequest(
        recipe.name, collection_id, "invent" if invent else "rewrite", num_pairs, seed, llm, with_key=key
    )


def write_pairs(
    request: WriteRequest,
    *,
    store: Store,
    clock: Clock,
    open_model: Callable[[], DescribedLanguageModel],
    concurrency: int,
    scratch: Path,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
) -> Written:
    """Ask for every row that has no answer yet, then store the derived collection; or find it.

    Each answer, good or bad, is an object of its own before the next is waited for: whoever dies and comes again asks
    only for the rest. The objects are removed once the collection is whole. `open_model` is called inside the event
    loop. At most `concurrency` questions are on their way at once, and memory does not grow with the rows.

    Raises NoUsableRows when there is not one pair (after GIVE_UP_AFTER rows at the latest), what the language model
    raises, DataLoss, and Interrupted soon after `should_stop` says so.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_Writing(request, store, clock, open_model, concurrency, scratch, report, should_stop).run())


@dataclass(frozen=True, slots=True)
class _Answered:
    """One row's answer as it is kept."""

    fields: Mapping[str, str]
    """What it adds to its record; empty for a bad one."""
    reason: str
    reply: str
    """Of a bad one, shortened; of a good one, its hash."""
    at: str

    def to_json(self) -> dict[str, Any]:
        return {"fields": dict(self.fields), "reason": self.reason, "reply": self.reply, "at": self.at}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> _Answered:
        return _Answered(dict(row["fields"]), row["reason"], row["reply"], row["at"])


class _Writing:
    def __init__(
        self,
        request: WriteRequest,
        store: Store,
        clock: Clock,
        open_model: Callable[[], DescribedLanguageModel],
        concurrency: int,
        scratch: Path,
        report: ProgressReporter,
        should_stop: Callable[[], bool],
    ) -> None:
        self._request = request
        self._store = store
        self._clock = clock
        self._open_model = open_model
        self._concurrency = concurrency
        self._scratch = scratch
        self._report = report
        self._should_stop = should_stop
        self._writer = _writer_of(request.recipe)
        self._source: Collection | None = None
        self._batch = self._model_name = ""
        self._done = self._total = self._num_good = self._failures_in_a_row = 0
        self._bad: Counter[str] = Counter()
        self._bad_replies: list[tuple[str, str]] = []

    async def run(self) -> Written:
        request = self._request
        if request.mode == "rewrite":
            self._source = read_collection(self._store, request.recipe, request.collection_id)
        self._total = self._source.num_records if self._source else request.num_pairs
        model = self._open_model()
        try:
            self._report(Progress("ask", message=f"asking {request.llm}"))
            self._model_name = (await model.describe())[:200]
            told = {name: value for name, value in request.to_json().items() if name != "with_key"}
            self._batch = content_id("pairs", [told, self._model_name, self._writer.version])
            key = keys.written_pairs(request.recipe, self._batch)
            if self._store.exists(key):
                found = read_object(self._store, key, Written.from_json, what="written pairs")
                return Written(found.collection, found.num_written, found.bad, found.bad_replies, reused=True)
            await self._ask_all(model)
        finally:
            await model.close()
        written = self._publish()
        create_once(self._store, key, canonical_json(written.to_json()))
        for number in range(self._total):
            self._store.delete(keys.written_row(request.recipe, self._batch, number))
        return written

    def _rows(self) -> Iterator[tuple[int, Record | None]]:
        if self._source is None:
            yield from ((number, None) for number in range(self._request.num_pairs))
            return
        for number, row in enumerate(read_rows([self._source], store=self._store, folder=self._scratch)):
            yield number, row.record

    async def _ask_all(self, model: DescribedLanguageModel) -> None:
        asking: set[asyncio.Task[None]] = set()
        try:
            for number, record in self._rows():
                kept = self._kept(number)
                if kept is not None:
                    self._note(kept)
                    continue
                if record is not None and _has_pair(record):
                    self._done += 1
                    self._num_good += 1
                    continue
                question = self._question(number, record)
                if isinstance(question, Dropped):
                    self._keep(number, self._answered(reason=question.reason))
                    continue
                while len(asking) >= self._concurrency:
                    asking = await self._some(asking)
                asking.add(asyncio.create_task(self._ask(model, number, record, question)))
            while asking:
                asking = await self._some(asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _some(self, asking: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait until one has ended or it is time to look around; gives those that go on."""
        ended, going_on = await asyncio.wait(asking, timeout=STOP_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        if self._should_stop():
            raise Interrupted(
                f"writing was asked to stop after {self._done} of {self._total} rows; they are kept, "
                "and the same request goes on from there"
            )
        if not self._num_good and self._bad.total() >= GIVE_UP_AFTER:
            raise self._no_pairs()
        return going_on

    def _question(self, number: int, record: Record | None) -> str | Dropped:
        if record is None:
            return self._writer.invent_question(number=number, seed=self._request.seed)
        return self._writer.rewrite_question(record, number=number + self._request.seed)

    async def _ask(self, model: DescribedLanguageModel, number: int, record: Record | None, question: str) -> None:
        seed = int(sha256_hex(canonical_json([self._request.seed, number]))[:7], 16)
        parameters = GenerationParameters(
            max_new_tokens=self._writer.max_new_tokens, temperature=0.8, top_p=0.95, do_sample=True, seed=seed
        )
        try:
            generation = await model.generate(question, parameters, adapter=None)
        except tuple(_OWN_FAULTS) as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise
            self._keep(number, self._answered(reason=_OWN_FAULTS[type(error)], reply=error.message))
            return
        self._failures_in_a_row = 0
        try:
            fields = self._writer.pair(generation.text, record)
        except BadReply as problem:
            cut_off = generation.finish_reason == "length" and problem.reason == "not_json"
            reason = "cut_off" if cut_off else problem.reason
            self._keep(number, self._answered(reason=reason, reply=generation.text))
        else:
            self._keep(number, self._answered(fields=fields, reply=generation.text))

    def _answered(self, *, fields: Mapping[str, str] | None = None, reason: str = "", reply: str = "") -> _Answered:
        kept = sha256_hex(reply.encode(errors="replace")) if fields else _storable(reply)[:MAX_REPLY_CHARS]
        return _Answered(fields or {}, reason, kept, rfc3339(self._clock.now()))

    def _kept(self, number: int) -> _Answered | None:
        key = keys.written_row(self._request.recipe, self._batch, number)
        try:
            return read_object(self._store, key, _Answered.from_json, what=f"row {number} of {self._batch}")
        except NotFound:
            return None

    def _keep(self, number: int, answered: _Answered) -> None:
        key = keys.written_row(self._request.recipe, self._batch, number)
        create_once(self._store, key, canonical_json(answered.to_json()))
        self._note(answered)

    def _note(self, answered: _Answered) -> None:
        self._done += 1
        if answered.reason:
            self._bad[answered.reason] += 1
            kept = Counter(reason for reason, _ in self._bad_replies)
            room = len(self._bad_replies) < MAX_KEPT_REPLIES and kept[answered.reason] < MAX_KEPT_OF_A_REASON
            if answered.reply and room:
                self._bad_replies.append((answered.reason, answered.reply))
        else:
            self._num_good += 1
        self._report(
            Progress(
                "write",
                done=self._done,
                total=self._total,
                unit="pairs",
                values={"good": self._num_good, "bad": self._bad.total()},
            )
        )

    def _publish(self) -> Written:
        """Shards first, the manifest last; the id follows from the records."""
        if not self._num_good:
            raise self._no_pairs()
        derived_by = f"{self._model_name}, {self._writer.version}, {self._request.mode}"
        origin = self._source.id if self._source else ""
        recipe = self._request.recipe
        ids: list[str] = []
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="pairs-") as folder:
            with RecordSpool(Path(folder)) as spool:
                for record in self._records():
                    spool.add(record)
                    ids.append(sha256_hex(canonical_json([record.id, dict(record.fields)]))[:16])
            collection_id = content_id("col", ["pairs", recipe, origin, derived_by, ids])
            collection = Collection(
                id=collection_id,
                recipe=recipe,
                source=self._source.source if self._source else f"written:{self._model_name}",
                num_records=spool.num_records,
                shards=spool.shard_keys(recipe, collection_id),
                licences=dict(sorted(spool.licences.items())),
                created_at=rfc3339(self._clock.now()),
                derived_from=origin,
                derived_by=derived_by,
            )
            stored, _ = publish_collection(self._store, collection, spool.paths)
        bad = dict(sorted(self._bad.items()))
        return Written(stored, self._num_good, bad, tuple(self._bad_replies))

    def _records(self) -> Iterator[Record]:
        """The records as they are now: with their pair, or with the reason why there is none."""
        for number, record in self._rows():
            answered = self._kept(number)
            if record is None:
                if answered is not None and answered.fields:
                    yield self._invented(number, answered)
            elif answered is None:
                yield record
            else:
                added = answered.fields or {"pair_error": answered.reason}
                yield Record(record.id, {**record.fields, **added}, record.provenance)

    def _invented(self, number: int, answered: _Answered) -> Record:
        where = f"written:{self._model_name}"
        return Record.make(
            answered.fields,
            Provenance(
                source=where,
                url=f"{where}/{self._batch}",
                final_url=f"{where}/{self._batch}",
                licence=Licence("unknown"),
                fetched_at=answered.at,
                content_hash=answered.reply,
                position=number,
            ),
        )

    def _no_pairs(self) -> NoUsableRows:
        counts = ", ".join(f"{reason} {count}" for reason, count in self._bad.most_common()) or "no rows"
        sample = f"; one reply: {self._bad_replies[0][1][:120]!r}" if self._bad_replies else ""
        return NoUsableRows(
            f"{self._model_name} wrote not one usable pair for {self._done} rows ({counts}){sample}. Use a model that "
            "follows instructions (TUNESMITH_LLM, --llm), or another seed to ask anew",
            reason="NO_USABLE_PAIRS",
            metadata={f"bad.{reason}": str(count) for reason, count in self._bad.items()},
        )


def _writer_of(recipe_name: str) -> PairWriter:
    writer = recipe_named(recipe_name).pair_writer
    if writer is None:
        raise Unsupported(
            f"recipe {recipe_name!r} has no pairs to write; collect its records as they are",
            reason="NO_PAIR_WRITER",
            metadata={"recipe": recipe_name},
        )
    return writer


def _has_pair(record: Record) -> bool:
    return bool(record.fields.get("prompt") and record.fields.get("reply"))


def _storable(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text.encode(errors="replace").decode()
