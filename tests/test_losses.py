import librosa
import numpy as np
import pytest
import torch

from univnet.losses import (
    FeatureMatching,
    Hinge,
    Judged,
    LeastSquares,
    MultiResolutionSTFTLoss,
    MultiScaleMelLoss,
    mean_over_parts,
)

RESOLUTIONS = ((128, 15, 75), (256, 30, 150))
LEAST_SQUARES = LeastSquares()


def pair(batch=3, samples=600, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (0.1 * torch.randn(2, batch, 1, samples, generator=generator, dtype=dtype)).unbind()


def magnitudes(audio, n_fft, hop, length):
    spectrum = librosa.stft(
        audio[:, 0].numpy(), n_fft=n_fft, hop_length=hop, win_length=length, window="hann", pad_mode="reflect"
    )
    return np.sqrt(np.maximum(np.abs(spectrum) ** 2, 1e-7))


@pytest.mark.parametrize("per_example", [False, True])
def test_stft_loss_equals_librosas(per_example):
    fake, real = pair()
    real[0, 0, 300:] = 0  # below the floor
    convergence, log_magnitude = [], []
    for resolution in RESOLUTIONS:
        a, b = magnitudes(fake, *resolution), magnitudes(real, *resolution)
        ratios = [np.linalg.norm(b[i] - a[i]) / np.linalg.norm(b[i]) for i in range(3)]
        convergence.append(np.mean(ratios) if per_example else np.linalg.norm(b - a) / np.linalg.norm(b))
        log_magnitude.append(np.abs(np.log(a) - np.log(b)).mean())
    terms = MultiResolutionSTFTLoss(RESOLUTIONS, per_example)(fake, real)
    assert list(terms) == ["spectral_convergence", "log_magnitude"]
    assert terms["spectral_convergence"].item() == pytest.approx(np.mean(convergence), rel=1e-9)
    assert terms["log_magnitude"].item() == pytest.approx(np.mean(log_magnitude), rel=1e-9)


@pytest.mark.parametrize("per_example", [False, True])
def test_identical_audio_costs_nothing_and_has_finite_gradients(per_example):
    fake, _ = pair()
    fake[0] = 0
    fake.requires_grad_()
    terms = MultiResolutionSTFTLoss(RESOLUTIONS, per_example)(fake, fake.detach())
    assert [term.item() for term in terms.values()] == [0, 0]
    sum(terms.values()).backward()
    assert fake.grad.isfinite().all()


def test_only_the_per_example_loss_is_the_mean_over_micro_batches():
    fake, real = pair(batch=4)
    real[:2] *= 10

    def gap(per_example):
        loss = MultiResolutionSTFTLoss(RESOLUTIONS, per_example)
        halves = [loss(f, r)["spectral_convergence"] for f, r in zip(fake.split(2), real.split(2), strict=True)]
        return abs(loss(fake, real)["spectral_convergence"] - sum(halves) / 2).item()

    assert gap(per_example=True) < 1e-12
    assert gap(per_example=False) > 1e-2


@pytest.mark.parametrize("rms", [0.01, 0.03])
def test_silence_counts_as_noise_of_the_given_level(rms):
    fake, _ = pair(batch=8, samples=2000)
    fake = fake * (0.5 / 0.1)  # white noise of RMS 0.5 against digital silence
    loss = MultiResolutionSTFTLoss(RESOLUTIONS, per_example=True, silence_rms=rms)
    assert loss(fake, torch.zeros_like(fake))["spectral_convergence"].item() == pytest.approx(0.5 / rms, rel=0.05)


def test_half_precision_is_computed_in_single():
    fake, real = pair(dtype=torch.bfloat16)
    loss = MultiResolutionSTFTLoss(RESOLUTIONS).bfloat16()
    expected = loss(fake.float(), real.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(fake, real)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert torch.equal(term, expected[name])


def test_stft_loss_names_what_is_wrong():
    loss = MultiResolutionSTFTLoss(RESOLUTIONS)
    loss(torch.randn(1, 1, 129), torch.randn(1, 1, 129))
    with pytest.raises(ValueError, match="128 samples is too short: at least 129"):
        loss(torch.randn(1, 1, 128), torch.randn(1, 1, 128))
    with pytest.raises(ValueError, match=r"got \(1, 1, 200\) and \(1, 1, 201\)"):
        loss(torch.randn(1, 1, 200), torch.randn(1, 1, 201))
    with pytest.raises(ValueError, match="MultiResolutionSTFTLoss") as error:
        MultiResolutionSTFTLoss([(64, 8, 65), (0, 1, 1)], silence_rms=0)
    for word in ("(64, 8, 65)", "(0, 1, 1)", "silence_rms"):
        assert word in str(error.value)
    with pytest.raises(ValueError, match="at least one resolution"):
        MultiResolutionSTFTLoss(())


def adversarial(judged):
    terms = mean_over_parts(judged)
    return {"adversarial": terms.pop("loss"), **terms}


def of_discriminator(real, fake, loss=LEAST_SQUARES):
    return adversarial({name: loss.discriminator(Judged(real[name]), Judged(fake[name])) for name in real})


def of_generator(fake, loss=LEAST_SQUARES):
    return adversarial({name: loss.generator(Judged(score)) for name, score in fake.items()})


def test_adversarial_losses_equal_numpys():
    rng = np.random.default_rng(0)
    real, fake = ({"a": rng.normal(size=(2, 5)), "b": rng.normal(size=(2, 9))} for _ in range(2))

    def tensors(scores):
        return {name: torch.from_numpy(score) for name, score in scores.items()}

    expected = {name: np.mean((real[name] - 1) ** 2) + np.mean(fake[name] ** 2) for name in "ab"}
    terms = {name: term.item() for name, term in of_discriminator(tensors(real), tensors(fake)).items()}
    scores = {"real_score": real, "fake_score": fake}
    means = {name: np.mean([score[sub].mean() for sub in "ab"]) for name, score in scores.items()}
    assert terms == pytest.approx({"adversarial": np.mean(list(expected.values())), **expected, **means})
    expected = {name: np.mean((fake[name] - 1) ** 2) for name in "ab"}
    terms = {name: term.item() for name, term in of_generator(tensors(fake)).items()}
    assert terms == pytest.approx({"adversarial": np.mean(list(expected.values())), **expected})


def test_adversarial_losses_pull_the_right_way():
    score = torch.tensor([[0.3]], requires_grad=True)
    of_generator({"a": score})["adversarial"].backward()
    assert score.grad.item() < 0  # a fake's score should rise for the generator
    score.grad = None
    of_discriminator({"a": torch.tensor([[1.0]])}, {"a": score})["adversarial"].backward()
    assert score.grad.item() > 0  # and sink for the discriminator


def test_adversarial_losses_are_single_precision_under_bfloat16():
    scores = {"a": torch.randn(2, 1000, dtype=torch.bfloat16)}
    single = {"a": scores["a"].float()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert of_generator(scores)["a"] == of_generator(single)["a"]
        term = of_discriminator(scores, scores)["adversarial"]
    assert term.dtype == torch.float32


def test_adversarial_loss_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        of_generator({})


def test_hinge_losses_equal_numpys_and_stop_where_scores_suffice():
    rng = np.random.default_rng(1)
    real, fake = ({"a": 2 * rng.normal(size=(2, 50)), "b": 2 * rng.normal(size=(2, 9))} for _ in range(2))
    scores = [{name: torch.from_numpy(score) for name, score in each.items()} for each in (real, fake)]
    expected = {name: np.maximum(0, 1 - real[name]).mean() + np.maximum(0, 1 + fake[name]).mean() for name in "ab"}
    terms = {name: term.item() for name, term in of_discriminator(*scores, Hinge()).items()}
    means = {
        name: np.mean([each[sub].mean() for sub in "ab"]) for name, each in (("real_score", real), ("fake_score", fake))
    }
    assert terms == pytest.approx({"adversarial": np.mean(list(expected.values())), **expected, **means})
    expected = {name: np.maximum(0, 1 - fake[name]).mean() for name in "ab"}
    terms = {name: term.item() for name, term in of_generator(scores[1], Hinge()).items()}
    assert terms == pytest.approx({"adversarial": np.mean(list(expected.values())), **expected})
    score = torch.tensor([[1.5, -1.5]], requires_grad=True)
    of_generator({"a": score}, Hinge())["adversarial"].backward()
    assert score.grad.tolist() == [[0, -0.5]]
    score.grad = None
    of_discriminator({"a": score}, {"a": score}, Hinge())["adversarial"].backward()
    assert score.grad.tolist() == [[0.5, -0.5]]


def judged(seed, dtype=torch.float64, requires_grad=False):
    rng = np.random.default_rng(seed)
    layers = [torch.from_numpy(rng.normal(size=size)).to(dtype) for size in ((2, 3, 5), (2, 4), (2, 7))]
    layers = [layer.requires_grad_(requires_grad) for layer in layers]
    return Judged(layers[-1], layers)


@pytest.mark.parametrize("other", [LeastSquares(), Hinge()])
def test_feature_matching_equals_numpys_and_is_logged_apart(other):
    fake, real = judged(0, requires_grad=True), judged(1)
    loss = FeatureMatching(other, 2.0)
    terms = loss.generator(fake, real)
    expected = sum(
        np.abs(f.detach().numpy() - r.numpy()).mean() for f, r in zip(fake.features, real.features, strict=True)
    )
    alone = other.generator(fake)["loss"].item()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"loss": alone + 2 * expected, "adversarial": alone, "feature_matching": expected}
    )
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]
    gradient, other_gradient = (
        torch.autograd.grad(each, fake.features, allow_unused=True)
        for each in (terms["loss"], other.generator(fake)["loss"])
    )
    torch.testing.assert_close(gradient[0], 2 * (fake.features[0] - real.features[0]).sign() / 30)
    assert other_gradient[0] is None
    assert loss.discriminator(real, fake) == other.discriminator(real, fake)
    both = mean_over_parts({"a": terms, "b": loss.generator(judged(2), real)})
    assert both["a"] == terms["adversarial"]
    assert both["adversarial"] == (both["a"] + both["b"]) / 2
    torch.testing.assert_close(both["loss"], both["adversarial"] + 2 * both["feature_matching"])


