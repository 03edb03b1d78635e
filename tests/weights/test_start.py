"""Training that starts from weights made elsewhere: what is taken, what is told, and the discriminator's warm-up."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from support.checkpoints import save, small_univnet
from support.hostile import hostile_file
from support.small import GENERATOR, MEL
from torch import nn

from univnet import AudioDataModule, Generator, LogMelSpectrogram, UnivNet, Vocoder
from univnet.convert import plain_state_dict
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator
from univnet.weights.mindslab import to_mindslab, write_mindslab
from univnet.weights.sources import read_weights
from univnet.weights.start import mel_differences, start_from
from univnet.weights.transformers_folder import write_transformers


def trainer(folder: Path, **options: Any) -> Trainer:
    usual = {"accelerator": "cpu", "enable_progress_bar": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    return Trainer(**{**usual, "default_root_dir": folder, "logger": False, **options})


@pytest.fixture(scope="module")
def model() -> UnivNet:
    return small_univnet(0)


@pytest.fixture(scope="module")
def checkpoint(model: UnivNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with raw and averaged weights."""
    return save(model, tmp_path_factory.mktemp("start") / "ours.ckpt", averaged=True)


def same(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_both_players_come_from_a_checkpoint(model: UnivNet, checkpoint: Path) -> None:
    started = small_univnet(1)
    told = start_from(started, read_weights(checkpoint, "raw"))
    assert same(model.generator, started.generator)
    assert same(model.discriminator, started.discriminator)
    assert [len(each.taken) for each in told] == [
        len(net.state_dict()) for net in (model.generator, model.discriminator)
    ]
    assert str(told[0]) == f"generator: {told[0].total} of {told[0].total} weights taken"


def test_the_averaged_generator_is_taken_where_there_is_one(model: UnivNet, checkpoint: Path) -> None:
    started = small_univnet(1)
    start_from(started, read_weights(checkpoint))
    ours = plain_state_dict(model.generator)
    for name, value in plain_state_dict(started.generator).items():
        torch.testing.assert_close(value, ours[name] + 0.01, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["published", "transformers", "safetensors", "bare", "both", "reference"])
def test_a_generator_comes_from_anywhere(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {**GENERATOR, "predictor_channels": 4} if kind == "transformers" else GENERATOR
    config = {"n_mels": 20, "channels": 4} if kind == "reference" else config
    source, mel, path = Generator(**config), LogMelSpectrogram(**MEL), tmp_path / "weights.safetensors"
    plain = plain_state_dict(source)
    if kind == "published":
        path = Vocoder(copy.deepcopy(source), mel).save_pretrained(tmp_path / "folder")
    elif kind == "transformers":
        path = write_transformers(tmp_path / "folder", source, mel)
    elif kind == "safetensors":
        save_file(plain, path)
    elif kind == "bare":
        torch.save(source.state_dict(), path := tmp_path / "weights.pt")
    elif kind == "both":
        save_file(
            {f"generator.{name}": value for name, value in plain.items()} | {"discriminator.x": torch.zeros(1)}, path
        )
    else:
        path = write_mindslab(tmp_path / "theirs.pt", to_mindslab(source, Discriminator(), mel))
    target = small_univnet(1)
    target.generator = Generator(**config)
    told = start_from(target, read_weights(path))
    torch.testing.assert_close(plain_state_dict(target.generator), plain, rtol=1e-6, atol=1e-7)
    assert told[0].fresh == told[0].unfit == []
    if kind != "reference":
        assert told[1].taken == []
        assert "left as they were made: all" in str(told[1])
    assert ("in the file, but not here: x" in str(told[1])) == (kind == "both")


def test_all_that_does_not_fit_is_told_by_name(checkpoint: Path) -> None:
    target = small_univnet(1)
    target.generator = Generator(**{**GENERATOR, "dilations": [1, 3, 9], "noise_channels": 6})
    before = copy.deepcopy(target.generator.state_dict())
    source = read_weights(checkpoint, "raw")
    text = str(start_from(target, source)[0])
    assert "conv_pre.parametrizations.weight.original1 (4, 4, 7) for (4, 6, 7)" in text
    assert "resblocks.0.resblocks.2.conv.bias" in text.split("left as they were made: ")[1]
    unchanged = "conv_pre.parametrizations.weight.original1"
    assert torch.equal(target.generator.state_dict()[unchanged], before[unchanged])
    assert mel_differences(source, LogMelSpectrogram(**{**MEL, "f_max": 7000})) == ["f_max was 8000 and is 7000"]


def test_a_filter_of_zeros_or_a_nan_is_not_taken(model: UnivNet, tmp_path: Path) -> None:
    plain = plain_state_dict(model.generator)
    plain["conv_post.weight"].zero_()
    plain["conv_pre.bias"][0] = torch.nan
    save_file(plain, tmp_path / "bad.safetensors")
    target = small_univnet(1)
    text = str(start_from(target, read_weights(tmp_path / "bad.safetensors"))[0])
    assert "conv_post.weight (a filter of zeros has no direction)" in text
    assert "conv_pre.bias (holds NaN or infinity)" in text
    assert all(value.isfinite().all() for value in plain_state_dict(target.generator).values())


def test_discriminators_are_built_from_their_weights_alone(tmp_path: Path) -> None:
    module = small_univnet()
    module.discriminator = Discriminator(
        MultiResolutionSpectrogramDiscriminator(((512, 50, 240),), channels=2), MultiPeriodDiscriminator((3,), (4, 8))
    )
    built = read_weights(save(module, tmp_path / "small.ckpt")).build_discriminator()
    audio = torch.randn(1, 1, 2000)
    for name, scores in module.discriminator(audio).items():
        assert torch.equal(built(audio)[name], scores)
    del module.discriminator
    module.discriminator = torch.nn.Module()
    source = read_weights(save(module, tmp_path / "alone.ckpt"))
    with pytest.raises(ValueError, match="holds no discriminators, which this needs"):
        source.build_discriminator()


def test_what_is_no_source_is_told(checkpoint: Path, tmp_path: Path) -> None:
    ran = hostile_file(tmp_path / "code.pt", {"conv_pre.bias": torch.zeros(4)})
    with pytest.raises(ValueError, match="holds code besides weights and is not loaded"):
        read_weights(tmp_path / "code.pt")
    assert not ran.exists()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_weights(tmp_path / "nowhere")
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="none of its weights fits this model: other"):
        start_from(small_univnet(), read_weights(tmp_path / "other.safetensors"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no weights by name"):
        read_weights(tmp_path / "list.pt")


def data(demo: Path) -> AudioDataModule:
    return AudioDataModule(
        root=str(demo), mel=LogMelSpectrogram(**MEL), segment_length=2048, batch_size=4, num_workers=0, validation=2
    )


def test_the_discriminator_warms_up_while_the_generator_rests(demo: Path, tmp_path: Path) -> None:
    module = small_univnet(0, discriminator_warmup=3)
    before, seen = copy.deepcopy(module), []

    class Watch:
        def __call__(self, *_: Any) -> None:
            moved = not same(before.generator, module.generator)
            seen.append((module.global_step, module.updates["discriminator"].steps, moved))

    fitter = trainer(tmp_path, max_steps=2, logger=CSVLogger(tmp_path, version=0), limit_val_batches=0)
    module.generator.register_forward_pre_hook(Watch())
    fitter.fit(module, data(demo))
    assert seen == [(0, 0, False), (0, 1, False), (0, 2, False), (0, 3, False), (1, 4, True)]
    assert module.global_step == 2
    assert module.updates["discriminator"].steps == 5
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    logged = [dict(zip(columns, row.split(","), strict=True)) for row in rows[1:]]
    assert [row["step"] for row in logged if row["warmup/loss"]] == ["1", "2", "3"]
    assert len({row["warmup/loss"] for row in logged if row["warmup/loss"]}) == 3
    assert [row["step"] for row in logged if row["generator/loss"]] == ["1", "2"]


class SaveAt(Callback):
    """Save a checkpoint after a micro-batch."""

    def __init__(self, path: Path, micro_batch: int) -> None:
        self.path, self.micro_batch = path, micro_batch

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.micro_batch and not self.path.exists():
            trainer.save_checkpoint(self.path)


def test_a_warm_up_that_is_stopped_goes_on_where_it_was(demo: Path, tmp_path: Path) -> None:
    usual = {"max_steps": 2, "limit_val_batches": 0, "enable_checkpointing": False}
    whole, resumed, path = (
        small_univnet(0, discriminator_warmup=4),
        small_univnet(1, discriminator_warmup=4),
        tmp_path / "within.ckpt",
    )
    trainer(tmp_path, callbacks=[SaveAt(path, 1)], **usual).fit(whole, data(demo))
    assert torch.load(path, weights_only=True)["global_step"] == 0
    trainer(tmp_path, **usual).fit(resumed, data(demo), ckpt_path=path, weights_only=True)
    assert resumed.updates["discriminator"].steps == whole.updates["discriminator"].steps == 6
    assert same(whole, resumed)


def test_a_warm_up_begins_where_the_game_does(demo: Path, tmp_path: Path) -> None:
    module, seen = small_univnet(0, discriminator_start=1, discriminator_warmup=2), []
    fitter = trainer(tmp_path, max_steps=2, limit_val_batches=0, enable_checkpointing=False)
    module.generator.register_forward_pre_hook(lambda *_: seen.append((module.global_step, module.warming_up)))
    fitter.fit(module, data(demo))
    assert seen == [(0, False), (1, True), (1, True), (1, False)]
    with pytest.raises(ValueError, match="discriminator_warmup must not be negative, got -1"):
        small_univnet(0, discriminator_warmup=-1)
