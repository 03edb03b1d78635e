"""``univnet export`` and ``fit --init_from``: out of one run's checkpoint, and into another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file
from support.checkpoints import save, small_univnet
from support.small import write_config

from univnet import LogMelSpectrogram, UnivNet, Vocoder
from univnet.cli import main
from univnet.convert import plain_state_dict
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator
from univnet.models import Generator as UnivNetGenerator
from univnet.weights.mindslab import read_mindslab, to_mindslab, write_mindslab


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_univnet(), tmp_path_factory.mktemp("export") / "small.ckpt", averaged=True)


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb that must fail; return what it says."""

    def run(*argv: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in argv])
        assert ended.value.code == 2
        [told] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("univnet: error")]
        return told

    return run


def export(checkpoint: Path, to: str, output: Path, *more: Any) -> Path:
    main(["export", "--checkpoint", str(checkpoint), "--to", to, "--output", str(output), *map(str, more)])
    return output


@pytest.mark.parametrize("weights", ["auto", "raw"])
def test_a_folder_holds_the_weights_that_are_asked_for(checkpoint: Path, weights: str, tmp_path: Path) -> None:
    folder = export(
        checkpoint, "folder", tmp_path / "f", "--weights", weights, "--license", "cc-by-4.0", "--data", "Speech"
    )
    mel = torch.randn(1, 20, 30)
    expected = Vocoder.from_checkpoint(checkpoint, weights)
    assert torch.equal(Vocoder.from_pretrained(folder)(mel), expected(mel))
    card = (folder / "README.md").read_text()
    assert f"| weights | {'averaged' if weights == 'auto' else 'raw'} |" in card
    assert "| trained on | Speech |" in card
    again = export(folder, "folder", tmp_path / "again")  # a folder is a source, too, with its discriminators
    assert (again / "discriminator.safetensors").read_bytes() == (folder / "discriminator.safetensors").read_bytes()


def test_a_folder_of_half_the_size_holds_both_players(checkpoint: Path, tmp_path: Path) -> None:
    full, half = (
        export(checkpoint, "folder", tmp_path / "full"),
        export(checkpoint, "folder", tmp_path / "half", "--half"),
    )
    for name in ("model.safetensors", "discriminator.safetensors"):
        for key, weight in load_file(full / name).items():
            assert torch.equal(load_file(half / name)[key], weight.half())


def test_a_published_folder_is_vocoded_with(checkpoint: Path, tmp_path: Path) -> None:
    folder = export(checkpoint, "folder", tmp_path / "f")
    np.save(tmp_path / "a.npy", np.full((20, 30), -5, dtype=np.float32))
    main(["synthesize", "--checkpoint", str(folder), "--output", str(tmp_path / "out"), str(tmp_path / "a.npy")])
    assert sf.info(tmp_path / "out" / "a.wav").frames == 30 * 256


def test_the_references_layout_has_both_players(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = UnivNet(UnivNetGenerator(20, channels=4), Discriminator(), LogMelSpectrogram(16000, n_mels=20))
    ours = save(module, tmp_path / "ours.ckpt")
    model = read_mindslab(export(ours, "mindslab", tmp_path / "theirs.pt"))
    assert model.discriminator is not None
    for back, there in ((module.generator, model.generator), (module.discriminator, model.discriminator)):
        state = there.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())


def test_the_reference_gets_the_discriminators_windows_from_our_checkpoint_and_from_its_folder(
    tmp_path: Path, failing: Callable[..., str]
) -> None:
    """Weights do not tell hops, windows and slopes: the checkpoint's configuration does."""
    torch.manual_seed(0)
    resolutions = ((1024, 100, 800), (256, 30, 128))
    judges = Discriminator(MultiResolutionSpectrogramDiscriminator(resolutions), MultiPeriodDiscriminator((2, 13)))
    generator, mel = UnivNetGenerator(20, channels=4), LogMelSpectrogram(16000, n_mels=20)
    ours = save(UnivNet(generator, judges, mel), tmp_path / "ours.ckpt")
    folder = export(ours, "folder", tmp_path / "folder")
    audio = torch.randn(1, 1, 4000)
    for source in (ours, folder, export(folder, "folder", tmp_path / "again")):
        model = read_mindslab(export(source, "mindslab", tmp_path / "theirs.pt", "--overwrite"))
        assert model.discriminator is not None
        assert model.discriminator.mrd.config["resolutions"] == [list(each) for each in resolutions]
        assert model.discriminator.mpd.config == judges.mpd.config
        for name, value in judges.state_dict().items():
            assert torch.equal(model.discriminator.state_dict()[name], value)
        for name, scores in judges(audio).items():
            assert torch.equal(model.discriminator(audio)[name], scores)
    for damage, told in (
        ("[3]", "must hold one JSON object"),
        ('{"mrd": 3, "mpd": {}}', "no discriminator that can be"),
    ):
        (folder / "discriminator.json").write_text(damage)
        argv = ("export", "--checkpoint", folder, "--to", "mindslab", "--output", tmp_path / "no.pt")
        assert told in failing(*argv)
    module = UnivNet(generator, Discriminator(mpd=MultiPeriodDiscriminator((2,), leaky_slope=0.1)), mel)
    steep = export(save(module, tmp_path / "steep.ckpt"), "folder", folder, "--overwrite")
    told = failing("export", "--checkpoint", steep, "--to", "mindslab", "--output", tmp_path / "no.pt")
    assert "the discriminators' leaky_slope is not 0.2" in told
    content = torch.load(ours, weights_only=True)
    content["state_dict"] = {n: v for n, v in content["state_dict"].items() if n.startswith("generator.")}
    torch.save(content, ours)
    export(ours, "folder", folder, "--overwrite")
    assert not list(folder.glob("discriminator.*"))


