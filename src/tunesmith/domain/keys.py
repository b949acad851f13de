"""Where everything lies in the store. Keys come from ids and hashes, never from titles or file names."""

from __future__ import annotations

from tunesmith.domain.examples import Split


def upload(sha256: str) -> str:
    """Bytes that a client sent to be collected from."""
    return f"uploads/{sha256}"


def media(sha256: str) -> str:
    """A media file as it was collected, by the SHA-256 of its bytes."""
    return f"media/{sha256}"


def media_source(url_sha256: str) -> str:
    """Which media file an address gave, by the SHA-256 of the address; a hint that may be lost without harm."""
    return f"media-sources/{url_sha256}.json"


def clip(sha256: str, seconds: int) -> str:
    """The first `seconds` of the media file with that SHA-256, in a container of their own (Matroska)."""
    return f"clips/{sha256}-{seconds}s.mkv"


def captions(sha256: str, captioner: str, version: str, seconds: int) -> str:
    """What one captioner made of the first `seconds` of a media file."""
    return f"captions/{sha256}/{captioner}-{version}-{seconds}s.json"


def collection(recipe: str, collection_id: str) -> str:
    """A collection's manifest; written last, so that its presence means the shards are whole."""
    return f"collections/{recipe}/{collection_id}.json"


def record_shard(recipe: str, collection_id: str, number: int) -> str:
    """One JSON-lines shard of records."""
    return f"records/{recipe}/{collection_id}/{number:05d}.jsonl"


def dataset(recipe: str, dataset_id: str) -> str:
    """A dataset's manifest; written last."""
    return f"datasets/{recipe}/{dataset_id}/manifest.json"


def dataset_shard(recipe: str, dataset_id: str, split: Split) -> str:
    """A dataset's examples of one split, JSON lines."""
    return f"datasets/{recipe}/{dataset_id}/{split}.jsonl"


def dataset_lineage(recipe: str, dataset_id: str) -> str:
    """Which example came from which record and collection, JSON lines; the way back from an answer to its sources."""
    return f"datasets/{recipe}/{dataset_id}/lineage.jsonl"


def dataset_example_ids(recipe: str, dataset_id: str) -> str:
    """What the ids of a dataset's examples hash to, for counting what is new in another one."""
    return f"datasets/{recipe}/{dataset_id}/example-ids"


def policy(recipe: str) -> str:
    """A recipe's policy, and where it stands."""
    return f"policies/{recipe}.json"


def watch(watch_id: str) -> str:
    """A watched source, and what was seen of it."""
    return f"watches/{watch_id}.json"


def run(recipe: str, run_id: str) -> str:
    """A run's outcome; written last."""
    return f"runs/{recipe}/{run_id}/run.json"


def run_metrics(recipe: str, run_id: str) -> str:
    """A run's metrics, one JSON line a step."""
    return f"runs/{recipe}/{run_id}/metrics.jsonl"


def run_trained_on(recipe: str, run_id: str) -> str:
    """Digests of the rows that a run's training was given, one a line, so that a leak of held-out rows is found."""
    return f"runs/{recipe}/{run_id}/trained-on"


def run_checkpoints(recipe: str, run_id: str) -> str:
    """Prefix (with trailing `/`) of a run's checkpoints, while it trains."""
    return f"runs/{recipe}/{run_id}/checkpoints/"


def adapter(recipe: str, run_id: str) -> str:
    """Prefix (with trailing `/`) of an adapter's files."""
    return f"runs/{recipe}/{run_id}/adapter/"


def base_model(fingerprint: str) -> str:
    """Prefix (with trailing `/`) of the files of a base model that was made here."""
    return f"bases/{fingerprint}/"


def report(recipe: str, report_id: str) -> str:
    """A report as JSON."""
    return f"reports/{recipe}/{report_id}.json"


def report_page(recipe: str, report_id: str) -> str:
    """A report as one self-contained HTML page."""
    return f"reports/{recipe}/{report_id}.html"


def sweep(recipe: str, sweep_id: str) -> str:
    """A sweep's outcome; written last."""
    return f"sweeps/{recipe}/{sweep_id}.json"


def sweep_page(recipe: str, sweep_id: str) -> str:
    """A sweep as one self-contained HTML page."""
    return f"sweeps/{recipe}/{sweep_id}.html"


def sweep_part(recipe: str, part_id: str) -> str:
    """What was measured of one training or cell; sweeps that ask the same share it."""
    return f"sweep-parts/{recipe}/{part_id}.json"


def model_version(recipe: str, version: str) -> str:
    """A model version."""
    return f"models/{recipe}/versions/{version}.json"


def parity(recipe: str, version: str) -> str:
    """The last comparison of what is served with what was judged."""
    return f"models/{recipe}/parity/{version}.json"


def replica_wish(recipe: str, version: str) -> str:
    """That a version is to be served before it is champion, and how far that has come."""
    return f"models/{recipe}/replicas/{version}.json"


def champion(recipe: str) -> str:
    """The champion alias of a recipe."""
    return f"models/{recipe}/champion.json"


def publication(publication_id: str) -> str:
    """A publication's manifest; written last."""
    return f"publications/{publication_id}/manifest.json"


def published_file(publication_id: str, name: str) -> str:
    """One file of a publication."""
    return f"publications/{publication_id}/files/{name}"


def catalogue(recipe: str) -> str:
    """A recipe's catalogue: its hash and counts."""
    return f"catalogues/{recipe}.json"


def catalogue_names(recipe: str, sha256: str) -> str:
    """The names of a catalogue, one a line."""
    return f"catalogues/{recipe}/{sha256}.txt"


def written_row(recipe: str, batch: str, number: int) -> str:
    """What a language model answered about one row; there while the others are still asked for."""
    return f"pairs/{recipe}/{batch}/{number:06d}.json"


def written_pairs(recipe: str, batch: str) -> str:
    """What came of a whole batch; written last."""
    return f"pairs/{recipe}/{batch}.json"


def job_state(job_id: str) -> str:
    """A job's state object."""
    return f"jobs/{job_id}/state.json"


def job_progress(job_id: str) -> str:
    """A job's live progress; owned by its worker, overwritten often, lost without harm."""
    return f"jobs/{job_id}/progress.json"


def host(host_id: str) -> str:
    """A host's heartbeat: shows which of its services live."""
    return f"hosts/{host_id}"


def active_job(job_id: str) -> str:
    """Marker that a job may have work or events outstanding; an index only, written before the state."""
    return f"jobs-active/{job_id}"
