"""How an S3 store is reached: its address, a client for it, and requests that the SDK has no method for."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import certifi
from minio import Minio, MinioAdmin
from minio.credentials.credentials import Credentials
from minio.credentials.providers import StaticProvider
from minio.signer import sign_v4_s3
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout

from tunesmith.domain.areas import AREAS
from tunesmith.domain.errors import InvalidSettings

DEFAULT_REGION = "us-east-1"
"""What MinIO calls its region unless told otherwise; naming one spares a request for it."""

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
"""How long a store may stay silent, not how long a whole transfer takes."""

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_MAX_BUCKET_STEM = 63 - 1 - max(len(area) for area in AREAS)

_MAX_CONNECTIONS = 32
"""Kept open for reuse; more threads than this open connections of their own."""

_RETRIES = Retry(
    total=5,
    read=2,
    other=0,  # such as a certificate that nobody vouches for
    backoff_factor=0.1,
    backoff_jitter=0.1,
    status_forcelist=(500, 502, 503, 504),
    raise_on_status=False,
    redirect=0,
    raise_on_redirect=False,
    respect_retry_after_header=False,
)
"""For calls that may be repeated (GET, HEAD, PUT, DELETE): six tries within about 3 s, which outlasts a restart."""


@dataclass(frozen=True, slots=True)
class MinioAddress:
    """What a store URL says: `s3://bucket?endpoint=http(s)://host:port[&region=NAME][&buckets=areas]`."""

    bucket: str
    endpoint: str
    region: str = DEFAULT_REGION
    by_area: bool = False

    def bucket_of(self, area: str) -> str:
        """The bucket that holds the objects of an area (domain.areas)."""
        return f"{self.bucket}-{area}" if self.by_area else self.bucket

    def buckets(self) -> list[str]:
        """All buckets of the store."""
        return sorted({self.bucket_of(area) for area in AREAS})

    @staticmethod
    def read(url: str) -> MinioAddress:
        """Read a store URL; InvalidSettings says what is wrong with one that cannot be used."""
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise InvalidSettings(
                "TUNESMITH_STORE carries a user or password, which would show in process lists and logs; "
                "set TUNESMITH_S3_ACCESS_KEY and TUNESMITH_S3_SECRET_KEY instead"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        endpoint = urlsplit(options.get("endpoint", ""))
        wrong = ""
        if not _BUCKET.fullmatch(parts.netloc) or parts.path.strip("/"):
            wrong = (
                f"{parts.netloc + parts.path!r} is not the name of a bucket (3 to 63 small letters, digits, '-', '.', "
                "and no folder)"
            )
        elif unknown := sorted(options.keys() - {"endpoint", "region", "buckets"}):
            wrong = f"the option {unknown[0]!r} is not known"
        elif endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.path.strip("/"):
            wrong = f"endpoint={options.get('endpoint', '')!r} is not http(s)://host:port"
        elif endpoint.username is not None or endpoint.password is not None:
            wrong = "the endpoint carries a user or password"
        elif "buckets" in options and len(parts.netloc) > _MAX_BUCKET_STEM:
            wrong = f"{parts.netloc!r} is longer than {_MAX_BUCKET_STEM} characters: each area adds its name"
        elif options.get("buckets", "areas") != "areas":
            wrong = f"buckets={options['buckets']!r} is not 'areas'"
        if wrong:
            raise InvalidSettings(
                f"TUNESMITH_STORE cannot be used: {wrong}; "
                "write s3://BUCKET?endpoint=http://HOST:9000 (with &region=NAME or &buckets=areas where needed)",
                metadata={"setting": "TUNESMITH_STORE"},
            )
        return MinioAddress(
            bucket=parts.netloc,
            endpoint=f"{endpoint.scheme}://{endpoint.netloc}",
            region=options.get("region") or DEFAULT_REGION,
            by_area="buckets" in options,
        )


class MinioConnection:
    """A client of one S3 endpoint. Connects with the first call; for threads, but not across a fork."""

    def __init__(self, address: MinioAddress, *, access_key: str, secret_key: str, ca: Path | None = None) -> None:
        if not access_key or not secret_key:
            raise InvalidSettings(
                f"the store at {address.endpoint} needs credentials: set TUNESMITH_S3_ACCESS_KEY and "
                "TUNESMITH_S3_SECRET_KEY",
                reason="STORE_CREDENTIALS_MISSING",
            )
        if ca is not None and not os.access(ca, os.R_OK):
            raise InvalidSettings(f"TUNESMITH_S3_CA={str(ca)!r} cannot be read; give a PEM file of certificates")
        self.address = address
        self.access_key = access_key
        self._credentials = Credentials(access_key, secret_key)
        self._url = urlsplit(address.endpoint)
        self._http = PoolManager(
            maxsize=_MAX_CONNECTIONS,
            timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=_RETRIES,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(ca) if ca else os.environ.get("SSL_CERT_FILE") or certifi.where(),
        )
        self.client = Minio(
            self._url.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=self._url.scheme == "https",
            region=address.region,
            http_client=self._http,
        )

    def put(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str], *, retried: bool) -> BaseHTTPResponse:
        """PUT an object with `headers` and return whatever was answered.

        The SDK's own `put_object` sends no conditions: it would store `If-Match` as the object's metadata. A request
        that is not `retried` is sent once, and what went wrong on the way raises urllib3's HTTPError.
        """
        typed = {"Content-Type": "application/octet-stream", **headers}
        return self._request("PUT", f"{bucket}/{key}", data=data, headers=typed, retried=retried)

    def uploads(self, bucket: str, *, key_marker: str, upload_id_marker: str) -> BaseHTTPResponse:
        """A page of the uploads in parts that were begun and not ended, from the markers on."""
        query = {"key-marker": key_marker, "max-uploads": "1000", "upload-id-marker": upload_id_marker, "uploads": ""}
        return self._request("GET", bucket, query=query)

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> BaseHTTPResponse:
        """Remove an upload's parts."""
        return self._request("DELETE", f"{bucket}/{key}", query={"uploadId": upload_id})

    def admin(self) -> MinioAdmin:
        """A client of MinIO's own interface for users and policies, which other stores do not have."""
        return MinioAdmin(
            endpoint=self._url.netloc,
            credentials=StaticProvider(self.access_key, self._credentials.secret_key),
            region=self.address.region,
            secure=self._url.scheme == "https",
            http_client=self._http,
        )

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        retried: bool = True,
    ) -> BaseHTTPResponse:
        """Send a request whose headers and body are all signed."""
        now = datetime.now(UTC)
        digest = hashlib.sha256(data).hexdigest()
        asked = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted((query or {}).items()))
        url = self._url._replace(path="/" + quote(path, safe="/-_.~"), query=asked)
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=self.address.region,
            headers={
                **(headers or {}),
                "Host": url.netloc,
                "x-amz-content-sha256": digest,
                "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
            },
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        return self._http.urlopen(
            method, url.geturl(), body=data, headers=signed, retries=_RETRIES if retried else False, redirect=False
        )
