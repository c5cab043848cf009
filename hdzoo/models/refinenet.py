"""The dilated RefineNet behind NCSN and NCSNv2: its blocks, and the network built from them.

Sources: Lin, Milan, Shen, Reid, "RefineNet" (arXiv 1611.06612), for the refine blocks; Song and
Ermon (arXiv 1907.05600), appendix A, for the dilated encoder and instance norm++; Song and Ermon
(arXiv 2006.09011), appendix B, for what NCSNv2 changed.

Attributes bear the names of the published state dicts and are created in their order, so that
published weights load unchanged and an optimizer state, which goes by position, fits as well.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdzoo.checks import Whole
from hdzoo.errors import HDZooError
from hdzoo.models.inputs import images
from hdzoo.models.rungs import LadderModel

NormFactory = Callable[[int], nn.Module]
"""Makes a norm for a number of channels; the norm is called with images and class indices."""

Pool = Callable[[Tensor], Tensor]

# Instance norm++ looks at how the channels' means differ.
CHANNELS = Whole(2)


class InstanceNormPlus(nn.Module):
    r"""Instance norm++: instance norm that keeps how the channels' means differ.

    .. math::
        y_c = \gamma_c (\mathrm{IN}(x)_c + \alpha_c z_c) + \beta_c, \quad
        z_c = (\mu_c - m) / \sqrt{v + 10^{-5}}

    where :math:`\mu_c` is the spatial mean of channel :math:`c`, and :math:`m`, :math:`v` are mean
    and unbiased variance of :math:`\mu` over the channels. :math:`\gamma` and :math:`\alpha` start
    from :math:`N(1, 0.02^2)`, :math:`\beta` from 0.

    Source: Song, Ermon (arXiv 1907.05600), appendix A.1; here with one set of parameters for all
    noise levels, as in Song, Ermon (arXiv 2006.09011), appendix B.

    Args:
        channels: number of channels, at least 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.alpha, 1, 0.02)
        nn.init.normal_(self.gamma, 1, 0.02)

    def affine(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``gamma``, ``alpha`` and ``beta``, each of a shape that broadcasts to (batch, C)."""
        return self.gamma, self.alpha, self.beta

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalises ``x``, (batch, C, H, W), at the noise levels ``labels``, (batch,)."""
        gamma, alpha, beta = self.affine(labels)
        mean = x.mean(dim=(2, 3))
        variance, centre = torch.var_mean(mean, dim=1, keepdim=True)
        z = (mean - centre) * torch.rsqrt(variance + 1e-5)
        shift = gamma * alpha * z + beta
        # The sum is regrouped so that only one pass over the image follows the instance norm.
        gamma = gamma.expand_as(shift)[..., None, None]
        return torch.addcmul(shift[..., None, None], gamma, F.instance_norm(x))


class ConditionalInstanceNormPlus(InstanceNormPlus):
    """Instance norm++ with parameters of its own for each noise level.

    ``embed.weight``, shape (num_levels, 3 C), holds gamma, alpha and beta side by side.

    Source: Song, Ermon (arXiv 1907.05600), appendix A.1.

    Args:
        num_levels: number of noise levels.
        channels: number of channels, at least 2.
    """

    def __init__(self, num_levels: int, channels: int) -> None:
        nn.Module.__init__(self)
        self.embed = nn.Embedding(num_levels, 3 * channels)
        nn.init.normal_(self.embed.weight.data[:, : 2 * channels], 1, 0.02)
        nn.init.zeros_(self.embed.weight.data[:, 2 * channels :])

    def affine(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``gamma``, ``alpha`` and ``beta`` at the levels ``labels``, each (batch, C)."""
        gamma, alpha, beta = self.embed(labels).chunk(3, dim=1)
        return gamma, alpha, beta


class NoNorm(nn.Module):
    """The identity in place of a norm, for decoders without."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Returns ``x``."""
        return x


def conv3x3(in_channels: int, out_channels: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of the image."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 square.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the convolution's kernel, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, H, W) to (batch, out_channels, H // 2, W // 2)."""
        return F.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """Norm, ELU, convolution, twice, plus a shortcut.

    Args:
        in_channels: channels in, and between the two convolutions.
        out_channels: channels out.
        norm: makes the norms.
        dilation: dilation of the convolutions.
        down: whether the block begins a stage; its shortcut is then a convolution.
        halve: whether such a block halves the image (means of 2x2 squares).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: NormFactory,
        dilation: int = 1,
        down: bool = False,
        halve: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, in_channels, dilation)
        self.normalize2 = norm(in_channels)
        self.conv2: nn.Module
        self.shortcut: nn.Module
        if down and halve:
            self.conv2 = ConvMeanPool(in_channels, out_channels, 3)
            self.shortcut = ConvMeanPool(in_channels, out_channels, 1)
        else:
            self.conv2 = conv3x3(in_channels, out_channels, dilation)
            self.shortcut = conv3x3(in_channels, out_channels, dilation) if down else nn.Identity()
        self.normalize1 = norm(in_channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(batch, in_channels, H, W) to (batch, out_channels, H, W), or half of that size."""
        h = self.conv1(F.elu(self.normalize1(x, labels)))
        h = self.conv2(F.elu(self.normalize2(h, labels)))
        return h + self.shortcut(x)


class ResidualConvUnits(nn.ModuleDict):
    """Residual blocks of two stages, each stage norm, ELU and a 3x3 convolution without bias.

    Source: Lin et al. (arXiv 1611.06612), section 3.2.

    Args:
        channels: channels in and out.
        blocks: number of blocks.
        norm: makes the norms.
    """

    def __init__(self, channels: int, blocks: int, norm: NormFactory) -> None:
        super().__init__()
        self.blocks = blocks
        for block in range(1, blocks + 1):
            for stage in (1, 2):
                self[f"{block}_{stage}_norm"] = norm(channels)
                self[f"{block}_{stage}_conv"] = conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Keeps the shape (batch, C, H, W)."""
        for block in range(1, self.blocks + 1):
            h = x
            for stage in (1, 2):
                h = self[f"{block}_{stage}_norm"](h, labels)
                h = self[f"{block}_{stage}_conv"](F.elu(h))
            x = x + h
        return x


class MultiResolutionFusion(nn.Module):
    """Sum of feature maps, each after a norm, a convolution and a resize to the first one's size.

    Source: Lin et al. (arXiv 1611.06612), section 3.2.

    Args:
        in_channels: channels of each input.
        out_channels: channels out.
        inputs: number of inputs.
        norm: makes the norms.
    """

    def __init__(self, in_channels: int, out_channels: int, inputs: int, norm: NormFactory) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(in_channels, out_channels) for _ in range(inputs))
        self.norms = nn.ModuleList(norm(in_channels) for _ in range(inputs))

    def forward(self, features: list[Tensor], labels: Tensor) -> Tensor:
        """Maps of shapes (batch, in_channels, ., .) to (batch, out_channels, H, W)."""
        size = features[0].shape[-2:]
        maps = []
        for x, conv, norm in zip(features, self.convs, self.norms, strict=True):
            h = conv(norm(x, labels))
            if h.shape[-2:] != size:
                h = F.interpolate(h, size, mode="bilinear", align_corners=True)
            maps.append(h)
        return reduce(torch.add, maps)


class ChainedResidualPooling(nn.Module):
    """ELU, then a chain of two {norm, 5x5 pool, convolution}, each link added to the sum.

    Source: Lin et al. (arXiv 1611.06612), section 3.2.

    Args:
        channels: channels in and out.
        norm: makes the norms.
        pool: a 5x5 pool with stride 1 and padding 2.
    """

    def __init__(self, channels: int, norm: NormFactory, pool: Pool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))
        self.pool = pool

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Keeps the shape (batch, C, H, W)."""
        x = path = F.elu(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            path = conv(self.pool(norm(path, labels)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Adapts its inputs, fuses them at the finer resolution, and pools context.

    Source: Lin et al. (arXiv 1611.06612), section 3.2 and figure 3.

    Args:
        in_channels: channels of each input.
        out_channels: channels out; those in, if there is only one input.
        inputs: number of inputs, 1 or 2.
        output_blocks: residual convolution units at the end.
        norm: makes the norms.
        pool: pool of the chained residual pooling.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        inputs: int,
        output_blocks: int,
        norm: NormFactory,
        pool: Pool,
    ) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(
            ResidualConvUnits(in_channels, 2, norm) for _ in range(inputs)
        )
        self.output_convs = ResidualConvUnits(out_channels, output_blocks, norm)
        if inputs > 1:
            self.msf = MultiResolutionFusion(in_channels, out_channels, inputs, norm)
        self.crp = ChainedResidualPooling(out_channels, norm, pool)

    def forward(self, features: list[Tensor], labels: Tensor) -> Tensor:
        """Maps of shapes (batch, in_channels, ., .) to (batch, out_channels, H, W)."""
        maps = [adapt(x, labels) for adapt, x in zip(self.adapt_convs, features, strict=True)]
        h = self.msf(maps, labels) if len(maps) > 1 else maps[0]
        return self.output_convs(self.crp(h, labels), labels)


class Stage(NamedTuple):
    """One stage of the encoder with the refine block that reads it.

    Attributes:
        res: attribute of the two residual blocks.
        refine: attribute of the refine block.
        width: channels, in units of the base width.
        halve: whether the stage halves the image.
        dilation: dilation of its convolutions.
    """

    res: str
    refine: str
    width: int
    halve: bool = False
    dilation: int = 1


class RefineNetModel(LadderModel):
    """The network that NCSN and NCSNv2 share, conditioned on a rung of a ladder of noise levels.

    A convolution; an encoder of residual stages, which halves the image once (or a few times) and
    dilates its convolutions where others would halve further; a refine block for each stage from
    the coarsest to the finest, which fuses that stage with the previous refine block; norm, ELU,
    convolution. Subclasses fill in the config and `forward`.

    Args:
        in_channels: channels of the image.
        base_channels: channels of the first stage.
        ladder: the noise levels, descending.
        stages: the encoder, from the finest stage.
        norm: makes the encoder's norms and the last one.
        decoder_norm: makes the norms of the refine blocks.
        pool: pool of the refine blocks.
        persistent_sigmas: whether the state dict holds the ladder.
    """

    prediction_type = "score"
    coordinates = "ve"
    _supports_gradient_checkpointing = True
    _no_split_modules = ("ResidualBlock", "RefineBlock")
    _repeated_blocks = ("ResidualBlock", "RefineBlock")

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        ladder: Sequence[float],
        stages: Sequence[Stage],
        norm: NormFactory,
        decoder_norm: NormFactory,
        pool: Pool,
        persistent_sigmas: bool,
    ) -> None:
        super().__init__()
        self._set_ladder(ladder, persistent_sigmas)
        self.stages = tuple(stages)
        self.gradient_checkpointing = False
        self.begin_conv = conv3x3(in_channels, base_channels)
        self.normalizer = norm(base_channels)
        self.end_conv = conv3x3(base_channels, in_channels)

        widths = [base_channels * stage.width for stage in stages]
        for index, stage in enumerate(stages):
            width, before = widths[index], widths[max(index - 1, 0)]
            first = ResidualBlock(before, width, norm, stage.dilation, index > 0, stage.halve)
            second = ResidualBlock(width, width, norm, stage.dilation)
            self.add_module(stage.res, nn.ModuleList([first, second]))
        for stage in sorted(stages, key=lambda stage: stage.refine):
            index = stages.index(stage)
            block = RefineBlock(
                widths[index],
                widths[max(index - 1, 0)],
                inputs=1 if stage is stages[-1] else 2,
                output_blocks=1 if index else 3,
                norm=decoder_norm,
                pool=pool,
            )
            self.add_module(stage.refine, block)

    def _run(self, block: nn.Module, *args: Tensor | list[Tensor]) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *args)
        return block(*args)

    def _network(self, sample: Tensor, labels: Tensor) -> Tensor:
        images(sample, self.config["in_channels"], 1, type(self).__name__)
        halvings = sum(stage.halve for stage in self.stages)
        if (sample.shape[2] >> halvings) * (sample.shape[3] >> halvings) < 2:
            raise HDZooError(
                f"sample has the shape {tuple(sample.shape)}, of which {halvings} halvings leave "
                "less than two pixels; give larger images"
            )
        x = sample if self.config["centered"] else 2 * sample - 1
        h = self.begin_conv(x.to(self.dtype))
        features = []
        for stage in self.stages:
            for block in getattr(self, stage.res):
                h = self._run(block, h, labels)
            features.append(h)
        refined: list[Tensor] = []
        for stage in reversed(self.stages):
            block = getattr(self, stage.refine)
            refined = [self._run(block, [features.pop(), *refined], labels)]
        return self.end_conv(F.elu(self.normalizer(refined[0], labels)))
