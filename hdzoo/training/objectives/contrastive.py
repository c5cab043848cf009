"""Contrastive divergence: an energy from its own samples, which a replay buffer keeps."""

from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo.checks import COUNT, NOT_NEGATIVE, POSITIVE, Maybe, Number, checked
from hdzoo.errors import HDZooError
from hdzoo.training.objectives.base import Network, Objective
from hdzoo.training.objectives.derivatives import Score
from hdzoo.training.setup import network_ladder


class ContrastiveDivergence(Objective):
    r"""`contrastive_divergence` of a network with an energy, at its one noise level.

    Its samples are `short_run`s. All but a few start from samples of earlier steps, in the buffer;
    the few from uniform noise. That is persistent contrastive divergence with restarts.

    The numbers are published for :math:`f = T E`, with the network's ``temperature`` :math:`T` (1
    where it has none), and so is the scale of the loss: images are in [-1, 1], Adam's rate is 1e-4
    and gradients are clipped to 0.1.

    Source: Tieleman (2008), the buffer; Du and Mordatch (arXiv 1903.08689), the restarts; Lippe,
    UvA deep learning tutorial 8 (2020), the numbers.

    Args:
        buffer_size: samples that are kept, the latest ones.
        fresh_fraction: the probability that a sample starts from uniform noise.
        num_langevin_steps: steps of each run.
        step_size: :math:`\alpha` of its steps; :math:`\sigma^2 / 2` by default, for noise of
            standard deviation :math:`\sigma`.
        largest_move: each pixel's drift in a step is clipped to it, in the units of
            ``data_range``.
        regularization: :math:`\lambda`.
    """

    @checked(
        buffer_size=COUNT,
        fresh_fraction=Number(0, 1),
        num_langevin_steps=COUNT,
        step_size=Maybe(POSITIVE),
        largest_move=POSITIVE,
        regularization=NOT_NEGATIVE,
    )
    def __init__(
        self,
        buffer_size: int = 8192,
        fresh_fraction: float = 0.05,
        num_langevin_steps: int = 60,
        step_size: float | None = None,
        largest_move: float = 0.3,
        regularization: float = 0.1,
    ) -> None:
        self.buffer_size = buffer_size
        self.fresh_fraction = fresh_fraction
        self.num_langevin_steps = num_langevin_steps
        self.step_size = step_size
        self.largest_move = largest_move
        self.regularization = regularization
        self.buffer: torch.Tensor | None = None

    def check(self, network: ModelMixin, config: Any) -> None:
        name = type(network).__name__
        if "energy" not in getattr(network, "provides", ()):
            raise HDZooError(
                f"contrastive divergence trains an energy, and {name} gives none; take the model "
                "'conv-energy', or another objective"
            )
        ladder = network_ladder(network)
        if ladder[0] != ladder[-1]:
            raise HDZooError(
                f"contrastive divergence trains an energy at one noise level, and {name} has those "
                f"from {ladder[-1]:g} to {ladder[0]:g}; take the model 'conv-energy', or the "
                "objective 'denoising'"
            )
        if config.loss_weighting != "song-ermon":
            raise HDZooError(
                f"loss_weighting is {config.loss_weighting!r}, and contrastive divergence has one "
                "noise level, with nothing to weigh; leave it out"
            )

    def draw(self, network: Network, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.randn_like(images), self.negatives(network, images)

    def negatives(self, network: Network, images: torch.Tensor) -> torch.Tensor:
        """Samples of the network as it is, which go into the buffer.

        Args:
            network: of the run.
            images: of their shape and as many.
        """
        low, high = network.network.config.data_range
        if self.buffer is None:
            self.buffer = low + (high - low) * torch.rand_like(images)
        kept = self.buffer.to(images)
        fresh = torch.rand(len(images), 1, 1, 1, device=images.device) < self.fresh_fraction
        old = kept[torch.randint(len(kept), (len(images),), device=images.device)]
        start = torch.where(fresh, low + (high - low) * torch.rand_like(images), old)
        sigma = network.ladder[-1]
        # Without dropout.
        network.network.eval()
        samples = short_run(
            lambda x: network.network(x, sigma, return_dict=False)[0],
            start,
            self.num_langevin_steps,
            float(sigma) ** 2 / 2 if self.step_size is None else self.step_size,
            self.largest_move,
            (low, high),
        )
        network.network.train()
        self.buffer = torch.cat([samples, kept])[: self.buffer_size]
        return samples

    def loss(self, network: Network, images: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        noise, negatives = draws
        sigma, config = network.ladder[-1], network.network.config
        positives = (images + sigma * noise).clamp(*config.data_range)
        both = torch.cat([positives, negatives])
        energy = network(both, sigma, return_dict=False, extras=("energy",))[1]
        real, fake = (config.get("temperature", 1.0) * energy).chunk(2)
        return contrastive_divergence(real, fake, self.regularization).mean()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {} if self.buffer is None else {"buffer": self.buffer}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.buffer = state["buffer"]


def contrastive_divergence(
    real: torch.Tensor, fake: torch.Tensor, regularization: float
) -> torch.Tensor:
    r"""Contrastive divergence of an energy :math:`f`, of each pair of a datum and a sample.

    .. math:: f(x^+) - f(x^-) + \lambda (f(x^+)^2 + f(x^-)^2)

    Where the samples are of :math:`e^{-f}`, the gradient of the first two terms is that of
    :math:`-\log p(x^+)`, in the mean (Hinton 2002, "Training products of experts by minimizing
    contrastive divergence"). The last one keeps the energies near 0.

    Args:
        real: the energies :math:`f(x^+)` of data, shape (batch,).
        fake: the energies :math:`f(x^-)` of samples, shape (batch,).
        regularization: :math:`\lambda`.

    Returns:
        Shape (batch,).
    """
    return real - fake + regularization * (real.square() + fake.square())


@torch.no_grad()
def short_run(
    score: Score,
    start: torch.Tensor,
    num_steps: int,
    step_size: float,
    largest_move: float,
    data_range: tuple[float, float],
) -> torch.Tensor:
    r"""A run of Langevin steps, too short to forget where it starts, that stays in a box.

    .. math:: y = [x + \sqrt{2 \alpha} z], \quad x \leftarrow [y + [\alpha s(y)]_{\pm m}]

    where brackets clip, to the box or to ``largest_move``. With these it has no law that it leaves
    as it is: it is a generator that the energy is trained with (Nijkamp et al., arXiv 1904.09770).

    Args:
        score: as a function of the samples.
        start: where it starts, shape (batch, ...).
        num_steps: evaluations of the score.
        step_size: :math:`\alpha`.
        largest_move: :math:`m`.
        data_range: the sides of the box.

    Returns:
        The last state.
    """
    state = start
    for _ in range(num_steps):
        noisy = state + (2 * step_size) ** 0.5 * torch.randn_like(state)
        noisy = noisy.clamp(*data_range)
        move = (step_size * score(noisy)).clamp(-largest_move, largest_move)
        state = (noisy + move).clamp(*data_range)
    return state
