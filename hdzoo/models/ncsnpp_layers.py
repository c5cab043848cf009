"""The blocks of NCSN++.

Sources: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), appendix H, and what
it takes over: residual blocks of Brock, Donahue, Simonyan (arXiv 1809.11096), attention of Ho,
Jain, Abbeel (arXiv 2006.11239), filters and pictures at each resolution of Karras et al.
(arXiv 1912.04958).

Inside a block the attributes bear the names of the published state dicts (``Conv_0``, ``NIN_2``).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdzoo.errors import HDZooError

# Gain of the last layer of a block: it starts as the identity, all but.
ALMOST_ZERO = 1e-5


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 4 channels a group, or 32 groups where that would be more.

    Raises:
        HDZooError: the channels cannot be shared so.
    """
    groups = min(channels // 4, 32)
    if groups < 1 or channels % groups:
        raise HDZooError(
            f"the group norm over {channels} channels would have {groups} groups, which do not "
            "share them evenly; choose base_channels and channel_multipliers so that every width "
            "is a multiple of 4, and of 32 from 128 on"
        )
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    gain: float = 1.0,
    **options: Any,
) -> nn.Conv2d:
    """A convolution that keeps the size of the image unless ``options`` say otherwise.

    Its weights start as those of `linear`, times ``gain``.
    """
    options = {"padding": kernel_size // 2} | options
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, **options)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer, uniform weights of variance 2 / (fan in + fan out), bias zero."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FourierEmbedding(nn.Module):
    r"""Random Fourier features :math:`(\sin 2 \pi W t, \cos 2 \pi W t)` of a number.

    Source: Tancik et al. (arXiv 2006.10739); here of the logarithm of the noise level, with
    :math:`W` drawn from :math:`N(0, scale^2)` once and not trained.

    Args:
        features: entries of ``W``.
        scale: their standard deviation.
    """

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        frequencies = scale * torch.randn(features, dtype=torch.float32)
        self.W = nn.Parameter(frequencies, requires_grad=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        weights = self.W.detach()
        super()._apply(fn, recurse)
        # Phases of many turns: rounded to half precision, they would mean nothing.
        if self.W.dtype != weights.dtype:
            self.W = nn.Parameter(weights.to(self.W.device), requires_grad=False)
        return self

    def forward(self, t: Tensor) -> Tensor:
        """Numbers, (batch,), to features, (batch, 2 features), in float32."""
        phase = t.float()[:, None] * self.W * (2 * math.pi)
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def positional_embedding(labels: Tensor, features: int) -> Tensor:
    r"""Sines, then cosines, of ``labels`` times frequencies from 1 down to 1/10000.

    Source: Vaswani et al. (arXiv 1706.03762), section 3.5, as in Ho et al. (arXiv 2006.11239).

    Args:
        labels: shape (batch,).
        features: an even number, at least 4.

    Returns:
        Shape (batch, features), float32.
    """
    half = features // 2
    powers = torch.arange(half, dtype=torch.float32, device=labels.device)
    # A rounding here is multiplied by the label: in another order, published networks would differ.
    phase = labels.float()[:, None] * torch.exp(powers * -(math.log(10_000) / (half - 1)))
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class Resample(nn.Module):
    """Resamples each channel of an image with a filter against aliasing; what to, subclasses say.

    The filter is the outer product of the taps with themselves, of sum 1. Taps ``(1, 1)`` give the
    mean of each 2x2 square, and the repetition of each pixel.

    Source: Karras et al. (arXiv 1912.04958), appendix B; Zhang (arXiv 1904.11486).

    Args:
        taps: symmetric, of even number.

    Raises:
        HDZooError: they are not, or their sum is not positive.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        taps = [float(tap) for tap in taps]
        if not taps or len(taps) % 2 or taps != taps[::-1] or not sum(taps) > 0:
            raise HDZooError(
                f"fir_kernel is {taps}; it must be symmetric, of an even number of taps and of a "
                "positive sum, such as (1, 3, 3, 1), or (1, 1) for no filter"
            )
        row = torch.tensor(taps, dtype=torch.float32)
        row = row / row.sum()
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)
        self.padding = len(taps) // 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        """(batch, C, H, W) to (batch, C, ., .)."""
        return self.filter(x, self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1))

    def filter(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The same, given the filter of each channel, shape (C, 1, taps, taps)."""
        raise NotImplementedError


class Halve(Resample):
    """Half the height and width."""

    def filter(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, stride=2, padding=self.padding, groups=len(kernel))


class Double(Resample):
    """Twice the height and width."""

    def filter(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=self.padding, groups=len(kernel))


class Widen(Resample):
    """One pixel more in height and width, for a 3x3 convolution of stride 2 to halve."""

    def filter(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=self.padding + 1, groups=len(kernel))


class ResidualBlock(nn.Module):
    r"""Norm, SiLU, convolution, twice, plus a shortcut; the noise level enters in between.

    A block that halves or doubles the image does so right after the first SiLU and on the shortcut.
    With ``rescale`` the sum is divided by :math:`\sqrt 2`.

    Source: Brock, Donahue, Simonyan (arXiv 1809.11096), appendix B.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        embedding: features of the noise level's embedding.
        dropout: probability of dropout before the second convolution.
        rescale: whether the sum keeps the variance.
        taps: the filter of `Resample`.
        resample: `Halve`, `Double`, or None to keep the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        dropout: float,
        rescale: bool,
        taps: Sequence[float],
        resample: type[Resample] | None = None,
    ) -> None:
        super().__init__()
        self.GroupNorm_0 = group_norm(in_channels)
        self.Conv_0 = conv(in_channels, out_channels)
        self.Dense_0 = linear(embedding, out_channels)
        self.GroupNorm_1 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.Conv_1 = conv(out_channels, out_channels, gain=ALMOST_ZERO)
        plain = resample is None and in_channels == out_channels
        self.Conv_2 = None if plain else conv(in_channels, out_channels, kernel_size=1)
        self.resample = resample(taps) if resample else None
        self.scale = math.sqrt(0.5) if rescale else 1.0

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(batch, in_channels, H, W) to (batch, out_channels, H, W), or half or twice that size.

        ``embedding``, (batch, embedding), has its SiLU behind it.
        """
        h = F.silu(self.GroupNorm_0(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.Conv_0(h) + self.Dense_0(embedding)[:, :, None, None]
        h = self.Conv_1(self.dropout(F.silu(self.GroupNorm_1(h))))
        if self.Conv_2 is not None:
            x = self.Conv_2(x)
        return (x + h) * self.scale


class NetworkInNetwork(nn.Module):
    """A linear layer over channels, whose weight has the inputs first.

    Source: Lin, Chen, Yan (arXiv 1312.4400).

    Args:
        channels: channels in and out.
        gain: of the initial weights.
    """

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))
        nn.init.xavier_uniform_(self.W, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (batch, pixels, channels)."""
        return F.linear(x, self.W.T, self.b)


class Attention(nn.Module):
    """Norm and self-attention of one head over the pixels, plus the input.

    Source: Ho, Jain, Abbeel (arXiv 2006.11239), appendix B.

    Args:
        channels: channels in and out.
        rescale: whether the sum is divided by the square root of 2.
    """

    def __init__(self, channels: int, rescale: bool) -> None:
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0 = NetworkInNetwork(channels)
        self.NIN_1 = NetworkInNetwork(channels)
        self.NIN_2 = NetworkInNetwork(channels)
        self.NIN_3 = NetworkInNetwork(channels, gain=ALMOST_ZERO)
        self.scale = math.sqrt(0.5) if rescale else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (batch, C, H, W)."""
        pixels = self.GroupNorm_0(x).flatten(2).transpose(1, 2)
        query, key, value = self.NIN_0(pixels), self.NIN_1(pixels), self.NIN_2(pixels)
        h = self.NIN_3(F.scaled_dot_product_attention(query, key, value))
        return (x + h.transpose(1, 2).view_as(x)) * self.scale


class AddPicture(nn.Module):
    """Adds the halved picture to the features, through a 1x1 convolution ("input skip").

    Source: Karras et al. (arXiv 1912.04958), figure 7, "input skips".

    Args:
        picture_channels: channels of the picture, which it keeps.
        channels: channels of the features.
        taps: the filter of `Resample`.
    """

    def __init__(self, picture_channels: int, channels: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.halve = Halve(taps)
        self.Conv_0 = conv(picture_channels, channels, kernel_size=1)

    def forward(self, picture: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The halved picture, and the features with it."""
        picture = self.halve(picture)
        return picture, self.Conv_0(picture) + features


class AddResidual(nn.Module):
    """Adds the picture, halved by a filter and a convolution of stride 2, to the features.

    The sum is both the features and the next picture ("residual").

    Source: Karras et al. (arXiv 1912.04958), figure 7, "residual nets".

    Args:
        picture_channels: channels of the picture.
        channels: channels of the features, and of the next picture.
        taps: the filter of `Resample`.
        rescale: whether the sum is divided by the square root of 2.
    """

    def __init__(
        self, picture_channels: int, channels: int, taps: Sequence[float], rescale: bool
    ) -> None:
        super().__init__()
        self.widen = Widen(taps)
        self.Conv2d_0 = conv(picture_channels, channels, stride=2, padding=0)
        self.scale = math.sqrt(0.5) if rescale else 1.0

    def forward(self, picture: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The next picture, and the features, which are the same."""
        features = (self.Conv2d_0(self.widen(picture)) + features) * self.scale
        return features, features


class ToPicture(nn.Module):
    """Norm, SiLU and a convolution to the image's channels, plus the doubled coarser picture.

    Source: Karras et al. (arXiv 1912.04958), figure 7, "output skips".

    Args:
        channels: channels of the features.
        picture_channels: channels of the picture.
        taps: the filter of `Resample`.
    """

    def __init__(self, channels: int, picture_channels: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.conv = conv(channels, picture_channels, gain=ALMOST_ZERO)
        self.enlarge = Double(taps)

    def forward(self, features: Tensor, picture: Tensor | None) -> Tensor:
        """Features, (batch, channels, H, W), and a picture of half that size or none, to one."""
        own = self.conv(F.silu(self.norm(features)))
        return own if picture is None else self.enlarge(picture) + own
