"""One bucket for each area of keys, and a user for each service that may write its own areas only."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

import pytest

from contract.minio_buckets import open_store
from fixtures_real_parts import S3
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.minio_setup import make_users
from tunesmith.adapters.minio_store import MinioStore
from tunesmith.adapters.store_probe import prove_conditions
from tunesmith.cli import main
from tunesmith.domain import areas, keys
from tunesmith.domain.errors import NotFound, PermissionRefused

KEYS = [
    keys.champion("micro_genre"),
    keys.captions("0" * 64, "signal", "1", 30),
    keys.collection("micro_genre", "c1"),
    keys.job_state("j1"),
    keys.active_job("j1"),
    keys.media("0" * 64),
    keys.model_version("micro_genre", "v1"),
    "a-kind-of-its-own/x",
    "zzz",
]


def test_listings_go_over_all_buckets_as_over_one_folder(minio_server: S3, tmp_path: Path) -> None:
    divided, local = open_store(minio_server, options="&buckets=areas"), LocalStore(tmp_path)
    for key in KEYS:
        for store in (divided, local):
            store.create(key, key.encode())

    for prefix in ("", "m", "media/", "j", "jobs", "jobs/", "c", "models/micro_genre/", "z", "none"):
        for after in ("", "jobs/", "media/", "zz"):
            assert [info.key for info in divided.list(prefix, start_after=after)] == [
                info.key for info in local.list(prefix, start_after=after)
            ]


def test_an_object_lies_in_the_bucket_of_its_area(minio_server: S3) -> None:
    store = open_store(minio_server, options="&buckets=areas")
    address, client = store.connection.address, store.connection.client

    for key in KEYS:
        store.create(key, b"1")
        store.replace(key, b"2", version=store.get(key).version)

    found = {
        area: [found.object_name for found in client.list_objects(address.bucket_of(area), recursive=True)]
        for area in areas.AREAS
    }
    assert found == {area: sorted(key for key in KEYS if areas.area_of(key) == area) for area in areas.AREAS}


@pytest.fixture(scope="module")
def stores(minio_server: S3, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, MinioStore]:
    """The store as each service opens it; once for all tests, because making a user takes a second."""
    options = "&buckets=areas"
    admin = open_store(minio_server, options=options)
    folder = tmp_path_factory.mktemp("keys")
    make_users(admin.connection, folder)
    address = admin.connection.address
    url = f"s3://{address.bucket}?endpoint={address.endpoint}{options}"
    opened = {}
    for service in areas.WRITTEN_BY:
        lines = (folder / f"{service}.env").read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        opened[service] = MinioStore.open(
            url, access_key=given["TUNESMITH_S3_ACCESS_KEY"], secret_key=given["TUNESMITH_S3_SECRET_KEY"]
        )
    return opened


class TestUsers:
    """Users that `tunesmith setup` makes."""

    def test_every_service_writes_its_own_areas_and_reads_all(self, stores: Mapping[str, MinioStore]) -> None:
        for service, store in stores.items():
            for segment, area in areas.AREA_OF.items():
                key = f"{segment}/{service}"
                if area in areas.WRITTEN_BY[service]:
                    version = store.create(key, b"1")
                    store.replace(key, b"2", version=version)
                    assert all(other.get(key).data == b"2" for other in stores.values())
                    store.delete(key)

    def test_the_captioner_cannot_write_the_trainers_area(
        self, stores: Mapping[str, MinioStore], tmp_path: Path
    ) -> None:
        captioner, trainer = stores["captioner"], stores["trainer"]
        key = keys.champion("micro_genre")
        version = trainer.create(key, b"the trainer's")
        (tmp_path / "in").write_bytes(bytes(6 << 20))

        refused = "does not allow this on models/micro_genre/champion.json"
        for call in (
            lambda: captioner.put(key, b"x"),
            lambda: captioner.create(key, b"x"),
            lambda: captioner.replace(key, b"x", version=version),
            lambda: captioner.delete(key),
            lambda: captioner.put_file(key, tmp_path / "in"),
        ):
            with pytest.raises(PermissionRefused, match=refused):
                call()

        assert captioner.get(key).data == b"the trainer's"

    def test_every_service_starts_with_its_own_keys(self, stores: Mapping[str, MinioStore]) -> None:
        for store in stores.values():
            version = store.create("probes/own", b"1")
            store.replace("probes/own", b"2", version=version)
            store.delete("probes/own")
            with pytest.raises(NotFound):
                store.get("jobs/none/state.json")
        prove_conditions(stores["generator"], name="the store")

    def test_users_are_made_by_an_administrator_only(self, stores: Mapping[str, MinioStore], tmp_path: Path) -> None:
        with pytest.raises(PermissionRefused, match="keys of an administrator"):
            make_users(stores["trainer"].connection, tmp_path / "others")


class TestSetupCommand:
    """`tunesmith setup`."""

    @pytest.fixture
    def url(self, minio_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
        """A store that has no bucket yet, in the environment."""
        url = f"s3://setup-{secrets.token_hex(6)}?endpoint={minio_server.endpoint}"
        monkeypatch.setenv("TUNESMITH_STORE", url)
        monkeypatch.setenv("TUNESMITH_S3_ACCESS_KEY", minio_server.access_key)
        monkeypatch.setenv("TUNESMITH_S3_SECRET_KEY", minio_server.secret_key)
        monkeypatch.setenv("TUNESMITH_DATA", str(tmp_path / "data"))
        return url

    def test_it_makes_what_is_missing_and_may_be_run_again(
        self, url: str, minio_server: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "keys"
        outcomes, written = [], []
        for _ in range(2):
            assert main(["setup", "--json", "--store-users", str(folder)]) == 0
            printed = "".join(capsys.readouterr())
            steps = json.loads(printed)["steps"]
            outcomes.append({step["outcome"] for step in steps if step["part"] == "bucket"})
            users = [step["name"].rpartition("-")[2] for step in steps if step["part"] == "user"]
            written.append({path.name: path.read_text() for path in folder.iterdir()})

            assert users == list(areas.WRITTEN_BY)
            assert not any(text.rpartition("=")[2].strip() in printed for text in written[-1].values())

        assert outcomes == [{"made"}, {"there already"}]
        assert written[0] == written[1]
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        given = dict(line.split("=", 1) for line in written[1]["captioner.env"].splitlines())
        captioner = MinioStore.open(
            url, access_key=given["TUNESMITH_S3_ACCESS_KEY"], secret_key=given["TUNESMITH_S3_SECRET_KEY"]
        )
        captioner.create("clips/x", b"")
        with pytest.raises(PermissionRefused):
            captioner.create("models/x", b"")

    def test_a_folder_needs_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("TUNESMITH_DATA", str(tmp_path))

        assert main(["setup"]) == 0
