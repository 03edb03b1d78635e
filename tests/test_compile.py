"""``compile=True``: what is trained, kept and measured is as without, and each batch size is compiled once."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from support.small import GENERATOR, MEL, small_univnet
from support.toy import quiet_trainer
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from univnet import Generator, LogMelSpectrogram, UnivNet, Vocoder
from univnet.data import ResumableDataLoader
from univnet.gan import ExponentialMovingAverage, LRRangeTest, Tuner
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator
from univnet.runtime import compile_networks


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Compile as if for the first time, and leave torch's settings as they were."""
    import torch._dynamo.config as dynamo
    import torch._functorch.config as autograd

    torch._dynamo.reset()
    counters.clear()
    kept = {"recompile_limit": dynamo.recompile_limit}, {"donated_buffer": autograd.donated_buffer}
    with dynamo.patch(kept[0]), autograd.patch(kept[1]):
        yield


@pytest.fixture
def piece(speech: np.ndarray) -> Callable[..., Any]:
    """`piece(frames, batch)` is a batch of real speech."""

    def make(frames: int, batch: int = 1) -> dict[str, torch.Tensor]:
        audio = torch.from_numpy(speech[8000 : 8000 + batch * frames * 256]).reshape(batch, 1, -1)
        return {"audio": audio, "mel": LogMelSpectrogram(**MEL)(audio)}

    return make


def tiny(compiled: bool) -> UnivNet:
    """One block in place of three, and two sub-discriminators."""
    torch.manual_seed(0)
    mrd = MultiResolutionSpectrogramDiscriminator([[256, 64, 128]], 2)
    judges = Discriminator(mrd, MultiPeriodDiscriminator([3], [4, 8]))
    generator = Generator(**GENERATOR | {"strides": [256], "dilations": [1]})
    return UnivNet(generator, judges, LogMelSpectrogram(**MEL), compile=compiled)


