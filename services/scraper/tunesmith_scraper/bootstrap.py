"""Chooses the scraper's adapters and puts the service together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tunesmith.domain.events import RECORDS_COLLECTED, topic_of
from tunesmith.domain.keys import collection as collection_key
from tunesmith.jobs.reconciler import JobKind
from tunesmith.jobs.ticking import Ticker
from tunesmith.jobs.worker import Outcome, Work, WorkContext
from tunesmith.platform import Platform
from tunesmith.rpc.hosting import mount
from tunesmith.rpc.jobs import JobBoard
from tunesmith.rpc.service import Service
from tunesmith.settings import read_settings
from tunesmith_proto.scraper.v1 import scraper_pb2, scraper_pb2_grpc, watches_pb2, watches_pb2_grpc
from tunesmith_scraper.consumer import consumers
from tunesmith_scraper.handlers import Collected, CollectRequest, collect
from tunesmith_scraper.servicer import ScraperServicer, collection_message
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.watch_servicer import WatchServicer
from tunesmith_scraper.watches import Watches

MAX_PARALLEL_COLLECTIONS = 1
"""One at a time, of all replicas: the pace that is kept towards each host is kept by one worker."""


def build(platform: Platform, board: JobBoard) -> Service:
    """The service, ready to be hosted."""
    settings = read_settings(ScraperSettings)
    servicer = ScraperServicer(platform, board, settings, _scratch(platform))
    watches = Watches(platform.store, platform.jobs, platform.clock, settings, submitted=board.wake)
    watcher = Ticker("watches", watches.look_at_all, interval_s=settings.watch_interval_s)
    board.register("collect", lambda result: collection_message(Collected.from_json(result)))
    argv = (sys.executable, "-m", "tunesmith_scraper", "work")
    return Service(
        name="scraper",
        mounts=(
            mount(scraper_pb2, "ScraperService", scraper_pb2_grpc.add_ScraperServiceServicer_to_server, servicer),
            mount(
                watches_pb2,
                "WatchService",
                watches_pb2_grpc.add_WatchServiceServicer_to_server,
                WatchServicer(watches, watcher.wake),
            ),
        ),
        topics=(topic_of("scraper"),),
        kinds={"collect": JobKind(argv, slot="collect", max_parallel=MAX_PARALLEL_COLLECTIONS, everywhere=True)},
        consumers=consumers(platform),
        background=(watcher,),
    )


def works(platform: Platform) -> Mapping[str, Work]:
    """What its workers do, by job kind."""
    return {"collect": lambda context: _collect(platform, context)}


def _collect(platform: Platform, context: WorkContext) -> Outcome:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.fetch import Fetcher
    from tunesmith_scraper.politeness import PoliteFetcher

    settings = read_settings(ScraperSettings)
    fetcher = Fetcher(settings, clock=platform.clock)
    collected = collect(
        CollectRequest.from_json(context.job.request),
        store=platform.store,
        clock=platform.clock,
        fetcher=PoliteFetcher(fetcher, settings, clock=platform.clock),
        settings=settings,
        report=context.report,
        should_stop=context.should_stop,
        scratch=_scratch(platform),
    )
    collection = collected.collection
    data = {
        "job_id": context.job.id,
        "recipe": collection.recipe,
        "collection_id": collection.id,
        "num_records": collection.num_records,
        "manifest_key": collection_key(collection.recipe, collection.id),
        "reused": collected.reused,
    }
    return Outcome(collected.to_json(), [(RECORDS_COLLECTED, context.job.id, data)])


def _scratch(platform: Platform) -> Path:
    scratch = platform.settings.data / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch
