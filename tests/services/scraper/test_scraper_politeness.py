"""robots.txt and the pace, against a real server."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from scraper_parts import MovingClock, Site, in_turn, page, redirect, status

from tunesmith.domain.errors import PermissionRefused, Unavailable
from tunesmith_scraper.politeness import PoliteFetcher

MakePolite = Callable[..., PoliteFetcher]


def fetch(polite: PoliteFetcher, url: str, **options: bool | float) -> str:
    _, verdict = polite.fetch(url, io.BytesIO(), accept=lambda _: None, **options)  # type: ignore[arg-type]
    return verdict


def test_a_path_that_robots_txt_forbids_is_refused_unread(site: Site, make_polite: MakePolite) -> None:
    site.routes |= {"/robots.txt": page("User-agent: *\nDisallow: /private\n"), "/private/a": page("x")}

    with pytest.raises(PermissionRefused, match=r"robots\.txt.*TUNESMITH_SCRAPER_RESPECT_ROBOTS") as caught:
        fetch(make_polite(), site.url("/private/a"))

    assert caught.value.reason == "ROBOTS_REFUSED"
    assert site.paths == ["/robots.txt"]


def test_rules_for_tunesmith_go_before_rules_for_all(site: Site, make_polite: MakePolite) -> None:
    site.routes |= {
        "/robots.txt": page("User-agent: *\nDisallow: /\n\nUser-agent: Tunesmith\nDisallow: /no\nAllow: /no/but$\n"),
        "/yes": page("x"),
        "/no/but": page("x"),
    }
    polite = make_polite()

    assert fetch(polite, site.url("/yes")) == "allowed"
    assert fetch(polite, site.url("/no/but")) == "allowed"
    with pytest.raises(PermissionRefused):
        fetch(polite, site.url("/no"))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_robots_txt_that_is_not_there_allows_everything(site: Site, make_polite: MakePolite, code: int) -> None:
    site.routes |= {"/robots.txt": status(code), "/a": page("x")}

    assert fetch(make_polite(), site.url("/a")) == "no-robots-file"


def test_a_robots_txt_that_fails_forbids_everything_for_now(
    site: Site, make_polite: MakePolite, clock: MovingClock
) -> None:
    site.routes |= {
        "/robots.txt": in_turn(status(500), status(500), page("User-agent: *\nAllow: /\n")),
        "/a": page("x"),
    }
    polite = make_polite(max_attempts=2)

    with pytest.raises(Unavailable, match="may not be fetched now"):
        fetch(polite, site.url("/a"))
    with pytest.raises(Unavailable):
        fetch(polite, site.url("/a"))
    assert site.paths == ["/robots.txt", "/robots.txt"]

    clock.passed_s += 601
    assert fetch(polite, site.url("/a")) == "allowed"


def test_robots_txt_is_read_once_a_day(site: Site, make_polite: MakePolite, clock: MovingClock) -> None:
    site.routes |= {"/robots.txt": page("User-agent: *\nDisallow: /b\n"), "/a": page("x")}
    polite = make_polite()

    fetch(polite, site.url("/a"))
    fetch(polite, site.url("/a"))
    clock.passed_s += 24 * 3600
    fetch(polite, site.url("/a"))

    assert site.paths == ["/robots.txt", "/a", "/a", "/robots.txt", "/a"]


def test_each_redirect_asks_the_robots_txt_of_its_host(site: Site, make_polite: MakePolite) -> None:
    def robots(host: str) -> str:
        return "User-agent: *\nDisallow: /list\n" if host.startswith("closed.test") else "User-agent: *\nAllow: /\n"

    site.routes |= {
        "/robots.txt": lambda handler: handler.reply(200, {}, robots(handler.headers["Host"]).encode()),
        "/a": redirect(site.url("/list", host="closed.test")),
        "/list": page("x"),
    }

    with pytest.raises(PermissionRefused, match=r"closed\.test.*robots\.txt"):
        fetch(make_polite(), site.url("/a"))

    assert "/list" not in site.paths


def test_a_huge_robots_txt_is_taken_as_a_refusal(site: Site, make_polite: MakePolite) -> None:
    site.routes |= {"/robots.txt": page("# more\n" * 400_000), "/a": page("x")}

    with pytest.raises(Unavailable, match="larger than 2097152 bytes"):
        fetch(make_polite(), site.url("/a"))


def test_requests_to_one_host_keep_their_distance_and_other_hosts_do_not_wait(
    site: Site, make_polite: MakePolite, clock: MovingClock
) -> None:
    site.routes["/a"] = page("x")
    polite = make_polite(respect_robots=False, requests_per_s_per_host=2.0)

    for host in ("one.test", "one.test", "two.test", "one.test"):
        fetch(polite, site.url("/a", host=host))

    assert clock.sleeps == [0.5, 0.5]


def test_a_crawl_delay_is_honoured_up_to_a_bound(site: Site, make_polite: MakePolite, clock: MovingClock) -> None:
    site.routes |= {"/robots.txt": page("User-agent: *\nCrawl-delay: 9999\n"), "/a": page("x")}
    polite = make_polite(max_crawl_delay_s=20)

    fetch(polite, site.url("/a"))
    fetch(polite, site.url("/a"))

    assert clock.sleeps == [1.0, 20.0]


def test_waiting_for_a_turn_does_not_count_as_the_servers_slowness(
    site: Site, make_polite: MakePolite, clock: MovingClock
) -> None:
    site.routes |= {
        "/robots.txt": page("User-agent: *\nCrawl-delay: 30\n"),
        "/a": redirect("/b"),
        "/b": redirect("/c"),
        "/c": page("x"),
    }

    fetch(make_polite(total_timeout_s=5), site.url("/a"))

    assert sum(clock.sleeps) > 60


def test_an_interface_for_programs_has_its_own_pace_and_no_robots_txt(
    site: Site, make_polite: MakePolite, clock: MovingClock
) -> None:
    site.routes |= {"/robots.txt": page("User-agent: *\nDisallow: /\n"), "/ws": page("x")}
    polite = make_polite(requests_per_s_per_host=50)

    assert fetch(polite, site.url("/ws"), robots=False, min_interval_s=1.0) == "not-applicable"
    fetch(polite, site.url("/ws"), robots=False, min_interval_s=1.0)

    assert clock.sleeps == [1.0]


@pytest.mark.usefixtures("local_site_is_public")
def test_a_robots_txt_that_leads_to_a_private_address_is_refused(site: Site, make_polite: MakePolite) -> None:
    site.routes |= {"/robots.txt": redirect("http://10.0.0.1/robots.txt"), "/a": page("x")}

    with pytest.raises(PermissionRefused, match="not a public address"):
        fetch(make_polite(allow_private_addresses=False), site.url("/a"))
