"""Sizes: read and written as people and Docker do, and a wrong one is told the right one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from koprogo_deploy.units import GB, KB, MB, megabytes, parse_size, show_size


def test_units_are_powers_of_1024_as_in_docker_and_postgres() -> None:
    assert parse_size("80MB") == 80 * 1024 * 1024 == 83_886_080
    assert parse_size("1GB") == GB
    assert parse_size(" 64 kB ") == 64 * KB


@given(some.integers(min_value=1, max_value=2**40))
def test_a_size_that_was_written_is_read_back(kilobytes: int) -> None:
    assert parse_size(show_size(kilobytes * KB)) == kilobytes * KB


@pytest.mark.parametrize(
    ("size", "shown"), [(2 * GB, "2GB"), (1536 * MB, "1536MB"), (MB + KB, "1025kB"), (KB, "1kB")]
)
def test_a_size_is_shown_in_the_largest_unit_that_keeps_it_whole(size: int, shown: str) -> None:
    assert show_size(size) == shown


def test_tables_show_rounded_megabytes() -> None:
    assert megabytes(2 * GB) == "2 048 MB"
    assert megabytes(MB // 2 + 1) == "1 MB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("80", 'the unit is missing; write "80MB" (kB, MB and GB are known)'),
        (80, 'the unit is missing; write "80MB" (kB, MB and GB are known)'),
        ("80m", 'unknown unit "m"; write "80MB" (kB, MB and GB are known)'),
        ("2g", 'unknown unit "g"; write "2GB" (kB, MB and GB are known)'),
        ("2GiB", 'unknown unit "GiB"; write "2GB" (kB, MB and GB are known)'),
        ("512 KB", 'unknown unit "KB"; write "512kB" (kB, MB and GB are known)'),
        ("80 parsecs", 'unknown unit "parsecs"; write "80MB" (kB, MB and GB are known)'),
        ("1.5GB", 'not a whole number; write "1536MB"'),
        ("1,5GB", 'not a whole number; write "1536MB"'),
        ("0MB", 'a limit of zero means "no limit" to Docker; write a size above 0'),
        ("0", 'a limit of zero means "no limit" to Docker; write a size above 0'),
        (0, 'a limit of zero means "no limit" to Docker; write a size above 0'),
        ("-80MB", 'a size cannot be negative; write, for instance, "80MB"'),
        (-80, 'a size cannot be negative; write, for instance, "80MB"'),
        ("much", 'not a size; write a whole number and kB, MB or GB, such as "80MB"'),
        ("", 'not a size; write a whole number and kB, MB or GB, such as "80MB"'),
        (None, 'a size is text such as "80MB", not None'),
        (True, 'a size is text such as "80MB", not True'),
        (0.5, 'a size is text such as "80MB", not 0.5'),
    ],
)
def test_what_is_no_size_is_told_what_to_write(text: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_size(text)
    assert str(error.value) == message
