"""The order of play: who has a turn on a micro-batch, on which fakes, and when updates follow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from univnet.gan.updates import Player

Order = Literal["simultaneous", "generator_first", "discriminator_first"]


@dataclass(frozen=True)
class Turn:
    """One loss of one player.

    Attributes:
        player: whose turn it is.
        generates: the generator runs before it.
        with_gradient: these fakes reach the generator's loss.
        moves: what is full then updates.
    """

    player: Player
    generates: bool
    with_gradient: bool
    moves: bool


def turns_of(playing: Sequence[Player], order: Order, fresh_fakes: bool) -> Iterator[Turn]:
    """Yield the turns of the players that play on a micro-batch, generator first in ``playing``.

    Args:
        playing: the players, without those that rest.
        order: simultaneous players move after the last turn, others after each.
        fresh_fakes: the generator runs again for the second player.
    """
    in_order = reversed(playing) if order == "discriminator_first" else playing
    players = [player for player in in_order for _ in range(player.settings.repeat)]
    for place, player in enumerate(players):
        following = players[place + 1 :][:1]
        reused = not fresh_fakes and player not in following  # by the following player
        users = [player, *following] if reused else [player]
        yield Turn(
            player,
            generates=place == 0 or fresh_fakes or player is players[place - 1],
            with_gradient=any(user.name == "generator" for user in users),
            moves=not following or order != "simultaneous",
        )
