"""What a GPU is wanted for needs torch and Lightning: neither soundfile nor librosa nor a command line's parser."""

import subprocess
import sys

from support import PROGRAMS, ROOT


def test_the_package_and_the_tests_of_the_gpu_do_without_the_rest() -> None:
    command = [sys.executable, PROGRAMS / "bare.py", "--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    ran = subprocess.run([*command, "tests/gpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "test_devices_agree[cuda]" in ran.stdout