def test_what_cannot_be_exported_is_told_and_nothing_written(
    checkpoint: Path, tmp_path: Path, failing: Callable[..., str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["univnet"]["discriminator"]  # as older checkpoints are
    torch.save(content, tmp_path / "older.ckpt")
    argv = ("export", "--checkpoint", tmp_path / "older.ckpt", "--output", tmp_path / "x")
    assert "the window of the discriminator mrd_256 is not told in the file" in failing(*argv, "--to", "mindslab")
    argv = ("export", "--checkpoint", checkpoint, "--output", tmp_path / "x")
    assert "discriminator.mpd.discriminators.mpd_2.conv_post has another shape" in failing(*argv, "--to", "mindslab")
    assert "needs noise_channels and predictor_channels to be equal" in failing(*argv, "--to", "transformers")
    assert "invalid choice: 'tflite'" in failing(*argv, "--to", "tflite")
    assert "--half is for --to folder alone" in failing(*argv, "--to", "onnx", "--half")
    assert not (tmp_path / "x").exists()
    (tmp_path / "x").write_text("mine")
    assert "--to folder writes a folder, which" in failing(*argv, "--to", "folder")
    assert "is there already: give --overwrite" in failing(*argv, "--to", "onnx")
    assert (tmp_path / "x").read_text() == "mine"
    folder = export(checkpoint, "folder", tmp_path / "f")
    (folder / "discriminator.safetensors").unlink()
    told = failing("export", "--checkpoint", folder, "--to", "mindslab", "--output", tmp_path / "y")
    assert "is a published folder and holds no discriminators, which this needs" in told


def test_a_run_starts_from_what_another_published(
    checkpoint: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(checkpoint, "folder", tmp_path / "f")
    config = write_config(tmp_path / "run", 4, demo)
    quiet = ("--trainer.enable_progress_bar", "false", "--model.generator_lr", "1e-30")
    main([str(each) for each in ("fit", "--config", config, "--init_from", folder, *quiet)])
    [last] = (tmp_path / "run").rglob("last.ckpt")
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 1  # counted from the start
    started = small_univnet(1)
    started.load_state_dict(content["state_dict"])
    ours = Vocoder.from_pretrained(folder).generator.state_dict()
    for name, value in plain_state_dict(started.generator).items():
        torch.testing.assert_close(value, ours[name], rtol=1e-5, atol=1e-6)


def test_a_run_starts_from_the_references_checkpoint_and_tells_what_fits(
    checkpoint: Path, demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_config(tmp_path / "run", 4, demo)
    generator = UnivNetGenerator(20, channels=4)
    path = write_mindslab(tmp_path / "t.pt", to_mindslab(generator, Discriminator(), LogMelSpectrogram(n_mels=20)))
    differs = "trained on another mel-spectrogram: sample_rate was 24000 and is 16000"
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"), pytest.warns(UserWarning, match=differs):
        main([str(each) for each in ("fit", "--config", config, "--init_from", path)])
    told = caplog.text
    assert "a checkpoint of the reference" in told
    assert "generator: " in told
    assert "of another shape, left as they were made: conv_pre.parametrizations.weight.original1 (4, 64, 7)" in told


def test_starting_and_resuming_at_once_is_refused(
    checkpoint: Path, demo: Path, tmp_path: Path, failing: Callable[..., str]
) -> None:
    config = write_config(tmp_path / "run", 4, demo)
    argv = ("fit", "--config", config, "--init_from")
    assert "give one of the two" in failing(*argv, checkpoint, "--ckpt_path", checkpoint)
    assert "there is no folder" in failing(*argv, tmp_path / "none")
    (tmp_path / "bad.ckpt").write_bytes(checkpoint.read_bytes()[:-1000])
    assert "is damaged" in failing(*argv, tmp_path / "bad.ckpt")
    assert not (tmp_path / "run" / "runs").exists()
