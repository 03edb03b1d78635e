"""``univnet find-lr`` as its users meet it."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from support.small import write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from univnet.cli import main

QUICK = ["--num_training", "24", "--min_lr", "1e-4", "--max_lr", "1", "--data.batch_size", "2"]


@pytest.fixture
def config(tmp_path: Path, demo: Path) -> Path:
    return write_config(tmp_path, 8, demo)


def test_it_leaves_curves_and_a_config_that_trains(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = config.parent / "configs" / "mine.yaml"
    options = ["--cyclical", "true", "--write", str(mine), "--validation_batches", "1", "--num_training", "60"]
    main(["find-lr", "--config", str(config), *QUICK, *options])
    out = capsys.readouterr().out
    folder = config.parent / "runs" / "small" / "version_0"
    record = json.loads((folder / "lr_find.json").read_text())
    with (folder / "lr_find.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["player"] for row in rows} == {"generator", "discriminator"} == record["curves"].keys()
    curve = record["curves"]["generator"]
    assert curve["monitor"] == "generator/stft"
    marked = record["curves"]["discriminator"]["doubt"]
    assert "discriminator/loss depends on the other player" in marked
    assert f"no basis for these: {marked.replace('(m', '(--m')}" in out
    assert "depends on the other player" not in (curve["doubt"] or "")
    assert [float(row["loss"]) for row in rows if row["player"] == "generator"] == curve["raw"]
    assert (folder / "lr_find.png").read_bytes()[:4] == b"\x89PNG"
    assert EventAccumulator(str(folder)).Reload().Tags()["images"] == ["lr_find"]
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == ["events", *["lr_find"] * 3]

    found, given = record["found"], yaml.safe_load(config.read_text())
    written = yaml.safe_load(mine.read_text())
    rates = {key.removeprefix("model."): value for key, value in found.items() if key.endswith("_lr")}
    assert len(rates) == 2
    for key, rate in rates.items():
        player = key.removesuffix("_lr")
        assert rate == pytest.approx(record["curves"][player]["suggestions"][record["options"]["suggest"]], rel=1e-2)
        assert f"--model.{key} {rate}" in out
        schedule = written["model"][f"{player}_schedule"]["scheduler"]
        assert schedule["class_path"] == "univnet.gan.CyclicalLR"
        bounds = record["curves"][player]["cyclical"]
        assert schedule["init_args"]["max_lr"] == pytest.approx(bounds["max_lr"], rel=1e-2)
        assert schedule["init_args"]["base_lr"] == pytest.approx(bounds["base_lr"], rel=1e-2)
    assert {key: written["model"][key] for key in rates} == rates
    assert written["data"]["batch_size"] == 2
    assert written["trainer"]["val_check_interval"] == given["trainer"]["val_check_interval"]
    assert not {"optimizer", "num_training", "write", "ckpt_path"} & written.keys()

    main(["fit", "--config", str(mine), "--trainer.max_steps", "2", "--trainer.logger", "CSVLogger",
          "--trainer.logger.save_dir", str(config.parent / "csv")])  # fmt: skip
    [metrics] = (config.parent / "csv").rglob("metrics.csv")
    with metrics.open() as file:
        first = next(row for row in csv.DictReader(file) if row["generator/lr"])
    assert float(first["generator/lr"]) == schedule_of(written, "generator")["base_lr"]
    assert float(first["discriminator/lr"]) == schedule_of(written, "discriminator")["base_lr"]


@pytest.mark.parametrize(
    ("updates", "advice"),
    [
        ("6", "give more updates (now --num_training 6), or try other rates"),
        ("50", "try other rates (now --min_lr 1e-12"),
    ],
)
def test_where_no_rate_is_found_what_was_to_be_written_is_an_error(
    updates: str, advice: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = config.parent / "mine.yaml"
    rates = ["--min_lr", "1e-12", "--max_lr", "2e-12", "--num_training", updates]  # nothing is learnt
    with pytest.raises(SystemExit) as leaving:
        main(["find-lr", "--config", str(config), *rates, "--write", str(mine)])
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert f"univnet: error: no learning rate was found, so --write {mine} is not written: {advice}" in err
    assert "--max_lr 2e-12" in err
    assert "no learning rate is suggested: " in out
    assert "(--num_training)" in out or "(--min_lr, --max_lr)" in out
    assert not mine.exists()
    assert (config.parent / "runs" / "small" / "version_0" / "lr_find.json").is_file()


def schedule_of(config: dict, player: str) -> dict:
    return config["model"][f"{player}_schedule"]["scheduler"]["init_args"]


def test_from_the_last_checkpoint_it_writes_into_that_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", str(config), "--model.discriminator_start", "2", "--trainer.max_steps", "4"])
    run = config.parent / "runs" / "small" / "version_0"
    checkpoint = (run / "checkpoints" / "last.ckpt").read_bytes()
    late = ["--config", str(config), "--model.discriminator_start", "2", "--optimizer", "discriminator"]
    main(["find-lr", *late, *QUICK, "--ckpt_path", "last", "--monitor", "generator/adversarial"])
    assert json.loads((run / "lr_find.json").read_text())["curves"]["discriminator"]["monitor"] == (
        "generator/adversarial"
    )
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    assert not (run.parent / "version_1").exists()
    with pytest.raises(SystemExit):
        main(["find-lr", *late, *QUICK, "--model.discriminator_start", "1000"])
    assert "the discriminator makes no updates yet" in capsys.readouterr().err


def test_what_validation_logs_can_be_watched_for_both_players(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality = ["--metric", "val/stft", "--validation_batches", "1", "--num_training", "2", "--optimizer", "joint"]
    main(["find-lr", "--config", str(config), *QUICK, *quality])
    record = json.loads((config.parent / "runs" / "small" / "version_0" / "lr_find.json").read_text())
    assert [curve["monitor"] for curve in record["curves"].values()] == ["val/stft"] * 2
    assert "depends on the other player" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as leaving:
        main(["find-lr", "--config", str(config), *QUICK, "--metric", "val/nonsense"])
    assert leaving.value.code == 2
    assert "metric 'val/nonsense' is not logged by validation_step, which logs " in capsys.readouterr().err


def test_a_grid(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optimizer", "grid", "--grid_size", "2", "--num_training", "2", "--min_lr", "1e-4", "--max_lr", "1e-2"]
    main(["find-lr", "--config", str(config), *options, "--trainer.logger", "false",
          "--trainer.default_root_dir", str(config.parent / "here")])  # fmt: skip
    folder = config.parent / "here"
    assert sorted(path.name for path in folder.iterdir()) == ["lr_find.csv", "lr_find.json", "lr_find.png"]
    record = json.loads((folder / "lr_find.json").read_text())
    assert record["found"]["model.generator_lr"] in (1e-4, 1e-2)
    assert f"--model.generator_lr {record['found']['model.generator_lr']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--write", "small.yaml"], "--write small.yaml: there is such a file"),
        (["--optimizer", "adam"], "optimizer"),
        (["--min_lr", "1", "--max_lr", "0.1"], "0 < min_lr < max_lr, got 1.0 and 0.1"),
        (["--cyclical", "true", "--optimizer", "joint"], "--cyclical needs a curve for each player"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--monitor", "generator/nonsense", "--num_training", "2"], "'generator/nonsense' is not logged; name one of"),
    ],
)
def test_mistakes_are_told_in_a_line(
    options: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    with pytest.raises(SystemExit) as leaving:
        main(["find-lr", "--config", str(config), *options])
    assert leaving.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("univnet: error")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (config.parent / "runs").exists()


def test_help_describes_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["find-lr", "--help"])
    out = capsys.readouterr().out
    assert "usage: univnet find-lr" in out
    assert "whose rate is swept" in out
    assert "--model.generator_lr" in out


def test_ctrl_c_ends_it_without_a_traceback(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("univnet.module.UnivNet.generate", interrupted)
    with pytest.raises(SystemExit) as leaving:
        main(["find-lr", "--config", str(config), *QUICK])
    assert leaving.value.code == 130
    assert not (config.parent / "runs").exists()
