"""What is read off a curve."""

import math

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pytest
import torch
from lightning.pytorch.tuner.lr_finder import _LRFinder

from univnet.gan import LRCurve, LRRangeTest
from univnet.gan.tuner.lr_curve import METHODS, smoothed

RATES = np.logspace(-7, 0, 141)


def bowl(noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Fall from 3 to 1 between 1e-5 and 1e-2, rise from 3e-2 on."""
    x = np.log10(RATES)
    fall = 1 + 2 / (1 + np.exp(4 * (x + 3.5)))
    rise = np.where(x > -1.5, (x + 1.5) ** 2 * 4, 0)
    return fall + rise + noise * np.random.default_rng(seed).normal(size=len(x))


def curve(losses: np.ndarray | list[float], smoothing: float = 0.0, **kwargs: float) -> LRCurve:
    losses = np.asarray(losses).tolist()
    return LRCurve("generator", "generator/stft", RATES[: len(losses)].tolist(), losses, smoothing, **kwargs)


@pytest.mark.parametrize("smoothing", [0, 0.5, 0.8, 0.98])
def test_smoothing_keeps_constants_lines_and_gaps(smoothing: float) -> None:
    for constant in (1.0, -0.1, 1e-12, 3e7):
        assert smoothed([constant] * 50, smoothing) == [constant] * 50
    line = np.linspace(1, 3, 101)
    middle = np.asarray(smoothed(line.tolist(), smoothing))[40:61]
    if smoothing < 0.9:
        assert middle == pytest.approx(line[40:61], rel=2e-3)  # not shifted, as a running average would be
    gaps = [1.0, math.nan, 1.0, math.inf, 1.0, -math.inf]
    assert [str(x) for x in smoothed(gaps, smoothing)] == [str(x) for x in gaps]
    assert smoothed([], smoothing) == []
    assert np.isnan(smoothed([math.nan] * 3, smoothing)).all()


def test_an_outlier_and_a_blow_up_do_not_bend_the_curve() -> None:
    losses = bowl()
    spiked = losses.copy()
    spiked[60] = 1e6
    assert smoothed(spiked.tolist(), 0.8) == pytest.approx(smoothed(losses.tolist(), 0.8), rel=0.01)
    blown = np.append(losses[:110], [1e9, 1e20, 1e30])
    assert smoothed(blown.tolist(), 0.8)[:90] == pytest.approx(smoothed(losses[:110].tolist(), 0.8)[:90], rel=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_suggestions_lie_where_they_should(noise: float) -> None:
    found = curve(bowl(noise), 0.8).suggestions()
    steepest = 10**-3.5  # against the logarithm, by construction
    assert found["steep"] == pytest.approx(steepest, rel=0.8)
    assert 1e-3 < found["edge"] < 5e-2
    assert found["minimum"] == pytest.approx(found["edge"] / 10)
    assert 1e-6 < found["valley"] < found["edge"]
    assert found["slide"] <= 0.3
    assert found.keys() == set(METHODS)


def test_steepest_is_lightnings() -> None:
    for noise in (0.0, 0.1):
        for skips in ((10, 1), (0, 1), (30, 20)):
            ours, theirs = curve(bowl(noise), 0.8), _LRFinder("exponential", 1e-7, 1, 141)
            theirs.results = ours.results
            assert ours.suggestion(*skips, method="steepest") == theirs.suggestion(*skips)


def test_losses_that_are_not_finite_count_for_nothing() -> None:
    # As Lightning's own tests have it.
    losses = bowl()
    before = curve(losses).suggestions()
    broken = losses.copy()
    broken[-2:], broken[3] = (math.nan, math.inf), -math.inf
    assert curve(broken).suggestions() == before
    theirs = _LRFinder("exponential", 1e-7, 1, 141)
    theirs.results = curve(broken).results
    assert theirs.suggestion() == before["steepest"]


@pytest.mark.parametrize("skips", [(0, 1), (0, 2), (1, 1), (4, 1), (10, 1)])
@pytest.mark.parametrize("losses", [[], [3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], [math.nan, 5, math.inf, 4, 3, 2, 1.0]])
def test_as_many_points_are_enough_as_for_lightning(losses: list[float], skips: tuple[int, int]) -> None:
    ours, theirs = curve(losses), _LRFinder("exponential", 1e-7, 1, 141)
    theirs.results = ours.results
    assert ours.suggestion(*skips, method="steepest") == theirs.suggestion(*skips)


def test_too_few_points_and_no_descent_say_so(caplog: pytest.LogCaptureFixture) -> None:
    few = curve([3.0] * 10 + [math.nan, 2.0, math.inf, 1.0])
    assert few.suggestion() is None
    assert "not enough points, 1 of 14 count" in few.problem()
    assert "Failed to compute suggestion for the generator's learning rate: there are not enough" in caplog.text
    theirs = _LRFinder("exponential", 1e-7, 1, 14)
    theirs.results = few.results
    assert theirs.suggestion() is None
    for losses in ([1.0] * 141, np.linspace(1, 2, 141), [-1.0] * 141):
        flat = curve(losses)
        assert flat.suggestions() == dict.fromkeys(METHODS)
        assert "generator/stft does not fall by more than its noise" in flat.problem()
        assert flat.bounds() is None
    caplog.clear()
    assert flat.suggestion(quiet=True) is None
    assert not caplog.text


def test_noise_alone_is_no_descent() -> None:
    draws = [np.random.default_rng(seed).normal(1, 0.2, 141) for seed in range(200)]
    found = sum(curve(draw, 0.8).problem() is None for draw in draws)
    assert found <= 8  # 1 in 100 is meant
    falling = sum(curve(draw - np.linspace(0, 0.5, 141), 0.8).problem() is None for draw in draws)
    assert falling >= 195


def test_what_comes_after_the_first_rise_is_chaos() -> None:
    # A discriminator beyond its stable range may settle on a constant score, of a lower loss than it had learnt to.
    chaotic = bowl()
    chaotic[130:] = 0.3
    assert curve(chaotic).suggestions()["edge"] == curve(bowl()).suggestions()["edge"]
    assert curve(chaotic).bounds() == curve(bowl()).bounds()
    # But a small dip before the fall is not the fall.
    dip = bowl()
    dip[15:18] -= 0.05
    assert curve(dip).suggestions()["edge"] == curve(bowl()).suggestions()["edge"]


def test_bounds_to_cycle_between() -> None:
    base, top = curve(bowl()).bounds()
    losses = dict(zip(RATES, bowl(), strict=True))
    assert losses[base] > 3 - 0.1 * 2.01 > losses[RATES[list(RATES).index(base) + 1]]  # a tenth of the fall
    assert losses[top] == min(losses.values())
    assert curve(bowl()).divergence == top
    assert curve(bowl()[:80]).divergence is None  # it never rose


def test_nothing_is_suggested_beyond_a_collapse() -> None:
    limit = RATES[75]
    found = curve(bowl(), limit=limit)
    assert max(found.suggestions().values()) < limit
    assert found.bounds().max_lr < limit


def test_the_plot(tmp_path: object) -> None:
    runs = [smoothed(bowl(0.1, seed).tolist(), 0.8) for seed in range(3)]
    first = curve(bowl(0.1), 0.8)
    first.runs = runs
    second = LRCurve("discriminator", "discriminator/loss", RATES[:50].tolist(), [1.0] * 50, limit=RATES[49])
    test = LRRangeTest({"generator": first, "discriminator": second})
    figure = test.plot(suggest=True)
    left, right = figure.axes
    assert left.get_xscale() == "log"
    assert (left.get_xlabel(), left.get_ylabel()) == ("generator's learning rate", "generator/stft")
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert sum("(suggested)" in text for text in texts) == 1
    assert sum(text.startswith(METHODS) for text in texts) == len(METHODS)
    assert any(text.startswith("collapse at") for text in (t.get_text() for t in right.get_legend().get_texts()))
    assert test.plot(ax=[left, right]) is figure
    linear = LRRangeTest({"generator": LRCurve("generator", "x", list(range(1, 30)), list(range(29, 0, -1)))})
    axes = linear.plot().axes
    assert [ax.get_xscale() for ax in axes] == ["linear"]


def test_results_and_rows_of_two_players() -> None:
    one, other = curve(bowl()), LRCurve("discriminator", "discriminator/loss", [1e-3, 1e-2], [2.0, 1.0])
    test = LRRangeTest({"generator": one, "discriminator": other})
    assert test.results == one.results | {"discriminator_lr": [1e-3, 1e-2], "discriminator_loss": [2.0, 1.0]}
    rows = list(test.rows())
    assert len(rows) == 1 + 141 + 2
    assert rows[-1] == ("discriminator", 1e-2, 1.0, 1.0)
    assert test.suggestion() == one.suggestion()
    assert test.as_dict()["curves"]["discriminator"]["problem"].startswith("there are not enough points")


def test_lightnings_finder_object_reads_our_results() -> None:
    # Lightning's own test of its suggestion: the sine falls fastest at π.
    lr = torch.linspace(0, 2 * math.pi, 1000)
    curve = LRCurve("generator", "sine", lr.tolist(), lr.sin().tolist())
    assert curve.suggestion(2, 2, "steepest") == pytest.approx(math.pi, abs=1e-2)
    theirs = _LRFinder("exponential", 1e-6, 0.1, 100)
    theirs.results = curve.results
    assert theirs.suggestion(2, 2) == curve.suggestion(2, 2, "steepest")


def test_a_suggestion_without_a_basis_is_marked(caplog: pytest.LogCaptureFixture) -> None:
    sound, falling, adversarial = curve(bowl(), 0.8), curve(bowl()[:95], 0.8), curve(bowl(), 0.8, adversarial=True)
    assert sound.suggestion() is not None
    assert sound.doubt() is None
    assert not caplog.records
    for each, why in ((falling, "never rises, so no rate was too high"), (adversarial, "depends on the other player")):
        caplog.clear()
        assert each.suggestion() is not None
        assert f"There is no basis for the learning rate suggested for the generator: {each.doubt()}" in caplog.messages
        assert why in each.as_dict()["doubt"]
        [axes] = LRRangeTest({"generator": each}).plot(suggest=True).axes
        assert why in axes.get_title().replace("\n", " ")
    caplog.clear()
    falling.suggestion(quiet=True)
    assert not caplog.records
    assert curve(bowl()[:95], 0.8, ended="generator/stft diverged").doubt() is None
    assert curve(bowl()[:95], 0.8, limit=float(RATES[90])).doubt() is None
    assert curve([1.0] * 50).doubt() is None  # it has a problem instead
