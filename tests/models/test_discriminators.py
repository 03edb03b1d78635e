import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator

RESOLUTIONS = ((64, 8, 40), (128, 15, 80))


def small():
    return Discriminator(
        MultiResolutionSpectrogramDiscriminator(RESOLUTIONS, channels=4),
        MultiPeriodDiscriminator(periods=(2, 3), channels=(4, 8)),
    )


def test_default_is_univnets():
    discriminator = Discriminator()
    scores = discriminator(torch.randn(2, 1, 2001))
    assert list(scores) == ["mrd_1024", "mrd_2048", "mrd_512", "mpd_2", "mpd_3", "mpd_5", "mpd_7", "mpd_11"]
    for n_fft, hop in ((1024, 120), (2048, 240), (512, 50)):  # frames are halved three times, bins are kept
        frames = (2001 - hop) // hop + 1
        assert scores[f"mrd_{n_fft}"].shape == (2, (n_fft // 2 + 1) * -(-frames // 8))
    for period in (2, 3, 5, 7, 11):  # time is divided by 3 four times
        assert scores[f"mpd_{period}"].shape == (2, period * -(-2001 // period // 81))
    shapes = [conv.weight.shape for conv in discriminator.mrd.discriminators["mrd_512"].convs]
    assert shapes == [(32, 1, 3, 9), *[(32, 32, 3, 9)] * 3, (32, 32, 3, 3)]
    shapes = [conv.weight.shape for conv in discriminator.mpd.discriminators["mpd_2"].convs]
    assert shapes == [(64, 1, 5, 1), (128, 64, 5, 1), (256, 128, 5, 1), (512, 256, 5, 1), (1024, 512, 5, 1)]


@pytest.mark.parametrize("samples", [331, 400])
def test_scores_have_names_and_the_batch(samples):
    scores = small()(torch.randn(3, 1, samples))
    assert list(scores) == ["mrd_64", "mrd_128", "mpd_2", "mpd_3"]
    assert all(score.dim() == 2 and len(score) == 3 and score.isfinite().all() for score in scores.values())


def test_examples_are_judged_apart():
    discriminator, audio = small(), torch.randn(3, 1, 400)
    together = discriminator(audio)
    for name, alone in discriminator(audio[1:2]).items():
        torch.testing.assert_close(together[name][1:2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-25, 1e-3])
def test_gradients_are_finite_at_and_near_silence(level):
    audio = (level * torch.randn(2, 1, 400)).requires_grad_()
    sum(score.sum() for score in small()(audio).values()).backward()
    assert audio.grad.isfinite().all()


def test_every_parameter_gets_a_gradient():
    discriminator = small()
    sum(score.square().sum() for score in discriminator(torch.randn(2, 1, 400)).values()).backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("resolution", [(64, 8, 40), (128, 15, 80), (64, 16, 64)])
def test_spectrogram_equals_scipys(resolution):
    n_fft, hop, length = resolution
    audio = np.random.default_rng(0).standard_normal(500)
    (sub,) = MultiResolutionSpectrogramDiscriminator([resolution]).discriminators.values()
    ours = sub.spectrogram(torch.from_numpy(audio)[None, None])[0].numpy()
    window = np.pad(np.ones(length), (n_fft - length) // 2)  # rectangular, in the middle of the FFT
    padded = np.pad(audio, (n_fft - hop) // 2, mode="reflect")
    frames = 1 + (len(padded) - n_fft) // hop
    transform = scipy.signal.ShortTimeFFT(window, hop, fs=1)
    # scipy's slices are centred on multiples of the hop; ours start there.
    theirs = np.abs(transform.stft(padded, p0=0, p1=frames, k_offset=n_fft // 2))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_period_view_folds_time():
    # With identity-like weights the view is visible: each row is one phase of the period.
    (sub,) = MultiPeriodDiscriminator(
        periods=(3,), channels=(1,), kernel_size=1, leaky_slope=0.0
    ).discriminators.values()
    seen = []
    sub.convs[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    sub(torch.arange(8.0)[None, None])
    assert seen[0][0, 0].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 6]]  # reflected on the right


def test_autocast_keeps_the_spectrogram_in_single_precision():
    discriminator, audio = small(), torch.randn(2, 1, 400)
    sub = discriminator.mrd.discriminators["mrd_64"]
    expected = sub.spectrogram(audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sub.spectrogram(audio), expected)
        assert sub.spectrogram(audio.bfloat16()).dtype == torch.float32
        scores = discriminator(audio)
    assert all(score.dtype == torch.bfloat16 and score.isfinite().all() for score in scores.values())


def plainly(discriminator, audio):
    """Judge as the reference does: bins × frames and steps × phases, in torch's default layout."""
    scores = {}
    for name, sub in {**discriminator.mrd.discriminators, **discriminator.mpd.discriminators}.items():
        if name.startswith("mrd"):
            padding = (sub.n_fft - sub.hop) // 2
            padded = F.pad(audio, (padding, padding), "reflect").squeeze(1)
            window = torch.ones(sub.window, dtype=audio.dtype)
            view = torch.stft(padded, sub.n_fft, sub.hop, sub.window, window, center=False, return_complex=True).abs()
            view = view.unsqueeze(1).contiguous()
        else:
            period = int(name.removeprefix("mpd_"))
            view = F.pad(audio, (0, -audio.shape[-1] % period), "reflect").reshape(len(audio), 1, -1, period)
        for conv in sub.convs:
            view = F.leaky_relu(F.conv2d(view, conv.weight, conv.bias, conv.stride, conv.padding), sub.leaky_slope)
        post = sub.conv_post
        scores[name] = F.conv2d(view, post.weight, post.bias, post.stride, post.padding).flatten(1)
    return scores


@pytest.mark.parametrize("samples", [331, 408])
@pytest.mark.parametrize(
    ("dtype", "scores_within", "gradients_within"), [("float64", 1e-12, 1e-12), ("float32", 1e-6, 1e-4)]
)
def test_the_layouts_change_no_mathematics(samples, dtype, scores_within, gradients_within):
    torch.manual_seed(0)
    dtype = getattr(torch, dtype)
    discriminator = small().to(dtype)
    audio = torch.randn(2, 1, samples, dtype=dtype, requires_grad=True)
    ours, theirs = discriminator(audio), plainly(discriminator, audio)
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=scores_within)
    names, inputs = zip(("audio", audio), *discriminator.named_parameters(), strict=True)
    gradients = [
        torch.autograd.grad(sum((1 - score).square().mean() for score in scores.values()), inputs)
        for scores in (ours, theirs)
    ]
    for name, mine, expected in zip(names, *gradients, strict=True):  # in float32 a unit near 0 may change its side
        assert (mine - expected).norm() <= gradients_within * expected.norm(), name


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_can_be_chosen(channels_last):
    torch.manual_seed(0)
    discriminator, audio = small().double(), torch.randn(2, 1, 408, dtype=torch.float64)
    expected = discriminator(audio)
    for name, part in discriminator.parts().items():
        part.channels_last = channels_last
        score, features = part(audio, with_features=True)
        assert features[0].is_contiguous(memory_format=torch.channels_last) == channels_last
        torch.testing.assert_close(score, expected[name], rtol=0, atol=1e-12)


def test_checkpoints_of_any_layout_have_the_references_shapes():
    discriminator = small()
    shapes = {name: tuple(value.shape) for name, value in discriminator.state_dict().items()}
    prefix = "mpd.discriminators.mpd_3.convs.1"
    assert {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)} == {
        ".bias": (8,),
        ".parametrizations.weight.original0": (8, 1, 1, 1),
        ".parametrizations.weight.original1": (8, 4, 5, 1),
    }
    assert all(value.is_contiguous() for value in discriminator.state_dict().values())


def test_parts_can_be_left_out():
    audio = torch.randn(1, 1, 400)
    no_mpd = Discriminator(MultiResolutionSpectrogramDiscriminator(RESOLUTIONS, 4), MultiPeriodDiscriminator(()))
    assert list(no_mpd(audio)) == ["mrd_64", "mrd_128"]
    no_mrd = Discriminator(MultiResolutionSpectrogramDiscriminator(()), MultiPeriodDiscriminator((5,), (4,)))
    assert list(no_mrd(audio)) == ["mpd_5"]
    with pytest.raises(ValueError, match="at least one"):
        Discriminator(MultiResolutionSpectrogramDiscriminator(()), MultiPeriodDiscriminator(()))


def test_short_audio_is_named():
    mrd = MultiResolutionSpectrogramDiscriminator(RESOLUTIONS, 4)
    mrd(torch.randn(1, 1, 57))
    with pytest.raises(ValueError, match="56 samples is too short for an FFT of 128 samples: at least 57"):
        mrd(torch.randn(1, 1, 56))
    mpd = MultiPeriodDiscriminator((11,), (4,))
    mpd(torch.randn(1, 1, 6))
    with pytest.raises(ValueError, match="5 samples is too short for a period of 11 samples"):
        mpd(torch.randn(1, 1, 5))
    with pytest.raises(ValueError, match=r"\(batch, 1, samples\), got \(1, 400\)"):
        mpd(torch.randn(1, 400))


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ValueError, match="MultiResolutionSpectrogramDiscriminator") as error:
        MultiResolutionSpectrogramDiscriminator([(64, 8, 65), (64, 8, 40), (32, 0, 8)], channels=0, leaky_slope=2)
    for word in ("(64, 8, 65)", "(32, 0, 8)", "must differ", "channels", "leaky_slope"):
        assert word in str(error.value)
    with pytest.raises(ValueError, match="MultiPeriodDiscriminator") as error:
        MultiPeriodDiscriminator(periods=(2, 2), channels=(), kernel_size=4, stride=0)
    for word in ("periods", "channels", "kernel_size must be odd", "stride"):
        assert word in str(error.value)


def test_features_are_what_the_layers_put_out():
    discriminator, audio = small(), torch.randn(2, 1, 400)
    for name, part in discriminator.parts().items():
        convolved = []

        def keep(_, args, out, convolved=convolved):
            convolved.append(out.detach().clone())

        hooks = [conv.register_forward_hook(keep) for conv in (*part.convs, part.conv_post)]
        scores, features = part(audio, with_features=True)
        for hook in hooks:
            hook.remove()
        assert torch.equal(scores, part(audio)), name
        assert torch.equal(features[-1], scores)
        assert len(features) == len(convolved) == len(part.convs) + 1
        for feature, out in zip(features[:-1], convolved, strict=False):
            assert torch.equal(feature, F.leaky_relu(out, 0.2))
