import pytest

from bench.figures import fairness, figure, percentile, ratios


def test_a_figure_is_not_moved_by_one_disturbed_sample() -> None:
    found = figure([10.0, 10.5, 9.5, 10.0, 300.0])
    assert (found.median, found.least, found.count) == (10.0, 9.5, 5)
    assert found.spread == pytest.approx(0.05)


def test_the_spread_of_nothing_but_zeros_is_zero() -> None:
    assert figure([0.0, 0.0]).spread == 0


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine is twice as slow in the second round, and ten times in the third: the ratio is the same in each.
    found = ratios([10, 20, 100], [20, 40, 200])
    assert (found.median, found.spread) == (0.5, 0)


def test_a_ratio_leaves_out_rounds_where_the_other_took_no_time() -> None:
    assert ratios([1, 6], [0, 2]).median == 3


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (90, 9), (99, 10), (99.9, 10), (0, 1), (100, 10)])
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, expected: int) -> None:
    assert percentile(range(1, 11), percent) == expected


def test_percentile_of_one_value() -> None:
    assert percentile([7.0], 99.9) == 7


def test_fairness_is_one_where_all_have_the_same_and_the_number_where_one_has_all() -> None:
    assert fairness([16, 16, 16, 16], 4) == 1
    assert fairness([64], 4) == 4
    assert fairness([33, 23, 6, 2], 8) == pytest.approx(4.125)
