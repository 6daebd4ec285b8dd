"""What an expression matches once its classes are written out: less, but in every dialect."""

import re

import pytest

from model.character_classes import narrow_classes


@pytest.mark.parametrize(
    ("regex", "narrow"),
    [
        (r"\d+", "[0-9]+"),
        (r"[a\d]", "[a0-9]"),
        (r"\w\s", r"[0-9A-Za-z_][ \t\n\r\f\v]"),
        (r"\D[^\d]\\d", r"[^\d\p{Nd}][^\d\p{Nd}]\\d"),
        (r"[\]\d]\[\d", r"[\]0-9]\[[0-9]"),
        (r"[a\D][^\D]", r"[a[^\d\p{Nd}]][^[^0-9]]"),
    ],
)
def test_classes_are_narrow_where_they_are_allowed_and_wide_where_they_are_excluded(regex: str, narrow: str) -> None:
    assert narrow_classes(regex) == narrow


def test_an_expression_without_classes_is_as_it_was() -> None:
    regex = r"^(a|\.[^b\]]){2,3}\\[\n-~]$"
    assert narrow_classes(regex) == regex
    assert re.compile(regex)
