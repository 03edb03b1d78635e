"""Updates per second on an idle and a busy machine, by how threads wait: ``python docs/busy.py [--rounds 3]``.

Each measurement is a process of its own, because OpenMP reads its settings once: it makes a second of updates of the
demo's size, then counts those of some seconds. Settings take turns. Busy means one process per core that computes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS = {
    "torch's own": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


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
    """Measure every setting idle and busy, in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--child", type=float)
    options = parser.parse_args()
    if options.child:
        print(updates_per_second(options.child))
        return
    found: dict[tuple[str, bool], list[float]] = {(name, busy): [] for name in SETTINGS for busy in (False, True)}
    for _ in range(options.rounds):
        for name, busy in found:
            count = (os.cpu_count() or 1) * busy
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            try:
                found[name, busy].append(measured(SETTINGS[name], options.seconds))
            finally:
                for other in others:
                    other.kill()
                    other.wait()
            print(f"{name:24} {'busy' if busy else 'idle'} {found[name, busy][-1]:6.3f} updates/s", flush=True)
    own = statistics.median(found["torch's own", False])
    for name, busy in found:
        middle = statistics.median(found[name, busy])
        print(
            f"median {name:24} {'busy' if busy else 'idle'} {middle:6.3f} updates/s, "
            f"{middle / own:.2f} of torch's own on an idle machine"
        )


if __name__ == "__main__":
    main()
