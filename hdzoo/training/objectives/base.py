"""What a training objective is, and what it sees of a run."""

import inspect
from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo import plugins
from hdzoo.checks import refuse
from hdzoo.errors import HDZooError
from hdzoo.scores.conversions import score_weights
from hdzoo.training.objectives.derivatives import Score
from hdzoo.training.objectives.levels import draw_sigmas, karras_weight, song_ermon_weight
from hdzoo.training.setup import has_own_ladder, network_ladder, prediction_type


class Network:
    """The network of a run, as an objective sees it.

    It is called as the network is.

    Attributes:
        network: the network itself, with its config.
        config: the options of the run, a `hdzoo.training.config.TrainingConfig`.
        ladder: the noise levels of the network, descending: all of them, or the two ends of its
            range. On the device of the run.

    Args:
        network: that is trained.
        config: of the run.
        device: of the run.
    """

    def __init__(self, network: ModelMixin, config: Any, device: torch.device) -> None:
        self.network = network
        self.config = config
        self.ladder = torch.tensor(network_ladder(network), device=device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)

    def score_at(self, sigmas: torch.Tensor) -> Score:
        """The network's score, as a function of noisy samples.

        Args:
            sigmas: the noise level of each sample, shape (batch,).
        """
        a, b = score_weights(prediction_type(self.network), sigmas.view(-1, 1, 1, 1))

        def score(noisy: torch.Tensor) -> torch.Tensor:
            return a * self(noisy, sigmas, return_dict=False)[0] + b * noisy

        return score

    def draw_sigmas(self, number: int) -> torch.Tensor:
        """Noise levels of the run's ``sigma_distribution``, shape (number,)."""
        config = self.config
        return draw_sigmas(
            config.sigma_distribution,
            number,
            self.ladder,
            config.log_sigma_mean,
            config.log_sigma_std,
        )

    def weight(self, sigmas: torch.Tensor) -> torch.Tensor:
        """What each noise level weighs by the run's ``loss_weighting``, shape (number,)."""
        if self.config.loss_weighting == "karras":
            return karras_weight(sigmas, self.network.config.data_std)
        return song_ermon_weight(sigmas)


class Objective:
    """What a run makes small. A class of its own for each way to learn.

    A package brings one by the hook ``hdzoo_objectives``; ``hdzoo train --objective NAME
    --objective-option KEY=VALUE`` then trains with it. Its options are the arguments of its
    ``__init__``, each with a default and of a type that JSON has; those that are not at their
    default belong to what makes a run the same run.

    The same run ends with the same weights, wherever it was stopped. So all randomness is torch's
    global generators', which are seeded for every step and process before `draw`; and what an
    objective remembers from one step to the next is in its `state_dict`.
    """

    def check(self, network: ModelMixin, config: Any) -> None:
        """Refuses a network or options that the objective cannot train, before anything is written.

        Args:
            network: that is to be trained.
            config: the options of the run, a `hdzoo.training.config.TrainingConfig`.

        Raises:
            HDZooError: it cannot.
        """

    def draw(self, network: Network, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Draws the random numbers of a step, for all images of this process.

        Images that are computed in parts (``gradient_accumulation_steps``) so have the same ones.

        Args:
            network: of the run.
            images: before they are mirrored, shape (batch, channels, height, width).

        Returns:
            Any number of tensors, with one entry for each image.
        """
        return ()

    def loss(self, network: Network, images: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        """The loss, which is differentiated by the weights.

        Args:
            network: of the run.
            images: some of those of the step, shape (batch, channels, height, width), in the
                network's ``data_range``.
            *draws: what `draw` has given for them.

        Returns:
            A scalar: the mean over the images, per dimension, so that ``max_grad_norm`` means the
            same at every image size.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is remembered from one step to the next. It is kept in checkpoints, a process's own
        for each process."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes up what `state_dict` has given, on the CPU.

        Args:
            state: what it was.

        Raises:
            KeyError, RuntimeError, ValueError: it does not fit.
        """


class NoisyObjective(Objective):
    """One on images with noise of the network's levels, each weighted by ``loss_weighting``."""

    def check(self, network: ModelMixin, config: Any) -> None:
        ladder = network_ladder(network)
        name, distribution = type(network).__name__, config.sigma_distribution
        if has_own_ladder(network) and distribution != "ladder":
            raise HDZooError(
                f"{name} knows only the {len(ladder)} noise levels of its ladder, and "
                f"sigma_distribution {distribution!r} draws others; use 'ladder'"
            )
        if not has_own_ladder(network) and distribution == "ladder":
            raise HDZooError(
                f"{name} has no ladder: it is trained for all noise levels from {ladder[-1]:g} to "
                f"{ladder[0]:g}; set sigma_distribution to 'log-uniform' or 'log-normal'"
            )
        if config.loss_weighting == "karras" and network.config.get("data_std") is None:
            raise HDZooError(
                f"loss_weighting 'karras' needs data_std in the network's config, and {name} has "
                "none; use 'song-ermon'"
            )

    def draw(self, network: Network, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sigmas = network.draw_sigmas(len(images))
        return torch.randn_like(images), sigmas

    def loss(self, network: Network, images: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        noise, sigmas, *others = draws
        losses = self.of_samples(network, images, noise, sigmas, *others)
        return (network.weight(sigmas) * losses).mean() / images[0].numel()

    def of_samples(
        self,
        network: Network,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of each image, shape (batch,), as a loss of its score.

        Args:
            network: of the run.
            clean: images, shape (batch, channels, height, width).
            noise: standard normal, same shape.
            sigmas: noise levels, shape (batch,).
            *others: what `draw` gives besides.
        """
        raise NotImplementedError


def build_objective(name: str, options: dict[str, Any]) -> Objective:
    """A registered objective.

    Args:
        name: its registered name.
        options: of its class.

    Raises:
        HDZooError: there is no such objective, or an option is unknown or does not fit.
    """
    if not isinstance(name, str):
        refuse("objective", name, "a registered name; `hdzoo plugins` lists them")
    if not isinstance(options, dict):
        refuse("objective_options", options, "a dict of options of the objective")
    kind = plugins.get("objectives", name)
    source = plugins.provider("objectives", name)
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise HDZooError(
            f"objective {name!r} of {source} is {kind!r}; it must be a class that derives from "
            "hdzoo.training.objectives.Objective"
        )
    known = option_defaults(kind)
    for option, default in known.items():
        if default is inspect.Parameter.empty:
            raise HDZooError(f"objective {name!r} of {source}: its option {option} has no default")
    strange = [str(option) for option in options if option not in known]
    if strange:
        raise HDZooError(
            f"objective {name!r} has no option {', '.join(strange)}; it has "
            + (", ".join(known) or "none")
        )
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise HDZooError(f"cannot build the objective {name!r} with {options}: {error}") from error


def option_defaults(kind: type[Objective]) -> dict[str, Any]:
    """The options of an objective, and their defaults."""
    return {name: one.default for name, one in inspect.signature(kind).parameters.items()}
