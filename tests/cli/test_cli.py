"""The one entry of all verbs: which there are, and how mistakes are told."""

from collections.abc import Callable

import pytest

from univnet.cli import VERBS, main


class TestMistakesAreToldInOneLine:
    def test_no_verb_lists_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 2
        listed = capsys.readouterr().err
        assert {"fit", "validate", "synthesize"} <= VERBS.keys()
        assert all(f"\n  {verb} " in listed for verb in VERBS)
        assert len(listed.splitlines()) < 10
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out == listed

    def test_no_such_verb(self, refused: Callable[..., str]) -> None:
        assert refused("train").startswith("there is no verb 'train'; give one of fit, validate, find-lr, ")

    def test_a_traceback_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIVNET_TRACEBACK", "1")
        with pytest.raises(Exception, match="there is no verb"):
            main(["train"])

    def test_another_rank_says_who_it_is(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with pytest.raises(SystemExit):
            main(["train"])
        assert capsys.readouterr().err.startswith("univnet: rank 1: error: there is no verb")