def test_feature_matching_is_summed_in_single_precision():
    fake, real = judged(0, torch.bfloat16), judged(1, torch.bfloat16)
    loss = FeatureMatching(LeastSquares(), 1.0)
    single = loss.generator(*(Judged(j.scores, [layer.float() for layer in j.features]) for j in (fake, real)))
    term = loss.generator(fake, real)["feature_matching"]
    assert term.dtype == torch.float32
    torch.testing.assert_close(term, single["feature_matching"], rtol=2e-3, atol=0)


def test_mel_loss_equals_librosas():
    fake, real = pair(samples=3000)
    resolutions, expected = ((64, 16, 5), (256, 64, 20), (512, 100, 40)), 0.0
    for n_fft, hop, bands in resolutions:
        left = (n_fft - hop) // 2
        mels = []
        for audio in (fake, real):
            padded = np.pad(audio[:, 0].numpy(), ((0, 0), (left, n_fft - hop - left)), "reflect")
            magnitude = np.abs(librosa.stft(padded, n_fft=n_fft, hop_length=hop, center=False))
            filters = librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=bands)
            mels.append(np.log10(np.maximum(filters @ magnitude, 1e-5))[..., : 3000 // hop])
        expected += np.abs(mels[0] - mels[1]).mean()
    loss = MultiScaleMelLoss(16000, resolutions)
    fake.requires_grad_()
    assert loss(fake, real).item() == pytest.approx(expected, rel=1e-5)
    loss(fake, real).backward()
    assert fake.grad.abs().max() > 0
    assert loss(real, real) == 0
    assert not loss.state_dict()


def test_mel_loss_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"two .* of one shape"):
        MultiScaleMelLoss()(torch.zeros(1, 1, 4000), torch.zeros(1, 1, 4001))
    with pytest.raises(ValueError, match=r"MultiScaleMelLoss: resolution .* must be") as error:
        MultiScaleMelLoss(16000, [(64, 65, 5), (63, 16, 5), (64, 16)])
    for mistake in (
        r"\(64, 65, 5\).*hop_length must be between",
        r"\(63, 16, 5\).*n_fft must be",
        r"\(64, 16\) must be",
    ):
        assert error.match(mistake)
    with pytest.raises(ValueError, match="at least one resolution"):
        MultiScaleMelLoss(resolutions=())


def test_every_band_of_the_default_mel_loss_has_bins(recwarn):
    for rate in (16000, 22050, 24000, 44100):
        assert MultiScaleMelLoss(rate)(*pair(samples=4096, dtype=torch.float32)) > 0
    assert not [warning for warning in recwarn if "filterbank" in str(warning.message)]
