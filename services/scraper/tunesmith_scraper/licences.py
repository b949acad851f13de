"""What sources state about reuse, and whether that may be collected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tunesmith.domain.errors import InvalidInput, PermissionRefused
from tunesmith.domain.records import Licence
from tunesmith_scraper.settings import OPEN_LICENCES, ScraperSettings, environment_name

UNKNOWN = Licence("unknown")
OTHER = "LicenseRef-other"
"""Id of a licence that a source states by an address which is not known here."""

_SPDX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/(by(?:-nc)?(?:-nd|-sa)?)/(\d\.\d)")
_ADDRESSES = {
    "creativecommons.org/publicdomain/zero/1.0": "CC0-1.0",
    "creativecommons.org/publicdomain/mark/1.0": "CC-PDM-1.0",
    "opendatacommons.org/licenses/by/1": "ODC-By-1.0",
    "opendatacommons.org/licenses/by": "ODC-By-1.0",
    "opendatacommons.org/licenses/odbl/1": "ODbL-1.0",
    "opendatacommons.org/licenses/odbl": "ODbL-1.0",
    "opendatacommons.org/licenses/pddl/1": "PDDL-1.0",
    "opendatacommons.org/licenses/pddl": "PDDL-1.0",
    "apache.org/licenses/license-2.0": "Apache-2.0",
    "opensource.org/license/mit": "MIT",
    "opensource.org/licenses/mit": "MIT",
    "cdla.dev/permissive-1-0": "CDLA-Permissive-1.0",
    "cdla.dev/permissive-2-0": "CDLA-Permissive-2.0",
}
_LINK = re.compile(r"<([^>]*)>([^<]*)")
_LICENSE_RELATION = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\blicense\b[^\"]*\"|license\b)", re.IGNORECASE)


def licence_at(url: str, raw_text: str = "") -> Licence:
    """The licence whose text lies at `url`; id `LicenseRef-other` for an address that is not known."""
    address = re.sub(r"^(https?:)?//(www\.)?", "", url.strip().lower())
    if match := _CREATIVE_COMMONS.match(address):
        return Licence(f"CC-{match[1].upper()}-{match[2]}", url, raw_text)
    bare = re.sub(r"(\.html|\.txt|/deed(\.\w+)?|/legalcode(\.\w+)?|[-/]0)?[/#?]*$", "", address)
    return Licence(_ADDRESSES.get(address.rstrip("/"), _ADDRESSES.get(bare.rstrip("/"), OTHER)), url, raw_text)


def licence_of_headers(headers: Mapping[str, str]) -> Licence:
    """The licence that a `Link: <…>; rel="license"` header states; UNKNOWN when there is none."""
    return next(_licence_links(headers.get("link", "")), UNKNOWN)


def _licence_links(header: str) -> Iterator[Licence]:
    for address, parameters in _LINK.findall(header):
        if _LICENSE_RELATION.search(parameters):
            yield licence_at(address, f"Link: <{address}>{parameters}"[:500])


def declared_licence(licence: str, licence_url: str) -> Licence | None:
    """The licence that the caller vouches for, as id, as URL or as both; None when the caller says nothing."""
    if not licence:
        return licence_at(licence_url) if licence_url else None
    if not _SPDX_ID.fullmatch(licence):
        raise InvalidInput(
            f"licence {licence[:80]!r} is not an SPDX id; write for example CC0-1.0 or CC-BY-4.0 "
            "(https://spdx.org/licenses)",
            reason="BAD_LICENCE",
            metadata={"value": licence[:80]},
        )
    known = {name.lower(): name for name in (*OPEN_LICENCES, UNKNOWN.id)}
    return Licence(known.get(licence.lower(), licence), licence_url)


def refuse_unless_allowed(licence: Licence, settings: ScraperSettings, *, source: str) -> None:
    """PermissionRefused unless `licence` may be collected for training."""
    if licence.id == UNKNOWN.id:
        if settings.unknown_licence == "allow":
            return
        raise PermissionRefused(
            f"{source} states no licence; if you know it, give it with the source (licence=CC0-1.0), "
            f"or set {environment_name('unknown_licence')}=allow",
            reason="LICENCE_UNKNOWN",
            metadata={"source": source, "setting": environment_name("unknown_licence")},
        )
    if licence.id.lower() in {allowed.lower() for allowed in settings.licence_allow}:
        return
    where = f" ({licence.url})" if licence.url else ""
    raise PermissionRefused(
        f"{source} is under {licence.id}{where}, which is not among the licences that may be collected for training; "
        f"if you hold the right, give the licence that you have with the source, or add {licence.id} to "
        f"{environment_name('licence_allow')}",
        reason="LICENCE_REFUSED",
        metadata={"source": source, "licence": licence.id, "setting": environment_name("licence_allow")},
    )


def refuse_if_reserved(headers: Mapping[str, str], settings: ScraperSettings, *, source: str) -> None:
    """PermissionRefused when the headers forbid use for training (`X-Robots-Tag: noai`, `TDM-Reservation: 1`)."""
    if not settings.respect_robots:
        return
    tags = {tag.strip().lower() for tag in headers.get("x-robots-tag", "").split(",")}
    reserved = headers.get("tdm-reservation", "").strip() == "1"
    if reserved or "noai" in tags:
        raise PermissionRefused(
            f"{source} forbids use for training ({'TDM-Reservation: 1' if reserved else 'X-Robots-Tag: noai'}); "
            f"ask its owner, or, for a site of your own, set {environment_name('respect_robots')}=false",
            reason="TRAINING_RESERVED",
            metadata={"source": source, "setting": environment_name("respect_robots")},
        )
