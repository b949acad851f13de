"""What a writer that got no clear answer concludes from the nonces that it finds."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.adapters.minio_marks import MAX_WRITES, Fate, Mark, Version


def test_a_creator_knows_its_object_even_after_others_have_replaced_it() -> None:
    mine = Mark.first()
    found = mine
    for _ in range(3 * MAX_WRITES):
        found = found.next()

    assert mine.fate_of_creation(found) is Fate.WON
    assert Mark.first().fate_of_creation(found) is Fate.LOST
    assert mine.fate_of_creation(None) is Fate.NOT_APPLIED


def test_a_replacement_is_found_among_those_that_came_after_it() -> None:
    before = Mark.first()
    mine, other = before.next(), before.next()

    assert mine.fate_of_replacement(mine.next().next()) is Fate.WON
    assert mine.fate_of_replacement(other.next()) is Fate.LOST
    assert mine.fate_of_replacement(before) is Fate.NOT_APPLIED


def test_nothing_is_concluded_from_an_object_that_does_not_reach_back_to_the_write() -> None:
    before = Mark.first()
    mine = found = before.next()
    for _ in range(MAX_WRITES + 1):
        found = found.next()

    assert mine.fate_of_replacement(found) is Fate.UNKNOWN
    assert mine.fate_of_replacement(Mark.first()) is Fate.UNKNOWN
    assert mine.fate_of_replacement(None) is Fate.UNKNOWN


def test_a_mark_fits_into_the_metadata_that_s3_allows() -> None:
    mark = Mark.first()
    for _ in range(2 * MAX_WRITES):
        mark = mark.next()

    assert sum(len(name) + len(value) for name, value in mark.metadata().items()) < 2048
    assert Mark.of(mark.headers()) == mark


def test_an_object_of_another_program_can_be_replaced_and_the_writer_told() -> None:
    foreign = Version.of({"etag": '"0123"'})
    mine = foreign.mark.next()

    assert mine.fate_of_replacement(foreign.mark) is Fate.NOT_APPLIED
    assert mine.fate_of_replacement(mine.next()) is Fate.WON
    assert foreign.mark.next().fate_of_replacement(mine) is Fate.LOST


def test_a_version_is_read_as_it_was_written_and_anything_else_is_no_objects() -> None:
    version = Version("0123-2", Mark.first().next())

    assert Version.parse(str(version)) == version
    assert Version.parse("0" * 64) == Version("0" * 64, Version.of({}).mark)
    assert Version.parse("") == replace(Version.of({}), etag="")
