import warnings
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from univnet.data.loader import EpochSampler, ResumableDataLoader


class Numbers(Dataset):
    """Item i is i; remembers what was read (in the main process)."""

    def __init__(self, length=11):
        self.length = length
        self.read = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.read.append(index)
        return index


def make_loader(workers=0, draws=True, **options):
    dataset = Numbers()
    sampler = EpochSampler(dataset, draws=draws)
    persistent = options.pop("persistent_workers", workers > 0)
    return ResumableDataLoader(dataset, 3, sampler, num_workers=workers, persistent_workers=persistent, **options)


def ids(batches):
    return [batch.tolist() for batch in batches]


def flat(batches):
    return [item for batch in batches for item in batch]


def test_sampler_order():
    sampler = EpochSampler(Numbers(), draws=True)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(epochs[-1]) == list(range(11 * epoch, 11 * (epoch + 1)))
    assert epochs[1] != [draw + 11 for draw in epochs[0]]
    sampler.set_epoch(0)
    assert list(sampler) == epochs[0]
    assert list(EpochSampler(Numbers(), seed=1, draws=True)) != epochs[0]
    assert list(EpochSampler(Numbers(), shuffle=False)) == list(range(11))


def test_ranks_share_an_epoch():
    whole = list(EpochSampler(Numbers()))
    parts = [EpochSampler(Numbers(), 2, rank, drop_last=True) for rank in range(2)]
    assert [len(part) for part in parts] == [5, 5]
    assert not set(parts[0]) & set(parts[1])
    assert [draw for pair in zip(*parts, strict=True) for draw in pair] == whole[:10]
    padded = [list(EpochSampler(Numbers(), 2, rank)) for rank in range(2)]
    assert [len(part) for part in padded] == [6, 6]
    assert set(padded[0]) | set(padded[1]) == set(range(11))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_follow_one_another(workers, persistent):
    loader = make_loader(workers, persistent_workers=persistent and workers > 0)
    assert len(loader) == 4
    first, second = ids(loader), ids(loader)
    assert sorted(flat(first)) == list(range(11))
    assert sorted(flat(second)) == list(range(11, 22))
    loader.sampler.set_epoch(0)
    assert ids(loader) == first


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", range(9))
def test_resuming_goes_on_without_reading_what_was(workers, batches):
    uninterrupted = make_loader()
    expected = ids(uninterrupted) + ids(uninterrupted)
    loader, got = make_loader(workers), []
    state = loader.state_dict()
    while len(got) < batches:
        for batch in loader:  # the state is taken while workers have prefetched more
            got.append(batch.tolist())
            state = loader.state_dict()
            if len(got) == batches:
                break
    resumed = make_loader(workers)
    resumed.load_state_dict(state)
    if batches % 4:
        assert resumed.state_dict() == state
    rest = []
    while len(got) + len(rest) < 8:
        rest += ids(resumed)
        assert len(resumed) == 4
    assert got + rest == expected
    if workers == 0:
        assert resumed.dataset.read == flat(rest)


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_global_generator_is_left_alone(workers):
    loader = make_loader(workers)
    before = torch.get_rng_state()
    ids(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_batch_sizes_and_samplers():
    loader = ResumableDataLoader(Numbers(), None, shuffle=True)
    iterator = iter(loader)
    got = [next(iterator) for _ in range(4)]
    resumed = ResumableDataLoader(Numbers(), None, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    assert got + list(resumed) == list(EpochSampler(Numbers()))
    plain = ResumableDataLoader(Numbers(), 3, torch.utils.data.SequentialSampler(Numbers()))
    plain.load_state_dict({"epoch": 0, "position": 2})
    assert flat(ids(plain)) == list(range(11))
    with pytest.raises(ValueError, match="batch_sampler"):
        ResumableDataLoader(Numbers(), batch_sampler=[[0]])


class Recorder(LightningModule):
    """Notes the ids of the batches it trains on, and the epoch that it believes in."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.tolist()))
        return self.weight.sum() * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class KilledError(Exception):
    pass


class SaveAndKill(Callback):
    def __init__(self, path: Path, hook: str, batches: int):
        self.path, self.hook, self.batches = path, hook, batches

    def _kill(self, trainer, module, hook):
        if hook == self.hook and not trainer.sanity_checking and len(module.seen) == self.batches:
            trainer.save_checkpoint(self.path)
            raise KilledError

    def on_train_batch_end(self, trainer, module, *args):
        self._kill(trainer, module, "on_train_batch_end")

    def on_validation_end(self, trainer, module):
        self._kill(trainer, module, "on_validation_end")

    def on_train_epoch_end(self, trainer, module):
        self._kill(trainer, module, "on_train_epoch_end")


def fit(path, workers=0, kill=None, checkpoint=None, loader=None, **options):
    module = Recorder()
    trainer = Trainer(
        default_root_dir=path,
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[kill] if kill else [],
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable.*")
        warnings.filterwarnings("ignore")
        try:
            trainer.fit(module, loader or make_loader(workers), DataLoader(Numbers(2)), ckpt_path=checkpoint)
        except KilledError:
            assert kill
            trainer.fit_loop.teardown()  # Lightning tears down the active loop alone: here, maybe validation's
        else:
            assert kill is None
    return module.seen


PLACES = [("on_train_batch_end", n) for n in range(1, 9)]
PLACES += [(hook, n) for hook in ("on_validation_end", "on_train_epoch_end") for n in (4, 8)]


@pytest.mark.parametrize(("hook", "batches"), PLACES)
@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_resumes_at_the_very_batch(tmp_path, workers, hook, batches):
    expected = fit(tmp_path)
    assert [entry[:2] for entry in expected] == [(epoch, batch) for epoch in range(3) for batch in range(4)]
    path = tmp_path / "a.ckpt"
    seen = fit(tmp_path, workers, kill=SaveAndKill(path, hook, batches))
    assert seen == expected[:batches]
    assert seen + fit(tmp_path, workers, checkpoint=path) == expected


@pytest.mark.parametrize("options", [{"limit_train_batches": 3}, {"val_check_interval": 2}])
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"])
def test_lightning_resumes_with_fewer_batches_or_validation_inside(tmp_path, options, hook):
    expected = fit(tmp_path, **options)
    for batches in range(1, len(expected)):
        path = tmp_path / f"{batches}.ckpt"
        try:
            seen = fit(tmp_path, kill=SaveAndKill(path, hook, batches), **options)
        except AssertionError:  # there is no such place
            continue
        assert seen + fit(tmp_path, checkpoint=path, **options) == expected


def test_overfitting_keeps_to_the_same_batches(tmp_path):
    seen = fit(tmp_path, overfit_batches=2)
    assert [entry[2] for entry in seen] == [[0, 1, 2], [3, 4, 5]] * 3
