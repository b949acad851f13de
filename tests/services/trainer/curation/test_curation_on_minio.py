"""Curation over a real MinIO, and what becomes of a job whose input is deleted under it."""

from __future__ import annotations

from pathlib import Path

from curation_material import PLAIN_NAMES, RECIPE, Workbench

from contract.minio_buckets import open_store
from doubles.fake_clock import FakeClock
from fixtures_real_parts import S3
from tunesmith.domain import keys
from tunesmith.jobs.state import JobStore
from tunesmith.jobs.worker import Outcome, WorkContext, run_worker


def test_a_dataset_is_the_same_and_an_input_that_is_deleted_ends_the_job_for_good(
    minio_server: S3, bench: Workbench, tmp_path: Path
) -> None:
    store = open_store(minio_server)
    remote = Workbench(store, tmp_path / "work")
    remote.folder.mkdir()
    collection = remote.collect(PLAIN_NAMES)
    dataset, _ = remote.build(collection)

    def curate_again(context: WorkContext) -> Outcome:
        store.delete(keys.dataset(RECIPE.name, dataset.id))
        store.delete(collection.shards[3])
        remote.build(collection)
        raise AssertionError("must not be reached")

    jobs = JobStore(store, FakeClock())
    jobs.submit(job_id="j1", kind="curate", service="trainer", request={})
    exit_code = run_worker("j1", 0, curate_again, jobs=jobs, clock=FakeClock())

    assert dataset.id == bench.build(bench.collect(PLAIN_NAMES))[0].id
    job = jobs.get("j1")
    assert (exit_code, job.phase) == (0, "failed")
    assert job.error is not None
    assert (job.error.code, job.error.metadata["key"]) == ("DATA_LOSS", collection.shards[3])
    assert "is gone; collect list:one again" in job.error.message
