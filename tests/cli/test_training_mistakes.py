"""How ``univnet fit`` tells mistakes: in options, configurations, checkpoints of another model, and recordings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import yaml
from support.runs import CLIPS, load

from univnet.cli import main


class TestMistakesAreToldInOneLine:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--model.breadth", "3"], "unrecognized arguments: --model.breadth 3; see `univnet fit --help`"),
            (["--data.batch_size", "many"], "data.batch_size: expected int, got many; see `univnet fit --help`"),
            (["--config", "nowhere.yaml"], "nowhere.yaml"),
            (["--model.generator.init_args.channels", "x"], "model.generator: channels: expected int, got x"),
            (
                ["--model.generator.init_args.channels", "null"],
                "model.generator: channels: expected int, got null; see",
            ),
            (["--model.mel.init_args.sample_rate", "-1"], "LogMelSpectrogram: sample_rate must be positive, got -1; "),
            (
                ["--model.discriminator.init_args.mpd.init_args.periods", "[0]"],
                "MultiPeriodDiscriminator: periods must be positive and differ, got [0]",
            ),
            (
                ["--trainer.logger.init_args.save_dir", "[]"],
                "trainer.logger: save_dir: expected one of str, Path, got []",
            ),
            (["--trainer.accumulate_grad_batches", "2"], "set model.generator_updates.accumulate"),
            (["--trainer.gradient_clip_val", "1"], "set model.generator_updates.clip_norm"),
            (["--ckpt_path", "last", "--trainer.logger.init_args.name", "x"], "no last.ckpt under"),
            (["--ckpt_path", "nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
            (["--model.mel.init_args.hop_length", "200"], "mel.hop_length is 200 but the product of generator.strides"),
            (["--model.mel.init_args.n_mels", "30"], "generator.n_mels is 20 but mel.n_mels is 30: make them equal"),
            (["--data.root", "nowhere"], "There is no folder nowhere to look for audio in: check data.root"),
            (
                ["--data.root", "pyproject.toml"],
                "pyproject.toml is a file: data.root must be the folder of the recordings",
            ),
            (["--data.root", "null"], "give --data.root FOLDER or --data.manifest FILE"),
            (["--data.manifest", "table.tsv"], "switch the other off, as with --data.root null"),
            (["--config", "configs/demo.yaml", "--data.root", "X"], "as with --data.manifest null"),
            (["--data.validation", str(CLIPS)], f"validation={CLIPS} leaves none of the {CLIPS} files to train on"),
            (["--data.segment_length", "1000"], "segment_length must be a multiple of the mel's hop_length=256"),
        ],
    )
    def test_options(self, refused: Callable[..., str], config: Path, options: Sequence[str], told: str) -> None:
        answer = refused("fit", "--config", config, *options)
        assert told in answer
        assert "Union" not in answer
        assert "Namespace" not in answer

    def test_a_wrong_type_in_yaml(self, refused: Callable[..., str], config: Path, tmp_path: Path) -> None:
        content = yaml.safe_load(config.read_text())
        content["model"]["stft_weight"] = [1]
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
        told = refused("fit", "--config", tmp_path / "wrong.yaml")
        assert told.startswith("model.stft_weight: expected float, got [1]")

    def test_a_folder_without_audio(self, refused: Callable[..., str], config: Path, tmp_path: Path) -> None:
        told = refused("fit", "--config", config, "--data.root", tmp_path)
        assert told.startswith(f"The folder {tmp_path} holds no .wav, .flac, .ogg file at any depth: point data.root")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--model.generator.init_args.channels", "6", "generator.channels is 4 in the checkpoint and 6 here"),
        ("--model.mel.init_args.f_max", "4000", "mel.f_max is 8000.0 in the checkpoint and 4000.0 here"),
        ("--model.discriminator.init_args.mrd.init_args.channels", "3", "discriminator.mrd.discriminators.mrd_"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    refused: Callable[..., str],
    trained: SimpleNamespace,
    config: Path,
    tmp_path: Path,
    option: str,
    value: str,
    told: str,
) -> None:
    argv = ["fit", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path, option, value]
    answer = refused(*argv, "--ckpt_path", trained.checkpoints / "last.ckpt")
    assert answer.startswith("the checkpoint is of another model: ")
    assert told in answer


class TestRecordings:
    @pytest.fixture
    def bad(self, tmp_path: Path, speech_file: Path) -> Path:
        folder = tmp_path / "recordings"
        folder.mkdir()
        rate = sf.info(speech_file).samplerate
        (folder / "text.wav").write_text("not audio")
        (folder / "nothing.wav").touch()
        sf.write(folder / "empty.wav", np.zeros(0), rate)
        sf.write(folder / "silent.wav", np.zeros(rate), rate)
        sf.write(folder / "nan.wav", np.full(rate, np.nan), rate, subtype="FLOAT")
        (folder / "cut.flac").write_bytes(speech_file.read_bytes()[:20000])
        return folder

    def test_bad_files_are_left_out_with_a_count(
        self, bad: Path, config: Path, tmp_path: Path, speech_file: Path
    ) -> None:
        speech, rate = sf.read(speech_file, dtype="float32")
        sf.write(bad / "short.wav", speech[4000:4500], rate)  # shorter than a segment, and than an FFT
        sf.write(bad / "brief.wav", speech[5000:5400], rate)
        argv = ["fit", "--config", str(config), "--data.root", str(bad), "--data.validation", "1"]
        argv += ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.val_check_interval", "1"]
        with pytest.warns(UserWarning, match="6 of 8 audio files are left out"):
            main(argv)  # one short clip is trained on and the other validated on
        assert load(tmp_path / "small" / "version_0" / "checkpoints" / "best.ckpt")["global_step"] == 1

    def test_it_is_an_error_when_none_is_left(self, bad: Path, refused: Callable[..., str], config: Path) -> None:
        told = refused("fit", "--config", config, "--data.root", bad)
        assert told.startswith("None of the 6 audio files can be used: ")
        assert "1 silent, for example" in told

    def test_short_ones_can_be_skipped(
        self, bad: Path, refused: Callable[..., str], config: Path, speech_file: Path
    ) -> None:
        speech, rate = sf.read(speech_file, dtype="float32")
        for name in ("a", "b"):
            sf.write(bad / f"{name}.wav", speech[4000:4500], rate)
        with pytest.warns(UserWarning, match="6 of 8 audio files are left out"):
            told = refused(
                "fit", "--config", config, "--data.root", bad, "--data.short", "skip", "--data.validation", 1
            )
        assert "None of the 1 files to train on is as long as a segment of 2048 samples" in told
        assert "short='pad'" in told
