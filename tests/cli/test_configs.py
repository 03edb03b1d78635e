"""Configuration files with a base: what is merged, and how mistakes in them are said."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.small import write_config

from univnet.cli import main
from univnet.cli.configs import layers
from univnet.cli.messages import UsageError

CONFIGS = Path(__file__).parents[2] / "configs"

# What configs/univnet_c16.yaml and univnet_c32.yaml said in full before they had a base; `channels` tells them apart.
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"betas": [0.5, 0.9], "fused": True}}
UPDATES = {"accumulate": 1, "clip_norm": None, "clip_value": None, "max_nonfinite": 20}
PAPER: dict[str, Any] = {
    "trainer": {
        "max_steps": 1000000,
        "accelerator": "auto",
        "precision": "32-true",
        "check_val_every_n_epoch": None,
        "val_check_interval": 5000,
        "log_every_n_steps": 50,
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "runs", "default_hp_metric": False},
        },
    },
    "model": {
        "generator": {
            "class_path": "univnet.Generator",
            "init_args": {"n_mels": 100, "strides": [8, 8, 4], "dilations": [1, 3, 9, 27]},
        },
        "mel": {
            "class_path": "univnet.LogMelSpectrogram",
            "init_args": {
                "sample_rate": 24000,
                "n_fft": 1024,
                "hop_length": 256,
                "n_mels": 100,
                "f_min": 0.0,
                "f_max": 12000.0,
            },
        },
        "stft_weight": 2.5,
        "discriminator_start": 0,
        "generator_lr": 1e-4,
        "discriminator_lr": 1e-4,
        "generator_optimizer": ADAMW,
        "discriminator_optimizer": ADAMW,
        "generator_updates": UPDATES,
        "discriminator_updates": UPDATES,
        "compile": False,
    },
    "data": {"segment_length": 16384, "batch_size": 32, "num_workers": 4},
    "checkpoint_every": {"every_n_train_steps": 25000},
}


def assert_says(config: Any, expected: Any, where: str = "") -> None:
    """Assert that ``config`` holds everything that ``expected`` does; the rest of it are defaults."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_says(config[key], value, f"{where}.{key}")
    else:
        assert config == expected, where


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that gives the configuration that a command line makes."""

    def run(*argv: Any) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["fit", *map(str, argv), "--print_config"])
        assert not ended.value.code
        return yaml.safe_load(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("channels", [16, 32])
def test_the_papers_sizes_say_what_they_did_in_full(channels: int, printed: Any, tmp_path: Path) -> None:
    config = printed("--config", CONFIGS / f"univnet_c{channels}.yaml", "--data.root", "DIR")
    assert_says(config, PAPER)
    assert config["model"]["generator"]["init_args"]["channels"] == channels
    assert config["trainer"]["logger"]["init_args"]["name"] == f"univnet_c{channels}"
    assert "base" not in config
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(PAPER))
    size = ["--model.generator.init_args.channels", channels]
    name = ["--trainer.logger.init_args.name", f"univnet_c{channels}"]
    assert config == printed("--config", tmp_path / "full.yaml", *size, *name, "--data.root", "DIR")


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_chain_is_the_same_as_naming_every_file(printed: Any, tmp_path: Path) -> None:
    """Across folders, through another class's arguments, and with a file that is named in the configuration itself."""
    (tmp_path / "low").mkdir()
    written(
        tmp_path / "low",
        bottom="model: {generator: {class_path: univnet.Generator, init_args: {channels: 8}}, generator_lr: 1e-3}\n"
        "trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: x, flush_logs_every_n_steps: 7}}}\n"
        "data: {batch_size: 3, root: DIR}\n",
        mel="{class_path: univnet.LogMelSpectrogram, init_args: {sample_rate: 16000}}\n",
        middle="base: bottom.yaml\nmodel: {generator: {init_args: {n_mels: 80}}, mel: mel.yaml}\n",
    )
    written(
        tmp_path,
        top="trainer: {logger: {class_path: TensorBoardLogger, init_args: {save_dir: y}}}\n"
        "data: {batch_size: 5}\nbase: low/middle.yaml\n",
    )
    config = printed("--config", tmp_path / "top.yaml")
    generator = config["model"]["generator"]
    assert generator["class_path"] == "univnet.Generator"
    assert (generator["init_args"]["channels"], generator["init_args"]["n_mels"]) == (8, 80)
    assert config["model"]["mel"]["init_args"]["sample_rate"] == 16000
    assert config["model"]["generator_lr"] == 1e-3
    assert config["trainer"]["logger"]["class_path"].endswith("TensorBoardLogger")
    assert config["trainer"]["logger"]["init_args"]["save_dir"] == "y"
    assert config["trainer"]["logger"]["init_args"].keys().isdisjoint({"flush_logs_every_n_steps"})
    assert config["data"]["batch_size"] == 5

    whole = [yaml.safe_load((tmp_path / file).read_text()) for file in ("low/middle.yaml", "top.yaml")]
    assert [settings.pop("base") for settings in whole] == ["bottom.yaml", "low/middle.yaml"]
    written(tmp_path / "low", middle_alone=yaml.safe_dump(whole[0]))
    written(tmp_path, top_alone=yaml.safe_dump(whole[1]))
    files = ("low/bottom.yaml", "low/middle_alone.yaml", "top_alone.yaml")
    assert config == printed(*(argument for file in files for argument in ("--config", tmp_path / file)))


