"""Names and markers of migration files; the runner is tested against a real server."""

from __future__ import annotations

import re

import pytest

from storage import migrate
from storage.migrate import MigrationError, parse


def test_a_file_says_what_it_needs() -> None:
    plain = parse("0007_words_here.sql", b"-- just words\nselect 1")
    assert (plain.number, plain.name, plain.oldest, plain.is_outside) == (7, "0007_words_here", 0, False)
    marked = parse("0008_x.sql", b"-- outside transaction\n-- oldest: 7\nselect 1")
    assert (marked.oldest, marked.is_outside) == (7, True)


@pytest.mark.parametrize("name", ["1_x.sql", "0001.sql", "0001_X.sql", "0001-x.sql", "x.sql", "00001_x.sql"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(MigrationError, match=f"{re.escape(name)}: not a migration's name"):
        parse(name, b"")


def test_the_files_of_this_release_are_numbered_in_order() -> None:
    """A number that is missing belongs to work that is not finished."""
    numbers = [file.number for file in migrate.read(migrate.FILES)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
    assert numbers


def test_indexes_on_big_tables_are_not_built_in_a_transaction() -> None:
    """A table of an earlier migration may be big by now: `create index` would block its writers."""
    made: set[str] = set()
    for file in migrate.read(migrate.FILES):
        text = file.sql.decode().lower()
        here = set(re.findall(r"create table (\w+)", text))
        indexed = set(re.findall(r"create (?:unique )?index \w+ on (\w+)", text))
        assert indexed <= here, file.name
        assert "create index concurrently" not in text or file.is_outside, file.name
        made |= here
    assert "shards" in made
