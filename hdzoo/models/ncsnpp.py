"""NCSN++: the score network of Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole (2021)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch

# diffusers' loader looks both mixins up in the module that a pipeline's index names.
from diffusers import ModelMixin as ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn
from torch.nn import functional as F

from hdzoo.checks import COUNT, POSITIVE, Flag, Many, Number, OneOf, Whole, as_float64, checked
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.models.inputs import LADDER_RULES, MAX_SIDE, images, noise_levels
from hdzoo.models.ncsnpp_layers import (
    AddPicture,
    AddResidual,
    Attention,
    Double,
    FourierEmbedding,
    Halve,
    ResidualBlock,
    ToPicture,
    conv,
    linear,
    positional_embedding,
)
from hdzoo.models.rungs import LadderModel, noise_ladder

RULES = LADDER_RULES | {
    "base_channels": Whole(4),
    "channel_multipliers": Many(COUNT, most=16),
    "num_res_blocks": Whole(1, 256),
    "attention_resolutions": Many(Whole(1, MAX_SIDE), 0, 16),
    "embedding": OneOf(("fourier", "positional")),
    "fourier_scale": POSITIVE,
    "fir_kernel": Many(Number(), 2, 16),
    "skip_rescale": Flag(),
    "progressive": OneOf(("none", "output_skip")),
    "progressive_input": OneOf(("none", "input_skip", "residual")),
    "scale_by_sigma": Flag(),
    "dropout": Number(low=0, below=1),
}


class Unit(nn.Module):
    """A residual block, and attention behind it or not."""

    def __init__(self, block: ResidualBlock, attention: Attention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features, (batch, ., H, W), to features of that size."""
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h)


