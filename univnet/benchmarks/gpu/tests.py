"""Part (a): the tests for a GPU, in ``tests/gpu``."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from univnet.benchmarks.gpu.report import ROOT
from univnet.benchmarks.gpu.scale import Row, Scale


def rows(scale: Scale) -> Iterator[Row]:
    """Run them, those marked ``gpu`` on a GPU; yield how many passed, and each that failed."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "junit.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={found}"]
        command += ["-m", "gpu" if scale.cuda else "not gpu and not slow", str(ROOT / "tests/gpu" / scale.tests)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not found.is_file():
            yield {"case": "pytest", "error": " ".join((ran.stdout + ran.stderr).split())[-500:]}
            return
        cases = list(ElementTree.parse(found).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    passed = len(cases) - len(bad) - len(skipped)
    yield {"case": "all", "passed": passed, "failed": len(bad), "skipped": len(skipped), "right": passed > 0}
    for case in bad:
        [told] = [each for each in case if each.tag in ("failure", "error")][:1]
        yield {"case": f"{case.get('classname')}.{case.get('name')}", "error": (told.get("message") or "")[:300]}
