"""The fetcher on URLs that strangers chose, against a real server."""

from __future__ import annotations

import gzip
import io
import socket
import ssl

import pytest
import trustme
from scraper_parts import Handler, MakeFetcher, MovingClock, Names, Site, in_turn, page, redirect, status

from tunesmith.domain.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    SourceUnusable,
    Unavailable,
)
from tunesmith.domain.ids import sha256_hex
from tunesmith_scraper.fetch import checked_url
from tunesmith_scraper.network import is_public


def test_a_page_arrives_with_its_hash_type_and_charset(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/list.txt"] = page("dub\nska\n", "Text/Plain; charset=UTF-8")
    sink = io.BytesIO()

    got = make_fetcher().fetch(site.url("/list.txt#top"), sink)

    assert sink.getvalue() == b"dub\nska\n"
    assert got.content_hash == sha256_hex(b"dub\nska\n")
    assert (got.content_type, got.charset, got.size_bytes) == ("text/plain", "utf-8", 8)


def test_the_server_is_told_who_asks(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/"] = page("x")

    make_fetcher(contact="https://music.example/bot").fetch(site.url("/"), io.BytesIO())

    _, headers = site.requests[0]
    assert headers["user-agent"] == "tunesmith/0.1 (+https://music.example/bot)"
    assert headers["Host"] == f"lists.test:{site.port}"


def test_proxy_variables_are_not_used(site: Site, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.routes["/"] = page("x")

    make_fetcher().fetch(site.url("/"), io.BytesIO())

    assert site.paths == ["/"]


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.31.0.1", "192.168.1.1",
        "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1",
        "2002:7f00:1::", "2002:a00:1::1", "2001::1", "5f00::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_known_as_such(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_a_public_address_is_known_as_such(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "metadata.example", "[::1]", "2130706433", "0x7f.1"])
def test_a_private_address_is_refused_with_the_setting_that_allows_it(
    site: Site, make_fetcher: MakeFetcher, names: Names, host: str
) -> None:
    names.answers = {"metadata.example": [["169.254.169.254"]], "::1": [["::1"]], "2130706433": [["127.0.0.1"]],
                     "0x7f.1": [["127.0.0.1"]]}  # fmt: skip

    with pytest.raises(PermissionRefused, match="TUNESMITH_SCRAPER_ALLOW_PRIVATE_ADDRESSES=true") as caught:
        make_fetcher(allow_private_addresses=False).fetch(site.url("/", host=host), io.BytesIO())

    assert caught.value.reason == "PRIVATE_ADDRESS"
    assert site.requests == []


@pytest.mark.usefixtures("local_site_is_public")
@pytest.mark.parametrize("target", ["http://127.0.0.2:{port}/secret", "http://10.0.0.1/", "//169.254.169.254/latest"])
def test_a_redirect_to_a_private_address_is_refused(site: Site, make_fetcher: MakeFetcher, target: str) -> None:
    site.routes["/"] = redirect(target.format(port=site.port))

    with pytest.raises(PermissionRefused, match="not a public address"):
        make_fetcher(allow_private_addresses=False).fetch(site.url("/"), io.BytesIO())

    assert site.paths == ["/"]


@pytest.mark.usefixtures("local_site_is_public")
def test_the_address_that_was_judged_is_the_one_connected(site: Site, make_fetcher: MakeFetcher, names: Names) -> None:
    site.routes["/"] = page("x")
    names.answers["rebind.test"] = [["127.0.0.1"], ["10.0.0.1"]]

    make_fetcher(allow_private_addresses=False).fetch(site.url("/", host="rebind.test"), io.BytesIO())

    assert names.lookups == ["rebind.test"]
    assert site.paths == ["/"]


@pytest.mark.usefixtures("local_site_is_public")
def test_a_name_that_turns_private_between_two_requests_is_refused(
    site: Site, make_fetcher: MakeFetcher, names: Names
) -> None:
    site.routes["/"] = redirect("/again")
    names.answers["rebind.test"] = [["127.0.0.1"], ["10.0.0.1"]]

    with pytest.raises(PermissionRefused, match=r"rebind\.test is at 10\.0\.0\.1"):
        make_fetcher(allow_private_addresses=False).fetch(site.url("/", host="rebind.test"), io.BytesIO())


@pytest.mark.usefixtures("local_site_is_public")
def test_a_name_with_one_private_address_among_public_ones_is_refused(
    site: Site, make_fetcher: MakeFetcher, names: Names
) -> None:
    names.answers["mixed.test"] = [["127.0.0.1", "192.168.0.1"]]

    with pytest.raises(PermissionRefused, match=r"192\.168\.0\.1"):
        make_fetcher(allow_private_addresses=False).fetch(site.url("/", host="mixed.test"), io.BytesIO())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://lists.test/a", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("http://user:secret@lists.test/", "user name or password"),
        ("http://lists.test:22/", "port 22"),
        ("http:///path", "no host"),
        ("http://lists.test:99999/", "port 99999"),
        ("http://lists.test/\x00", "not a URL"),
        ("http://lists.test/" + "a" * 5000, "4096"),
    ],
)
def test_a_url_that_may_not_be_fetched_says_why(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        checked_url(url)

    assert "secret" not in caught.value.message


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://lists.test/", "http://u:p@lists.test/"])
def test_a_redirect_to_what_may_not_be_fetched_is_refused(site: Site, make_fetcher: MakeFetcher, target: str) -> None:
    site.routes["/"] = redirect(target)

    with pytest.raises(InvalidInput, match="cannot be fetched"):
        make_fetcher().fetch(site.url("/"), io.BytesIO())


def test_redirects_are_followed_up_to_a_limit(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes |= {"/a": redirect("/b", 301), "/b": redirect("/c", 308), "/c": page("here")}
    sink = io.BytesIO()

    got = make_fetcher(max_redirects=2).fetch(site.url("/a"), sink)

    assert (got.url, got.final_url) == (site.url("/a"), site.url("/c"))
    with pytest.raises(SourceUnusable, match="more than 1 times"):
        make_fetcher(max_redirects=1).fetch(site.url("/a"), io.BytesIO())


def test_a_page_of_200_megabytes_is_refused_before_it_is_read(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/"] = page("start of something big", Content_Length="200000000")

    with pytest.raises(ResourceExhausted) as caught:
        make_fetcher().fetch(site.url("/"), io.BytesIO())

    for part in ("200000000 bytes", str(64 * 2**20), "TUNESMITH_SCRAPER_MAX_BODY_BYTES"):
        assert part in caught.value.message


def test_a_page_that_hides_its_size_is_cut_at_the_limit(site: Site, make_fetcher: MakeFetcher) -> None:
    def endless(handler: Handler) -> None:
        handler.reply(200, {})
        while not site.closing.is_set():
            handler.wfile.write(b"genre\n" * 1000)

    site.routes["/"] = endless
    sink = io.BytesIO()

    with pytest.raises(ResourceExhausted, match="the limit is 100000 bytes"):
        make_fetcher(max_body_bytes=100_000).fetch(site.url("/"), sink)

    assert len(sink.getvalue()) <= 100_000


def test_gzip_is_unpacked_and_the_limit_holds_for_what_comes_out(site: Site, make_fetcher: MakeFetcher) -> None:
    body = b"".join(b"genre %d\n" % number for number in range(20_000))
    site.routes["/"] = page(gzip.compress(body[:1000]) + gzip.compress(body[1000:]), Content_Encoding="gzip")
    sink = io.BytesIO()

    make_fetcher().fetch(site.url("/"), sink)

    assert sink.getvalue() == body
    with pytest.raises(ResourceExhausted, match="after decompression"):
        make_fetcher(max_body_bytes=len(body) - 1).fetch(site.url("/"), io.BytesIO())


def test_a_gzip_bomb_is_refused_by_its_ratio(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/"] = page(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
    sink = io.BytesIO()

    with pytest.raises(ResourceExhausted, match="TUNESMITH_SCRAPER_MAX_COMPRESSION_RATIO") as caught:
        make_fetcher().fetch(site.url("/"), sink)

    assert caught.value.reason == "DECOMPRESSION_BOMB"
    assert len(sink.getvalue()) < 16 * 2**20


def test_a_compression_that_was_not_asked_for_is_refused(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/"] = page(b"..", Content_Encoding="gzip, br")

    with pytest.raises(SourceUnusable, match="gzip, br"):
        make_fetcher().fetch(site.url("/"), io.BytesIO())


def test_a_body_that_trickles_is_stopped_by_the_total_time(
    site: Site, make_fetcher: MakeFetcher, clock: MovingClock
) -> None:
    def trickle(handler: Handler) -> None:
        handler.reply(200, {})
        while not site.closing.is_set():
            handler.wfile.write(b"x")

    site.routes["/"] = trickle
    clock.tick_s = 1.0

    with pytest.raises(DeadlineExceeded, match=r"longer than 20 s.*TUNESMITH_SCRAPER_TOTAL_TIMEOUT_S"):
        make_fetcher(total_timeout_s=20).fetch(site.url("/"), io.BytesIO())


def test_headers_that_trickle_are_stopped_too(site: Site, make_fetcher: MakeFetcher, clock: MovingClock) -> None:
    def trickle(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not site.closing.is_set():
            handler.wfile.write(b"a: b\r\n")
            handler.wfile.flush()

    site.routes["/"] = trickle
    clock.tick_s = 1.0

    with pytest.raises((DeadlineExceeded, Unavailable)):  # the header limit may come first
        make_fetcher(total_timeout_s=5).fetch(site.url("/"), io.BytesIO())


def test_a_silent_server_is_given_up_after_its_attempts(
    site: Site, make_fetcher: MakeFetcher, clock: MovingClock
) -> None:
    site.routes["/"] = lambda handler: handler.server and site.closing.wait()  # type: ignore[func-returns-value]

    with pytest.raises(Unavailable, match="after 2 attempts: no answer in time"):
        make_fetcher(connect_timeout_s=0.1, max_attempts=2).fetch(site.url("/"), io.BytesIO())

    assert clock.sleeps == [1.0]


def test_429_is_tried_again_when_the_server_says(site: Site, make_fetcher: MakeFetcher, clock: MovingClock) -> None:
    site.routes["/"] = in_turn(
        status(429, {"Retry-After": "7"}),
        status(429, {"Retry-After": "Sat, 21 Nov 2026 10:00:20 GMT"}),
        page("dub"),
    )
    sink = io.BytesIO()

    make_fetcher().fetch(site.url("/"), sink)

    assert sink.getvalue() == b"dub"
    assert clock.sleeps == [7.0, 13.0]


def test_a_retry_after_beyond_the_bound_gives_up_at_once(
    site: Site, make_fetcher: MakeFetcher, clock: MovingClock
) -> None:
    site.routes["/"] = status(429, {"Retry-After": "3600"})

    with pytest.raises(Unavailable, match="after 1 attempt: HTTP 429 and asks to wait 3600 s"):
        make_fetcher().fetch(site.url("/"), io.BytesIO())

    assert clock.sleeps == []


def test_5xx_is_tried_again_with_growing_waits_and_then_given_up(
    site: Site, make_fetcher: MakeFetcher, clock: MovingClock
) -> None:
    site.routes["/"] = status(503)

    with pytest.raises(Unavailable, match="after 4 attempts: HTTP 503") as caught:
        make_fetcher().fetch(site.url("/"), io.BytesIO())

    assert clock.sleeps == [1.0, 2.0, 4.0]
    assert len(site.requests) == 4
    assert caught.value.metadata["status"] == "503"


def test_a_body_that_breaks_off_is_fetched_again_from_its_start(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/"] = in_turn(page("dub" * 50_000, Content_Length="999999"), page("dub", Content_Length="3"))
    sink = io.BytesIO()

    make_fetcher().fetch(site.url("/"), sink)

    assert sink.getvalue() == b"dub"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, SourceUnusable),
        (401, PermissionRefused),
        (403, PermissionRefused),
        (404, NotFound),
        (410, NotFound),
        (418, SourceUnusable),
        (206, SourceUnusable),
    ],
)
def test_other_4xx_are_never_tried_again(
    site: Site, make_fetcher: MakeFetcher, code: int, error: type[Exception]
) -> None:
    site.routes["/"] = status(code)

    with pytest.raises(error, match=f"HTTP {code}"):
        make_fetcher().fetch(site.url("/"), io.BytesIO())

    assert len(site.requests) == 1


def test_a_server_that_is_not_there_is_unavailable(make_fetcher: MakeFetcher, clock: MovingClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with pytest.raises(Unavailable, match="after 4 attempts"):
        make_fetcher().fetch(f"http://lists.test:{port}/", io.BytesIO())

    assert len(clock.sleeps) == 3


def test_a_name_that_does_not_exist_is_unavailable(make_fetcher: MakeFetcher, names: Names) -> None:
    names.unknown.add("nowhere.test")

    with pytest.raises(Unavailable, match=r"nowhere\.test cannot be resolved"):
        make_fetcher(max_attempts=1).fetch("http://nowhere.test/", io.BytesIO())


@pytest.mark.usefixtures("local_site_is_public")
def test_https_checks_the_certificate_on_the_host_name(
    secure_site: Site, make_fetcher: MakeFetcher, authority: trustme.CA
) -> None:
    secure_site.routes["/"] = page("dub")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    fetcher = make_fetcher(ssl_context=context, allow_private_addresses=False)
    sink = io.BytesIO()

    fetcher.fetch(secure_site.url("/", scheme="https"), sink)

    assert sink.getvalue() == b"dub"
    with pytest.raises(SourceUnusable, match=r"certificate of .* is not valid"):
        fetcher.fetch(secure_site.url("/", scheme="https", host="other.test"), io.BytesIO())
    with pytest.raises(SourceUnusable, match=r"certificate of .* is not valid"):
        make_fetcher().fetch(secure_site.url("/", scheme="https"), io.BytesIO())


def test_a_charset_that_is_no_charset_is_refused(site: Site, make_fetcher: MakeFetcher) -> None:
    site.routes["/"] = page("x", "text/plain; charset=zlib")

    with pytest.raises(SourceUnusable, match="'zlib'"):
        make_fetcher().fetch(site.url("/"), io.BytesIO())
