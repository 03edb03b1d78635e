"""Updates per second beside other processes that compute, by how threads wait: ``python docs/busy.py [--rounds 3]``.

Each measurement is a process of its own, because OpenMP reads its settings once: it makes a second of updates of the
demo's size, then counts those of some seconds. Settings take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

DEFAULT = "default"  # torch's own
SETTINGS = [DEFAULT, "OMP_WAIT_POLICY=passive", "GOMP_SPINCOUNT=2000", "OMP_NUM_THREADS=1"]

# Computes until the process that has started it ends.
OTHER = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100000))"


def updates_per_second(seconds: float) -> float:
    """Train a model of the demo's size with the discriminator; return updates per second, of this process alone."""
    import torch

    from univnet import Generator, UnivNet
    from univnet.benchmarks.contests import our_step
    from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator
    from univnet.runtime import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    generator = Generator(100, channels=16, noise_channels=32, predictor_channels=32, predictor_blocks=2)
    mpd = MultiPeriodDiscriminator([2, 3, 5], [16, 32, 64, 128, 128])
    module = UnivNet(generator, Discriminator(MultiResolutionSpectrogramDiscriminator(channels=8), mpd))
    optimizers = tuple(each["optimizer"] for each in module.configure_optimizers())
    batch = {"audio": 0.1 * torch.randn(8, 1, 8192), "mel": torch.randn(8, 100, 32)}
    done, start, until = 0, 0.0, time.perf_counter() + 1
    while (now := time.perf_counter()) < until or not start:
        if now >= until:
            done, start, until = 0, now, now + seconds
        our_step(module, batch, optimizers)
        done += 1
    return done / (time.perf_counter() - start)


def measured(settings: dict[str, str], seconds: float) -> float:
    """Return ``updates_per_second`` of a process with these environment variables."""
    command = [sys.executable, __file__, "--child", str(seconds)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return float(subprocess.run(command, env=kept | settings, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure every setting beside each number of others, in turn, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--settings", nargs="+", default=SETTINGS, metavar="NAME=VALUE", help="the first is compared with"
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--others", nargs="+", type=int, default=[0, cores], help=f"processes (default: 0 {cores})")
    parser.add_argument("--child", type=float)
    options = parser.parse_args()
    if options.child:
        print(updates_per_second(options.child))
        return
    cases = [(name, others) for others in options.others for name in options.settings]
    found: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for name, others in cases:
            busy = [subprocess.Popen([sys.executable, "-c", OTHER]) for _ in range(others)]
            try:
                found[name, others].append(
                    measured(dict([name.split("=")]) if name != DEFAULT else {}, options.seconds)
                )
            finally:
                for other in busy:
                    other.kill()
                    other.wait()
            print(f"{name:24} beside {others} others: {found[name, others][-1]:6.3f} updates/s", flush=True)
    first = statistics.median(found[cases[0]])
    for case in cases:
        middle = statistics.median(found[case])
        print(
            f"median {case[0]:24} beside {case[1]} others: {middle:6.3f} updates/s, {middle / first:.2f} of the first"
        )


if __name__ == "__main__":
    main()
