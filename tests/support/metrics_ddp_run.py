"""Validate on two gloo ranks, for test_validation_metrics.py: ``python metrics_ddp_run.py FOLDER``."""

import json
import sys
from pathlib import Path

from support.validating import validate

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trainer, logged = validate(folder, accelerator="cpu", devices=2, strategy="ddp")
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(logged))
