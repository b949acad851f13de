"""Judging: a candidate measured beside the base and the champion, as a report and as a page. No torch here."""
