"""``univnet find-batch-size`` as its users meet it."""

import json
from pathlib import Path

import pytest
import yaml
from support.small import write_config

from univnet.cli import main
from univnet.gan import BatchSizeSearch, Tuner
from univnet.gan.tuner import forked


@pytest.fixture
def config(tmp_path: Path, demo: Path) -> Path:
    return write_config(tmp_path, 10, demo)


def test_it_prints_a_table_and_writes_a_config_that_trains(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, folder = config.parent / "configs" / "mine.yaml", config.parent / "runs" / "small" / "version_0"
    options = ["--mode", "throughput", "--init_val", "3", "--target-batch", "8", "--margin", "0", "--write", str(mine)]
    # The discriminator begins after the run's end, and takes part in the trials all the same.
    main(["find-batch-size", "--config", str(config), *options, "--model.discriminator_start", "9"])
    told = capsys.readouterr()
    assert "rested" not in told.err

    record = json.loads((folder / "batch_size.json").read_text())
    assert [each["size"] for each in record["trials"]] == [3, 6, 8]  # 8 of the 10 recordings train
    assert record["effective_batch"] == 8
    assert sorted(path.name for path in folder.iterdir()) == ["batch_size.json", "batch_size.png"]
    assert (folder / "batch_size.png").read_bytes()[:4] == b"\x89PNG"

    size, k = record["size"], record["accumulate"]
    assert size * k == 8
    table, paste = told.out.split("To train with it, add: ")
    assert [row.split()[0] for row in table.splitlines() if " fits  " in row] == ["3", "6", "8"]
    assert paste.splitlines()[0] == (
        f"--data.batch_size {size} --model.generator_updates.accumulate {k} "
        f"--model.discriminator_updates.accumulate {k}"
    )

    written = yaml.safe_load(mine.read_text())
    assert written["data"]["batch_size"] == size
    assert written["model"]["generator_updates"]["accumulate"] == k
    assert not {"mode", "init_val", "memory_budget", "write"} & written.keys()
    main(["fit", "--config", str(mine), "--trainer.max_steps", "1", "--trainer.logger", "false"])


def test_a_budget_too_small_is_told_in_a_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for budget, complaint in (
        ("1MiB", "raise the budget"),
        ("much", "expected a number of bytes, such as 3GiB or 500MB"),
    ):
        with pytest.raises(SystemExit):
            main(["find-batch-size", "--config", str(config), f"--memory-budget={budget}"])
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("univnet: error: ")
        assert error.endswith(complaint)


def test_nothing_fits(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise forked.OutOfBudgetError("no room")

    monkeypatch.setattr(forked, "run_in_child", full)
    with pytest.raises(SystemExit):
        main(["find-batch-size", "--config", str(config)])
    assert "even batch_size=1 does not fit into memory: no room" in capsys.readouterr().err


def test_every_option_out_of_range_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--init_val", "0", "--margin", "1", "--memory-budget", "lots", "--target-batch", "0"]
    with pytest.raises(SystemExit) as ended:
        main(["find-batch-size", "--config", str(config), *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    for name in ("`init_val` must be at least 1", "`margin` must", "`memory_budget` is lots", "`target_batch`"):
        assert name in error


def test_a_file_that_appears_during_the_search_is_not_written_over(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = config.parent / "mine.yaml"

    def meanwhile(self: Tuner, *_: object, **__: object) -> int:
        mine.write_text("another's")
        self.batch_size_search = BatchSizeSearch(2, 2, "power", 0.0, ())
        return 2

    monkeypatch.setattr(Tuner, "scale_batch_size", meanwhile)
    with pytest.raises(SystemExit):
        main(["find-batch-size", "--config", str(config), "--write", str(mine)])
    assert "there is such a file; give another name" in capsys.readouterr().err
    assert mine.read_text() == "another's"
