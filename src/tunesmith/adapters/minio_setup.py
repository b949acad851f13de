"""Prepares an S3 store: buckets, the rule against abandoned uploads, and a user with least rights for each service."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minio.commonconfig import ENABLED, Filter
from minio.error import MinioAdminException, S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

from tunesmith.adapters.minio_connection import MinioAddress, MinioConnection
from tunesmith.adapters.minio_errors import s3_failures
from tunesmith.domain.areas import AREA_OF, WRITTEN_BY
from tunesmith.domain.errors import InvalidSettings, PermissionRefused, Unsupported

UPLOADS_END_AFTER_DAYS = 1
"""When the store removes the parts of an upload whose writer died."""

_EXISTS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_NO_SUCH_RULE = {"InvalidArgument", "MalformedXML", "NotImplemented"}

_KEYS = ("TUNESMITH_S3_ACCESS_KEY", "TUNESMITH_S3_SECRET_KEY")


def make_buckets(connection: MinioConnection) -> list[str]:
    """Make the buckets that are missing; returns their names."""
    made = []
    for bucket in connection.address.buckets():
        with s3_failures(connection.address, bucket=bucket, key=""):
            try:
                connection.client.make_bucket(bucket, connection.address.region)
            except S3Error as error:
                if error.code not in _EXISTS:
                    raise
            else:
                made.append(bucket)
    return made


def end_abandoned_uploads(connection: MinioConnection) -> bool:
    """Have the store remove the parts of uploads that were abandoned; False where it has no such rule.

    MinIO has none and needs none: it removes them by itself after a day.
    """
    rule = Rule(
        ENABLED,
        rule_filter=Filter(prefix=""),
        rule_id="tunesmith-abandoned-uploads",
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(UPLOADS_END_AFTER_DAYS),
    )
    for bucket in connection.address.buckets():
        with s3_failures(connection.address, bucket=bucket, key=""):
            try:
                connection.client.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))
            except S3Error as error:
                if error.code in _NO_SUCH_RULE:
                    return False
                raise
    return True


def policy_of(service: str, address: MinioAddress) -> dict[str, Any]:
    """What a service may do: read everything, and write the areas that are its own (domain.areas)."""
    buckets = [f"arn:aws:s3:::{bucket}" for bucket in address.buckets()]
    written = [
        f"arn:aws:s3:::{address.bucket_of(area)}/{segment}/*"
        for segment, area in AREA_OF.items()
        if area in WRITTEN_BY[service]
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow(["s3:GetBucketLocation", "s3:ListBucket"], buckets),
            _allow(["s3:GetObject"], [f"{bucket}/*" for bucket in buckets]),
            _allow(["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], written),
        ],
    }


def make_users(connection: MinioConnection, folder: Path) -> Mapping[str, str]:
    """Make a user for each service on MinIO, with its policy; returns user by service.

    Each service's keys are written to `folder/SERVICE.env`, for its environment, and used again when the file is
    there. Needs the keys of an administrator: PermissionRefused otherwise, Unsupported on other stores than MinIO.
    """
    admin = connection.admin()
    users = {}
    for service in WRITTEN_BY:
        user, secret = _keys_in(folder / f"{service}.env") or (
            f"{connection.address.bucket}-{service}",
            secrets.token_urlsafe(30),
        )
        with _admin_failures(connection.address):
            admin.policy_add(user, policy=policy_of(service, connection.address))
            admin.user_add(user, secret)
            admin.policy_set(user, user=user)
        _write_keys(folder / f"{service}.env", user, secret)
        users[service] = user
    return users


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": sorted(resources)}


def _keys_in(path: Path) -> tuple[str, str] | None:
    try:
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        return lines[_KEYS[0]], lines[_KEYS[1]]
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise InvalidSettings(f"{path} holds no {error.args[0]}; correct the file, or remove it") from None


def _write_keys(path: Path, user: str, secret: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    partial.touch(mode=0o600)
    partial.write_text(f"{_KEYS[0]}={user}\n{_KEYS[1]}={secret}\n")
    partial.replace(path)


@contextmanager
def _admin_failures(address: MinioAddress) -> Iterator[None]:
    try:
        with s3_failures(address, bucket=address.bucket, key=""):
            yield
    except MinioAdminException as error:
        told = str(error)[:200]
        if "AccessDenied" in told or "status code: 403" in told.lower() or "Status: 403" in told:
            raise PermissionRefused(
                f"the user of TUNESMITH_S3_ACCESS_KEY may not make users at {address.endpoint}; run this with the keys "
                "of an administrator",
                reason="STORE_ADMIN_NEEDED",
            ) from error
        raise Unsupported(
            f"users cannot be made at {address.endpoint} ({told}): only MinIO has this interface; make a user for each "
            "service with the means of your store",
            reason="STORE_HAS_NO_USERS",
        ) from error
