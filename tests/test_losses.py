import librosa
import numpy as np
import pytest
import torch

from univnet.losses import (
    Judged,
    LeastSquares,
    MultiResolutionSTFTLoss,
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
