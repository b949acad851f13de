"""What is found about serving after a report's page was drawn, put into the page."""

from __future__ import annotations

from html import escape

from tunesmith.domain.parity import PARITY, ParityCheck

PLACE = b"<!--served-->"
"""Where the page's template leaves room."""


def with_check(page: bytes, check: ParityCheck | None) -> bytes:
    """The page with the last comparison of what is served with what was judged; as it is while there is none."""
    if check is None:
        return page
    if not check.checked:
        shown = f'<p class="lead">Served = judged: {escape(check.detail)}.</p>'
    else:
        badge = ("good", "\u2713 passed") if check.agrees else ("bad", "\u2717 failed")
        shown = (
            f'<p class="detail"><span class="badge {badge[0]}">{badge[1]}</span> <b>{PARITY}</b> '
            f"{escape(check.detail)}; {check.num_compared} of {check.num_tokens} tokens compared, "
            f"asked {escape(check.backend)} at {escape(check.checked_at[:16].replace('T', ' '))} UTC.</p>"
        )
    return page.replace(PLACE, shown.encode(), 1)