class DownLevel(nn.Module):
    """The encoder at one resolution, and the way to the next."""

    def __init__(
        self,
        units: Sequence[Unit],
        halve: ResidualBlock | None,
        add: AddPicture | AddResidual | None,
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.halve = halve
        self.add = add


class UpLevel(nn.Module):
    """The decoder at one resolution, what it shows of the picture, and the way to the next."""

    def __init__(
        self, units: Sequence[Unit], show: ToPicture | None, enlarge: ResidualBlock | None
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.show = show
        self.enlarge = enlarge


class NCSNppModel(LadderModel):
    r"""NCSN++: a U-Net of BigGAN-type residual blocks for the variance-exploding process.

    .. math:: s(x, \sigma) = f(x, e(\sigma)) / \sigma

    The continuous variant knows every noise level from ``sigma_min`` to ``sigma_max`` by Fourier
    features of its logarithm (``embedding="fourier"``); the discrete one knows the rungs of a
    ladder by sines of their class indices (``"positional"``). Features are halved and doubled with
    a filter against aliasing. A picture may accompany them down (``progressive_input``) and up
    (``progressive``). A state dict as published loads after the renaming of `published_names`.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, "Score-Based Generative Modeling
    through Stochastic Differential Equations" (arXiv 2011.13456), section 4.3 and appendix H. The
    defaults are the continuous CIFAR-10 network; ``num_res_blocks=8`` is "deep". The networks for
    images of 256 pixels have channel_multipliers (1, 1, 2, 2, 2, 2, 2), num_res_blocks 2,
    ``"output_skip"`` and ``"input_skip"``.

    Args:
        sample_size: height and width in pixels, a multiple of
            ``2 ** (len(channel_multipliers) - 1)``. Samplers take it from here; the network runs
            at any such size, with attention on the same levels.
        in_channels: channels of the image.
        base_channels: channels at the full resolution, in units of ``channel_multipliers``.
        channel_multipliers: width of each level; each has half the resolution of the one before.
        num_res_blocks: residual blocks of each level on the way down; one more on the way up.
        attention_resolutions: heights in pixels of the levels that have attention after each block
            on the way down, and after the last one on the way up. In between there always is one.
        embedding: ``"fourier"`` or ``"positional"``.
        fourier_scale: standard deviation of the frequencies of ``"fourier"``.
        fir_kernel: taps of the filter, symmetric and of even number; (1, 1) for none.
        skip_rescale: whether sums with a shortcut are divided by the square root of 2.
        progressive: ``"none"``, or ``"output_skip"``: the output is summed over the resolutions.
        progressive_input: ``"none"``; ``"input_skip"``: the image enters at each resolution; or
            ``"residual"``: a residual pyramid from the image does.
        scale_by_sigma: whether the output is divided by the noise level.
        dropout: probability of dropout in the residual blocks, in training.
        sigma_max: largest noise level, in the units of ``data_range``.
        sigma_min: smallest noise level.
        num_levels: number of noise levels, in geometric progression; class index i of the
            continuous variant is the i-th of them as well.
        sigma_levels: the noise levels themselves, positive and descending; overrides the three.
            For the discrete variant only.
        centered: whether images come in [-1, 1] already; else the network maps x to 2 x - 1.
        sigma_rounding: ``"strict"``, `check_sigmas` refuses noise levels off the ladder of the
            discrete variant; or ``"nearest"``, they go to the nearest rung.
        data_range: lowest and highest value of a pixel of the training data.
        held_out_loss: the denoising loss per dimension, ``E |sigma s + z|^2 / d``, on held-out
            data, as ``{"sigmas": [...], "loss": [...]}``; recorded by the trainer.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, the noise levels are not
            positive and descending, or the network would not fit in memory.
    """

    prediction_type = "score"
    coordinates = "ve"
    _supports_gradient_checkpointing = True
    _no_split_modules = ("ResidualBlock", "Attention")
    _repeated_blocks = ("ResidualBlock", "Attention")
    # The loader casts what a state dict holds.
    _keep_in_fp32_modules: ClassVar[list[str]] = ["fourier"]

    # Lists of `DownLevel` and of `UpLevel`, which type checkers take for modules of any kind.
    down: Any
    up: Any

    @checked(**RULES)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 4,
        attention_resolutions: Sequence[int] = (16,),
        embedding: str = "fourier",
        fourier_scale: float = 16.0,
        fir_kernel: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        skip_rescale: bool = True,
        progressive: str = "none",
        progressive_input: str = "residual",
        scale_by_sigma: bool = True,
        dropout: float = 0.1,
        sigma_max: float = 50.0,
        sigma_min: float = 0.01,
        num_levels: int = 1000,
        sigma_levels: Sequence[float] | None = None,
        centered: bool = False,
        sigma_rounding: str = "strict",
        data_range: Sequence[float] = (0.0, 1.0),
        held_out_loss: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__()
        self._check_options()
        ladder = noise_ladder(sigma_max, sigma_min, num_levels, sigma_levels)
        # A network of any noise level is not to be taken for one of a ladder.
        self._set_ladder(None if embedding == "fourier" else ladder, persistent=False)
        self.gradient_checkpointing = False

        n, last = base_channels, len(channel_multipliers) - 1
        widths = [n * multiplier for multiplier in channel_multipliers]
        taps, features = tuple(fir_kernel), 4 * n
        block = partial(
            ResidualBlock, embedding=features, dropout=dropout, rescale=skip_rescale, taps=taps
        )

        def unit(before: int, width: int, attends: bool) -> Unit:
            attention = Attention(width, skip_rescale) if attends else None
            return Unit(block(before, width), attention)

        # Modules are made in the published order, see `published_names`.
        self.fourier = FourierEmbedding(n, fourier_scale) if embedding == "fourier" else None
        self.linear_1 = linear(n if self.fourier is None else 2 * n, features)
        self.linear_2 = linear(features, features)
        self.conv_in = conv(in_channels, n)

        skips, width, picture = [n], n, in_channels
        self.down = nn.ModuleList()
        for i, level_width in enumerate(widths):
            attends = sample_size // 2**i in attention_resolutions
            units = []
            for _ in range(num_res_blocks):
                units.append(unit(width, level_width, attends))
                width = level_width
                skips.append(width)
            halve = None
            add: AddPicture | AddResidual | None = None
            if i < last:
                halve = block(width, width, resample=Halve)
                skips.append(width)
                if progressive_input == "input_skip":
                    add = AddPicture(picture, width, taps)
                elif progressive_input == "residual":
                    add = AddResidual(picture, width, taps, skip_rescale)
                    picture = width
            self.down.append(DownLevel(units, halve, add))

        self.middle = nn.ModuleList([unit(width, width, True), unit(width, width, False)])

        self.up = nn.ModuleList()
        for i, level_width in reversed(list(enumerate(widths))):
            attends = sample_size // 2**i in attention_resolutions
            units = []
            for j in range(num_res_blocks + 1):
                units.append(
                    unit(width + skips.pop(), level_width, attends and j == num_res_blocks)
                )
                width = level_width
            shows = i == 0 or progressive == "output_skip"
            show = ToPicture(width, in_channels, taps) if shows else None
            enlarge = block(width, width, resample=Double) if i else None
            self.up.append(UpLevel(units, show, enlarge))

    def _check_options(self) -> None:
        config = self.config
        if config["embedding"] == "positional" and config["base_channels"] % 2:
            raise HDZooError(
                f"base_channels is {config['base_channels']}; with embedding='positional', of as "
                "many sines as cosines, it must be even"
            )
        if config["embedding"] == "fourier" and config["sigma_levels"] is not None:
            raise HDZooError(
                "sigma_levels is given, and a network with embedding='fourier' knows every noise "
                "level; give sigma_max, sigma_min and num_levels"
            )
        multipliers, size = config["channel_multipliers"], config["sample_size"]
        factor = 2 ** (len(multipliers) - 1)
        if size % factor:
            raise HDZooError(
                f"sample_size {size} is no multiple of {factor}, a halving for each of "
                "channel_multipliers but the last; choose another size or fewer multipliers"
            )

    def check_sigmas(self, sigmas: Sequence[float] | Tensor) -> None:
        """Refuses noise levels that the network was not trained for.

        Reads the values on the host: call it once before sampling.

        Args:
            sigmas: the noise levels that a sampler is about to ask for.

        Raises:
            HDZooError: for the continuous variant, one of them is outside
                ``[sigma_min, sigma_max]``; for the discrete one, see `LadderModel.check_sigmas`.
        """
        if self.fourier is None:
            super().check_sigmas(sigmas)
            return
        low, high = self.config.sigma_min, self.config.sigma_max
        for sigma in as_float64("sigmas", sigmas).flatten().tolist():
            # A ladder's ends come out of exp(log(.)), which may miss the range by a rounding.
            if not low * (1 - 1e-6) <= sigma <= high * (1 + 1e-6):
                raise HDZooError(
                    f"this network was trained for noise levels from {low:g} to {high:g}, and a "
                    f"call asks for {sigma:g}; change sigma, sigma_max, sigma_min or sigmas"
                )

    def _embed(self, timestep: Tensor | float | int, batch: int) -> tuple[Tensor, Tensor]:
        """The noise levels and their embeddings, shapes (batch,) and (batch, .), in float32."""
        if self.fourier is None:
            labels = self.rungs(timestep, batch)
            return self.sigmas[labels], positional_embedding(labels, self.config.base_channels)
        sigma = noise_levels(timestep, batch, self.device, self.config.num_levels)
        if not sigma.is_floating_point():
            ratio = self.config.sigma_min / self.config.sigma_max
            sigma = self.config.sigma_max * ratio ** (sigma / (self.config.num_levels - 1))
        sigma = sigma.float()
        return sigma.expand(batch), self.fourier(sigma.log()).expand(batch, -1)

    def _run(self, block: nn.Module, *args: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *args)
        return block(*args)

    def _network(self, picture: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(picture)
        skips = [h]
        for level in self.down:
            for unit in level.units:
                h = self._run(unit, h, embedding)
                skips.append(h)
            if level.halve is not None:
                h = self._run(level.halve, h, embedding)
                if level.add is not None:
                    picture, h = level.add(picture, h)
                skips.append(h)
        for unit in self.middle:
            h = self._run(unit, h, embedding)
        shown: Any = None
        for level in self.up:
            for unit in level.units:
                h = self._run(unit, torch.cat([h, skips.pop()], dim=1), embedding)
            if level.show is not None:
                shown = level.show(h, shown)
            if level.enlarge is not None:
                h = self._run(level.enlarge, h, embedding)
        return shown

    def forward(
        self, sample: Tensor, timestep: Tensor | float | int, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """The score at a noise level.

        Args:
            sample: noisy images ``x0 + sigma z``, shape (batch, in_channels, H, W), in the units of
                ``data_range``.
            timestep: noise levels (floating-point) or class indices (integers, 0 for the largest
                noise level). A number, a scalar tensor, or a tensor of one for each sample. The
                discrete variant takes a noise level for its nearest rung, see `rungs`.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Returns:
            The score, in the shape and dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        multiple = 2 ** (len(self.config.channel_multipliers) - 1)
        images(sample, self.config.in_channels, multiple, type(self).__name__)
        sigma, features = self._embed(timestep, len(sample))
        embedding = self.linear_2(F.silu(self.linear_1(features.to(self.dtype))))
        x = sample if self.config.centered else 2 * sample - 1
        score = self._network(x.to(self.dtype), F.silu(embedding))
        if self.config.scale_by_sigma:
            # Divided in float32 and cast after, so that half precision rounds once.
            score = score / sigma.view(-1, 1, 1, 1)
        score = score.to(sample.dtype)
        return UNet2DOutput(sample=score) if return_dict else (score,)


def published_names(network: NCSNppModel) -> dict[str, str]:
    """The names of a network's weights in the published state dicts, in the order of those.

    There, the parts lie in one list in the order in which they are made: embedding, convolution,
    down, middle, up; part ``n`` is ``all_modules.n``, and inside it the names are the same as here.

    Args:
        network: any `NCSNppModel`.

    Returns:
        From each key of ``network.state_dict()`` to the published one, without ``module.``.
    """

    def parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList | Unit | DownLevel | UpLevel | ToPicture):
                yield from parts(child, f"{prefix}{name}.")
            # A filter has no weights, and so no place in that list.
            elif child.state_dict():
                yield f"{prefix}{name}", child

    return {
        f"{name}.{key}": f"all_modules.{n}.{key}"
        for n, (name, part) in enumerate(parts(network, ""))
        for key in part.state_dict()
    }
