"""Intervals against published examples, against coverage in simulation, and at the ends of the scale."""

import numpy as np
import pandas as pd
import pytest

from auditdm_lib import stats


def test_wilson_interval_matches_the_published_example():
    # Newcombe (1998), Statistics in Medicine 17, 857, table I: 81 of 263
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("successes", [0, 40])
def test_wilson_interval_keeps_its_width_at_the_ends(successes):
    low, high = stats.wilson(successes, 40)
    assert high - low > 0.05 and 0 <= low < high <= 1


def test_an_interval_holds_its_proportion_to_the_last_bit():
    for n in range(1, 1100):
        for k in (0, 1, n // 2, n):
            low, high = stats.wilson(k, n)
            assert 0 <= low <= k / n <= high <= 1, (k, n)


def test_no_attempts_give_no_interval():
    assert np.isnan(stats.wilson(0, 0)).all() and np.isnan(stats.proportion(0, 0)).all()


def test_difference_matches_the_published_example():
    # Newcombe (1998), Statistics in Medicine 17, 873, table II: 56/70 against 48/80
    assert stats.difference(56, 70, 48, 80) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_ratio_brackets_the_true_ratio_and_is_finite_below_even_without_successes():
    value, low, high = stats.ratio(300, 1000, 100, 1000)
    assert value == pytest.approx(3) and low < 3 < high
    assert stats.ratio(50, 100, 0, 100).low > 5
    assert np.isfinite(stats.ratio(0, 100, 0, 100).low)


def test_paired_difference_is_sharper_than_the_independent_one_where_items_agree():
    a = np.arange(400) < 200
    b = a.copy()
    b[190:200] = False
    paired, independent = stats.paired_difference(a, b), stats.difference(200, 400, 190, 400)
    assert paired.value == pytest.approx(0.025) and paired.low > 0 > independent.low


def test_paired_difference_changes_sign_with_its_arguments():
    a, b = np.arange(100) < 60, np.arange(100) % 2 == 0
    forth, back = stats.paired_difference(a, b), stats.paired_difference(b, a)
    assert forth == pytest.approx((-back.value, -back.high, -back.low))


def test_paired_difference_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        a = rng.random(300) < 0.8
        b = np.where(rng.random(300) < 0.9, a, rng.random(300) < 0.5)
        estimate = stats.paired_difference(a, b)
        covered += estimate.low <= 0.8 - (0.9 * 0.8 + 0.1 * 0.5) <= estimate.high
    assert covered / 600 == pytest.approx(0.95, abs=0.035)  # four standard errors of 600 draws


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="same items"):
        stats.paired_difference(np.ones(3), np.ones(4))


def test_average_of_equal_estimates_is_narrower_by_the_root_of_their_number():
    part = stats.Estimate(0.5, 0.4, 0.7)
    assert stats.average([part] * 4) == pytest.approx((0.5, 0.45, 0.6))


def test_mcnemar_is_the_binomial_test_of_the_items_that_differ():
    a = np.array([1] * 8 + [0] * 2 + [1] * 50)
    b = np.array([0] * 8 + [1] * 2 + [1] * 50)
    assert stats.mcnemar_p(a, b) == pytest.approx(2 * sum([45, 10, 1]) / 1024)  # two-sided P(X <= 2), n = 10
    assert stats.mcnemar_p(a, a) == 1


def test_bootstrap_is_repeatable_and_wider_when_rows_share_an_image():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(dict(image=np.repeat(np.arange(40), 10), value=np.repeat(rng.normal(size=40), 10)))
    frame["row"] = np.arange(len(frame))
    by_image, by_row = (stats.bootstrap(frame, lambda rows: rows["value"].mean(), key, seed=3, rounds=200)
                        for key in ("image", "row"))
    assert by_image[1] - by_image[0] > 2 * (by_row[1] - by_row[0])
    assert by_image == stats.bootstrap(frame, lambda rows: rows["value"].mean(), "image", seed=3, rounds=200)


def by_picture(rng, chances, probes):
    """Successes and attempts of so many probes about each picture, whose chances differ."""
    return pd.DataFrame(dict(k=rng.binomial(probes, chances).astype(float), n=float(probes)))


@pytest.mark.parametrize(("pictures", "probes", "chance", "alike"), [(50, 20, 0.2, 0.3), (200, 5, 0.6, 0.2), (200, 1, 0.3, 0.2)])
def test_the_interval_by_picture_covers_the_truth_19_times_in_20(pictures, probes, chance, alike):
    rng, covered, wilson = np.random.default_rng(0), [], []
    for _ in range(800):
        chances = rng.beta(chance * (1 - alike) / alike, (1 - chance) * (1 - alike) / alike, pictures)
        table = by_picture(rng, chances, probes)
        estimate, naive = stats.clustered_proportion(table), stats.wilson(table["k"].sum(), table["n"].sum())
        covered.append(estimate.low <= chance <= estimate.high)
        wilson.append(naive[0] <= chance <= naive[1])
    assert 0.93 <= np.mean(covered) <= 0.97
    assert probes < 20 or np.mean(wilson) < 0.7  # what probes about one picture do to an interval that takes them as independent


def test_differences_and_ratios_are_paired_by_picture():
    rng, covered = np.random.default_rng(1), []
    for _ in range(800):
        chances = rng.beta(1.4, 0.9, 60)
        a, b = by_picture(rng, chances, 10), by_picture(rng, chances / 3, 10)
        gain, ratio = stats.clustered_difference(a, b), stats.clustered_ratio(a, b)
        truth = 1.4 / 2.3
        covered.append((gain.low <= truth * 2 / 3 <= gain.high, ratio.low <= 3 <= ratio.high))
    assert (np.mean(covered, axis=0) >= 0.93).all() and (np.mean(covered, axis=0) <= 0.97).all()


def test_one_attempt_a_picture_gives_the_interval_of_wilson():
    marks = pd.Series([True] * 30 + [False] * 70)
    table = stats.tally(marks, pd.Series(range(100)))
    assert stats.clustered_proportion(table)[1:] == stats.wilson(30, 100)
    everything = stats.tally(pd.Series([True] * 40), pd.Series(np.arange(40) // 4))
    assert stats.clustered_proportion(everything).low < 0.8 and np.isnan(stats.clustered_proportion(table.iloc[:0]).value)
    assert stats.clustered_proportion(everything.iloc[:1])[1:] == (0, 1)  # one picture says nothing about others
    same = stats.clustered_difference(everything, everything)
    assert same.value == 0 and same.low < 0 < same.high


def test_scores_that_are_no_marks_are_compared_by_students_interval():
    a, b = np.linspace(0.2, 0.9, 50), np.linspace(0.1, 0.9, 50)
    change = stats.mean_difference(a, b)
    assert change.low < change.value < change.high and change.value == pytest.approx(0.05)
    assert stats.mean_difference(a > 0.5, b > 0.5) == stats.paired_difference(a > 0.5, b > 0.5)


def test_scores_that_did_not_change_have_an_interval_with_a_width():
    same = np.array([0.2, 0.7, 0.7, 0.4])
    value, low, high = stats.mean_difference(same, same)
    assert value == 0 and low == -high < 0 and (low, high) == stats.paired_difference([0] * 4, [0] * 4)[1:]
