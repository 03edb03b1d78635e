"""What training logs of both players, at the generator's updates."""

from collections.abc import Mapping

from lightning.pytorch import LightningModule

from univnet.gan.updates import Player


def log_updates(module: LightningModule, players: Mapping[str, Player]) -> None:
    """Log all players after a generator update: their last windows to callbacks and the bar, a row to the loggers.

    A row is logged every ``log_every_n_steps`` updates, at the update's number; its terms are means since the last row.
    """
    trainer = module.trainer
    bar = trainer.progress_bar_callback is not None  # Lightning reads what the bar shows at every update
    for player in players.values():
        for name, value in player.metrics().items():
            module.log(name, value, prog_bar=bar and name in _ON_THE_BAR, logger=False)
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every and module.global_step % every < players["generator"].settings.repeat:
        rows = {name: value for player in players.values() for name, value in player.row().items()}
        _write(module, rows | {"epoch": module.current_epoch}, module.global_step)
        for player in players.values():
            player.check_weights()


def log_alone(module: LightningModule, player: Player) -> None:
    """Log ``player`` after an update of it while the generator rests, at ``player``'s updates: ``warmup/loss``, …"""
    every = module.trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every and player.steps % every == 0:
        row = {f"warmup/{name.partition('/')[2]}": value for name, value in player.row().items()}
        _write(module, row, player.steps)


def _write(module: LightningModule, row: Mapping[str, float], step: int) -> None:
    for logger in module.trainer.loggers:
        logger.log_metrics(dict(row), step=step)
        logger.save()


_ON_THE_BAR = ("generator/loss", "discriminator/loss")
