"""Tables of interleaved runs, against figures worked by hand."""

import pytest

from service.bench.timing import Timings, rate_table, ratio_table


@pytest.fixture
def timings() -> Timings:
    timings = Timings(num_new=11)
    for ours_s, theirs_s in ((1.0, 2.0), (2.0, 6.0), (9.0, 6.0)):
        timings.add("a", 4, ours_s, 0.5)
        timings.add("b", 4, theirs_s, 1.0)
    return timings


def test_a_rate_is_that_of_the_median_run(timings: Timings) -> None:
    assert rate_table(timings.rates, ["a", "b"], [4]).splitlines()[-1] == "| 4 | 22.0 | 7.3 |"


def test_decoding_counts_what_comes_after_the_first_token(timings: Timings) -> None:
    assert timings.decode_rates("a", 4)[0] == pytest.approx(4 * 10 / 0.5)


def test_a_ratio_is_that_of_the_medians_beside_those_of_each_run(timings: Timings) -> None:
    assert ratio_table(timings.rates, [("a", "b")], [4]).splitlines()[-1] == "| a / b | 3.00 (0.67 to 3.00) |"
