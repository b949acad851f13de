"""The failures of an S3 store, said in the port's errors with what to check."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from tunesmith.adapters.minio_connection import MinioAddress
from tunesmith.domain.errors import (
    FailedPrecondition,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    StoreUnavailable,
    TunesmithError,
    Unavailable,
)

S3_FAILURES = (MinioException, HTTPError)
"""What the SDK and the HTTP client raise."""

_NO_ROOM = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
_WRONG_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId"}
_KEY_IS_FOLDER = {"XMinioParentIsObject", "XMinioObjectExistsAsDirectory", "XMinioObjectParentIsObject"}


@contextmanager
def s3_failures(address: MinioAddress, *, bucket: str, key: str) -> Iterator[None]:
    """Raise failures of the block as the port's errors."""
    try:
        yield
    except S3_FAILURES as error:
        raise translated(error, address, bucket=bucket, key=key) from error


@contextmanager
def listing_failures(address: MinioAddress) -> Iterator[None]:
    """Raise what the SDK raises at a listing that is not one."""
    try:
        yield
    except (ValueError, ElementTree.ParseError) as error:
        raise _not_s3(address, str(error)) from error


def translated(error: MinioException | HTTPError, address: MinioAddress, *, bucket: str, key: str) -> TunesmithError:
    """The port's error for what was raised while `key` was read or written."""
    if isinstance(error, S3Error):
        return refusal(error.response, error.code or "", error.message or "", address, bucket=bucket, key=key)
    if isinstance(error, InvalidResponseError):
        return _not_s3(address, str(error))
    if isinstance(error, ServerError):
        return _unavailable(address, f"answered with HTTP status {error.status_code}")
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(reason, SSLError) or isinstance(reason.__cause__, ssl.SSLError):
        return InvalidSettings(
            f"no TLS connection to the store at {address.endpoint} ({_short(reason)}): set TUNESMITH_S3_CA to the PEM "
            "file of the authority that signed its certificate, and use the host name that the certificate names",
            reason="STORE_TLS",
        )
    return _unavailable(address, f"does not answer ({_short(reason)})")


def refusal_of(response: BaseHTTPResponse, address: MinioAddress, *, bucket: str, key: str) -> TunesmithError:
    """The port's error for an answer to a request that the SDK did not send."""
    try:
        told = ElementTree.fromstring(response.data.decode())
    except (ElementTree.ParseError, ValueError):
        code = message = ""
    else:
        names = {child.tag.rpartition("}")[2]: child.text or "" for child in told}
        code, message = names.get("Code", ""), names.get("Message", "")
    return refusal(response, code, message, address, bucket=bucket, key=key)


def refusal(
    response: BaseHTTPResponse, code: str, message: str, address: MinioAddress, *, bucket: str, key: str
) -> TunesmithError:
    """The port's error for an answer that is neither a success nor about a condition."""
    # Replies to HEAD have no body; without this header a missing bucket looks like a missing object.
    code = response.headers.get("x-minio-error-code") or code
    told = f"{code}: {message}"[:200]
    if code == "NoSuchKey":
        return not_found(key)
    if code == "NoSuchBucket":
        return FailedPrecondition(
            f"the bucket {bucket!r} does not exist at {address.endpoint}; run `tunesmith setup`, or correct "
            "TUNESMITH_STORE",
            reason="STORE_BUCKET_MISSING",
            metadata={"bucket": bucket},
        )
    if code in _WRONG_CREDENTIALS:
        return InvalidSettings(
            f"the store at {address.endpoint} refuses the credentials ({code}); correct TUNESMITH_S3_ACCESS_KEY and "
            "TUNESMITH_S3_SECRET_KEY",
            reason="STORE_CREDENTIALS_REFUSED",
        )
    if code == "RequestTimeTooSkewed":
        return Unavailable(
            f"the clocks of this machine and of the store at {address.endpoint} differ by more than the 15 minutes "
            "that S3 allows; set them by NTP",
            reason="STORE_CLOCK_SKEW",
        )
    if code == "AuthorizationHeaderMalformed":
        return InvalidSettings(
            f"the store at {address.endpoint} is in another region than {address.region!r} ({told}); add "
            "&region=NAME to TUNESMITH_STORE",
            reason="STORE_REGION",
        )
    if code in _NO_ROOM or response.status == 507:
        return ResourceExhausted(
            f"no room in bucket {bucket!r} of the store at {address.endpoint} to write {key} ({told}); free some "
            "space (`tunesmith clean`), or give it a larger disk or quota",
            reason="DISK_FULL",
            metadata={"bucket": bucket, "key": key},
        )
    if code in _KEY_IS_FOLDER:
        return InvalidInput(
            f"{key} cannot be both an object and a folder of objects; use another key", reason="KEY_IS_FOLDER"
        )
    if code == "AccessDenied" or response.status == 403:
        return PermissionRefused(
            f"the store at {address.endpoint} does not allow this on {key or 'the bucket'} in bucket {bucket!r} "
            f"({code}): give the user of TUNESMITH_S3_ACCESS_KEY the rights that `tunesmith setup` gives",
            reason="STORE_ACCESS_DENIED",
            metadata={"bucket": bucket, "key": key},
        )
    return _unavailable(address, f"answered {response.status} {told}")


def not_found(key: str) -> NotFound:
    """No object has that key."""
    return NotFound(f"no object is stored under {key}", reason="OBJECT_NOT_FOUND", metadata={"key": key})


def _unavailable(address: MinioAddress, what: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store at {address.endpoint} {what}; check that it runs, and that TUNESMITH_STORE names its address",
        metadata={"endpoint": address.endpoint},
    )


def _not_s3(address: MinioAddress, told: str) -> TunesmithError:
    return Unavailable(
        f"what answers at {address.endpoint} does not speak S3 ({told[:160]}); the endpoint must be the S3 port, "
        "not that of a console or web site, with https where the store has TLS",
        reason="STORE_NOT_S3",
        metadata={"endpoint": address.endpoint},
    )


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:160]
