"""A name that there is not is answered with the nearest that there is, and with where to read."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["find-lrr"], "demo (did you mean find-lr?); see `univnet --help`"),
        (["sythesize"], "demo (did you mean synthesize?); see `univnet --help`"),
        (["quixotic"], "demo; see `univnet --help`"),
        (
            ["fit", "--data.batchsize", "3"],
            "--data.batchsize 3 (did you mean --data.batch_size?); see `univnet fit --help`",
        ),
        (
            ["fit", "--data.batchsize=3"],
            "--data.batchsize=3 (did you mean --data.batch_size?); see `univnet fit --help`",
        ),
        (["find-lr", "--min-rl", "3"], "--min-rl 3 (did you mean --min_lr?); see `univnet find-lr --help`"),
        (
            ["prepare", "a", "--output", "b", "--sampl", "3", "--quite"],
            "--quite (did you mean --quiet?); see `univnet prep",
        ),
        (
            ["synthesize", "a.wav", "--checkpiont", "b.ckpt"],  # before what is missing is named
            "unrecognized arguments: --checkpiont (did you mean --checkpoint?); see `univnet synthesize --help`",
        ),
        (
            ["fit", "--model.generator.init_args.chanels", "3"],
            "model.generator: Option 'chanels' is not accepted; see `univnet fit --model.generator.help CLASS`",
        ),
    ],
)
def test_unknown_names(argv: list[str], told: str, refused: Callable[..., str]) -> None:
    assert told in refused(*argv)


def test_unknown_keys_in_a_configuration(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model:\n  generator_rl: 1\n")
    told = refused("fit", "--config", tmp_path / "a.yaml")
    assert "'model.generator_rl' (did you mean model.generator_lr?); see `univnet fit --help`" in told


def test_an_abbreviation_of_many_names_few_of_them(refused: Callable[..., str]) -> None:
    told = refused("fit", "--model.gen", "1")
    assert "ambiguous option: --model.gen could match --model.generator, " in told
    assert told.endswith("…; see `univnet fit --help`")
    assert len(told) < 300