def test_options_and_later_files_win_over_a_base(printed: Any, tmp_path: Path) -> None:
    written(tmp_path, base="data: {batch_size: 3, root: A, seed: 1}\n", top="base: base.yaml\ndata: {seed: 2}\n")
    written(tmp_path, last="data: {root: B}\n")
    files = ["--config", tmp_path / "top.yaml", "--config", tmp_path / "last.yaml"]
    data = printed(*files, "--data.batch_size", 7)["data"]
    assert (data["batch_size"], data["root"], data["seed"]) == (7, "B", 2)


def test_a_run_keeps_the_merged_configuration(tmp_path: Path, demo: Path) -> None:
    write_config(tmp_path, 4, demo)
    written(tmp_path, top="base: small.yaml\ndata: {batch_size: 2}\ntrainer: {logger: {init_args: {name: top}}}\n")
    main(["fit", "--config", str(tmp_path / "top.yaml")])
    kept = tmp_path / "runs" / "top" / "version_0" / "config.yaml"
    config = yaml.safe_load(kept.read_text())
    assert "base" not in config
    assert (config["data"]["batch_size"], config["data"]["segment_length"]) == (2, 2048)
    main(["fit", "--config", str(kept), "--trainer.logger.init_args.name", "again"])
    again = yaml.safe_load((tmp_path / "runs" / "again" / "version_0" / "config.yaml").read_text())
    again["trainer"]["logger"]["init_args"]["name"] = "top"
    assert again == config


def test_layers_from_the_lowest() -> None:
    (base, low), (top, high) = layers(CONFIGS / "univnet_c16.yaml")
    assert (base.name, top.name) == ("univnet.yaml", "univnet_c16.yaml")
    assert low["model"]["generator"]["init_args"]["strides"] == [8, 8, 4]
    assert high["model"] == {"generator": {"init_args": {"channels": 16}}}
    assert "base" not in high


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("base: nowhere.yaml", "top.yaml: there is no file nowhere.yaml, which it names as its base"),
        ("base: top.yaml", "top.yaml: base leads back to top.yaml, which is being read (top.yaml → top.yaml)"),
        ("base: round.yaml", "(top.yaml → round.yaml → top.yaml): name another file"),
        ("base: [a.yaml, b.yaml]", "top.yaml: base must be the name of one YAML file, got ['a.yaml', 'b.yaml']"),
        ("base: broken.yaml", "broken.yaml is not readable YAML: "),
        ("base: list.yaml", "list.yaml holds no settings: expected keys such as trainer, model and data"),
        ("base: !!python/object/apply:os.mkdir [executed]", "top.yaml is not readable YAML: could not determine"),
        ("base: evil.yaml", "evil.yaml is not readable YAML: could not determine a constructor"),
        ("base: .", "top.yaml: there is no file ., which it names as its base"),
        ("base: good.yaml\ndata: {batch_sise: 1}", "batch_sise"),
        ("base: wrong.yaml", "data.batch_size: expected int, got many"),
        ("data: {batch_size: null}", "data.batch_size: expected int, got null"),
        ("model: {generator_lr: null}", "model.generator_lr: expected float, got null"),
        ("model: null", "model is null: leave the key out for its defaults, or list its options below it"),
        ("data: null", "data is null"),
        ("trainer: null", "trainer is null"),
        ("model: {generator_updates: null}", "model.generator_updates is null"),
        ("samples: null", "samples is null"),
        ("checkpoint_every: null", "checkpoint_every is null"),
        ("matmul_precision: null", "matmul_precision: expected one of 'highest', 'high', 'medium', got null"),
        ("model: {generator: {class_path: Generator, init_args: null}}", "init_args must be a mapping of arguments"),
    ],
)
def test_mistakes_are_said_in_one_line(
    text: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, top=text, round="base: ./top.yaml\n", broken="data: [\n", list="- 1\n", good="data: {root: A}\n")
    written(tmp_path, evil="a: !!python/object/apply:os.mkdir [executed]\n", wrong="data: {batch_size: many}\n")
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "top.yaml"])
    assert ended.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("univnet: error: ")]
    assert mistake in line
    assert "see `univnet --help`" not in line  # the verb's own help tells more
    assert not (tmp_path / "executed").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"bytes\.yaml is not readable YAML"):
        layers(tmp_path / "bytes.yaml")
