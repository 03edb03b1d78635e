"""What a module logs is logged under other names meanwhile."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from support.toy import ToyGAN, quiet_trainer, toy_loader

from univnet.gan.play.logging import renamed_log


def test_everything_is_logged_under_the_other_name_and_then_under_its_own(tmp_path: Path) -> None:
    class Renames(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            with renamed_log(pl_module, lambda name: f"other/{name}"):
                pl_module.log_dict({"a": 1.0})
            pl_module.log("b", 2.0)

    fitting = quiet_trainer(tmp_path, max_epochs=1, callbacks=[Renames()])
    fitting.fit(ToyGAN(), toy_loader(1))
    assert {"other/a", "b"} <= fitting.callback_metrics.keys()
    assert "a" not in fitting.callback_metrics