class Watch(Callback):
    """Keeps both players' losses and norms and the graphs compiled, at each micro-batch; saves after the second."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.graphs = path, list[int]()
        self.losses, self.norms = list[list[float]](), list[list[float]]()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        for kept, name in ((self.losses, "loss"), (self.norms, "gradient_norm")):
            kept.append([float(player.report[name]) for player in pl_module.updates.values()])
        self.graphs.append(counters["stats"]["unique_graphs"])
        if self.path and trainer.global_step == 2:
            trainer.save_checkpoint(self.path)


def fit(module: UnivNet, training: list[Any], path: Path | None = None, **options: Any) -> tuple[Watch, Trainer]:
    """Train four micro-batches, validating after the second and the last on three lengths."""
    watch = Watch(path)
    callbacks = [watch, *options.pop("callbacks", [])]
    resume = {"ckpt_path": options.pop("ckpt_path", None), "weights_only": True}
    lengths = [training[0] | {k: v[:1, :, : -v.shape[2] // n] for k, v in training[0].items()} for n in (8, 4, 2)]
    how = {"max_steps": 4, "val_check_interval": 2, "num_sanity_val_steps": 0} | options
    trainer = quiet_trainer(callbacks=callbacks, **how)
    loaders = ResumableDataLoader(training, batch_size=None), DataLoader(lengths, batch_size=None)
    trainer.fit(module, *loaders, **resume)
    return watch, trainer


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: plain(*args, **options | {"backend": backend}))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["double", "single"])
def test_compiled_training_is_training(
    dtype: torch.dtype, rtol: float, piece: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(compiled: bool, path: Path | None = None, **options: Any) -> tuple[Watch, Trainer]:
        # Double from the first: Lightning loads a checkpoint's weights before it makes a module double.
        module = tiny(compiled).to(dtype)
        return fit(module, batches, path, precision="64-true" if dtype == torch.float64 else "32-true", **options)

    with_backend(monkeypatch, "eager")
    batches = [piece(16, 2)] * 4
    paths = {compiled: tmp_path / f"{compiled}.ckpt" for compiled in (False, True)}
    (plain, one), (compiled, other) = (train(c, path) for c, path in paths.items())
    assert compiled.graphs == [5] * 4  # the block, and each judge with reals and fakes; none for validation's lengths
    np.testing.assert_allclose(compiled.losses, plain.losses, rtol=rtol)
    np.testing.assert_allclose(compiled.norms[0], plain.norms[0], rtol=rtol)
    for name, value in one.callback_metrics.items():
        # The log-magnitude term's gradient is ill-conditioned where a bin is near silence: in single precision it
        # is percents away from the double's after three updates, by whichever kernels the processor gets.
        if dtype == torch.float64 or name != "generator/gradient_norm":
            assert float(other.callback_metrics[name]) == pytest.approx(float(value), rel=min(10 * rtol, 1e-3)), name
    module = other.lightning_module
    assert module.state_dict().keys() == one.lightning_module.state_dict().keys()
    assert any(part._compiled_call_impl for part in module.modules())
    assert not any(part._compiled_call_impl for part in copy.deepcopy(module).modules())

    for saved, goes_on in ((True, False), (False, True)):
        resumed, _ = train(goes_on, ckpt_path=paths[saved])
        np.testing.assert_allclose(resumed.losses, plain.losses[2:], rtol=rtol)
    assert Vocoder.from_checkpoint(paths[True])(batches[0]["mel"]).isfinite().all()


def test_a_missing_compiler_is_told_before_training(piece: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler .* no no-such-compiler: install it"):
        fit(tiny(True), [piece(16, 2)])


def test_what_a_gpu_compiles_with_is_told_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu, installed = torch.device("cuda"), [object()]
    monkeypatch.setattr("univnet.runtime.find_spec", lambda name: installed[0] if name == "triton" else None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ValueError, match=r"needs a C compiler on a GPU, and there is no gcc or clang: .* variable CC"):
        compile_networks([], gpu)
    (tmp_path / "my-cc").touch(mode=0o700)
    monkeypatch.setenv("CC", "my-cc")
    compile_networks([], gpu)
    compile_networks([], torch.device("mps"))
    installed[0] = None
    with pytest.raises(ValueError, match="needs the package triton on a GPU"):
        compile_networks([], gpu)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_generated_kernels_train_as_well(piece: Any, precision: str, tmp_path: Path) -> None:
    batches = [piece(8, 2)] * 4
    average = {
        False: ExponentialMovingAverage(0.5, validate_raw=True),
        True: ExponentialMovingAverage(0.5, validate_raw=True),
    }
    runs = {
        c: fit(small_univnet(compile=c), batches, tmp_path / f"{c}.ckpt", callbacks=[average[c]], precision=precision)
        for c in average
    }
    (plain, one), (compiled, other) = runs.values()
    assert compiled.graphs == [11] * 4
    tolerance = 1e-3 if precision == "32-true" else 0.05
    np.testing.assert_allclose(compiled.losses, plain.losses, rtol=tolerance)
    for name, value in one.callback_metrics.items():
        if name.startswith("val"):
            assert float(other.callback_metrics[name]) == pytest.approx(float(value), rel=tolerance), name
    resumed, _ = fit(small_univnet(), batches, ckpt_path=tmp_path / "True.ckpt", precision=precision)
    np.testing.assert_allclose(resumed.losses, plain.losses[2:], rtol=tolerance)
    if precision == "32-true":  # a copy for the range test, made after training
        module = small_univnet(compile=True)
        trainer = fit(module, batches)[1]
        loader = ResumableDataLoader(batches * 3, batch_size=None)
        found = Tuner(trainer).lr_find(module, loader, optimizer="generator", num_training=5, update_attr=False)
        assert isinstance(found, LRRangeTest)
        assert len(found.curves["generator"].lr) == 5
