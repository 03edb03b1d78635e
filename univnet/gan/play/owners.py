"""Whose networks, parameters and optimizers are whose."""

from collections.abc import Iterable, Mapping, Sequence

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer


def networks_of(module: nn.Module, player: str) -> dict[str, nn.Module]:
    """Return ``player``'s networks by their attributes' names.

    They are those that ``module.networks`` declares for it; without a declaration, the attribute of the player's name,
    if there is one.

    Raises:
        MisconfigurationException: a declared one does not exist.
    """
    declared = getattr(module, "networks", {}).get(player)
    if declared is None:
        own = getattr(module, player, None)
        return {player: own} if isinstance(own, nn.Module) else {}
    found = {}
    for name in [declared] if isinstance(declared, str) else declared:
        try:
            found[name] = module.get_submodule(name)
        except AttributeError:
            raise MisconfigurationException(
                f"{type(module).__name__}.networks names {name!r} for the {player}, but there is no such network"
            ) from None
    return found


def network_of(module: nn.Module, player: str) -> nn.Module | None:
    """Return ``player``'s network; of several, a module that holds them by their names; ``None`` without any."""
    networks = networks_of(module, player)
    if len(networks) < 2:
        return next(iter(networks.values()), None)
    return nn.ModuleDict({name.replace(".", "_"): network for name, network in networks.items()})


def optimizers_of(
    module: nn.Module, players: Iterable[str], optimizers: Sequence[Optimizer]
) -> dict[str, list[Optimizer]]:
    """Return each player's optimizers, told apart by the networks whose parameters they hold.

    Where no network of the players holds any of their parameters, their order decides: the generator's first.

    Raises:
        MisconfigurationException: a player has none, or a parameter belongs to both players or to two optimizers.
    """
    players, kind = list(players), type(module).__name__
    owner = _owners(module, players)
    names = {id(p): name for name, p in module.named_parameters()}
    found: dict[str, list[Optimizer]] = {player: [] for player in players}
    unknown, held = [], set()
    for optimizer in optimizers:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if twice := [p for p in parameters if id(p) in held]:
            raise MisconfigurationException(
                f"{kind}.configure_optimizers gives {names.get(id(twice[0]), 'a parameter')} to two optimizers: each "
                "parameter has one"
            )
        held |= {id(p) for p in parameters}
        whose = {owner[id(p)] for p in parameters if id(p) in owner}
        if len(whose) > 1:
            first = {player: next(names[id(p)] for p in parameters if owner.get(id(p)) == player) for player in players}
            raise MisconfigurationException(
                f"{kind}.configure_optimizers gives parameters of both players to one optimizer "
                f"({' and '.join(first.values())}): make one for each player, or declare {kind}.networks"
            )
        if whose:
            found[whose.pop()].append(optimizer)
        else:
            unknown.append(optimizer)
    without = [player for player in players if not found[player]]
    if len(unknown) == len(without):
        for player, optimizer in zip(without, unknown, strict=True):
            found[player].append(optimizer)
    elif unknown or without:
        raise MisconfigurationException(
            f"{kind}.configure_optimizers must return two optimizers: the generator's, then the discriminator's; it "
            f"returned {len(optimizers)}. Several for one player are told apart by {kind}.networks, such as "
            "{'generator': ['encoder', 'decoder'], 'discriminator': ['critic']}"
        )
    return found


def _owners(module: nn.Module, players: Sequence[str]) -> Mapping[int, str]:
    """Return the player that each parameter belongs to, by the parameter's ``id``."""
    owner: dict[int, str] = {}
    for player in players:
        for network, each in networks_of(module, player).items():
            for name, parameter in each.named_parameters(network):
                if owner.setdefault(id(parameter), player) != player:
                    raise MisconfigurationException(
                        f"{type(module).__name__}: {name} belongs to both players: each parameter is one player's"
                    )
    return owner
