"""Sets of images that are like no data, made of some that are."""

from collections.abc import Callable

import torch


def noise_images(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Pixels that are independent of one another, uniform from black to white."""
    return low + (high - low) * torch.rand(images.shape, generator=_fixed())


def flat_images(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Images of a single grey or colour each, uniform from black to white."""
    shade = torch.rand((*images.shape[:2], 1, 1), generator=_fixed())
    return (low + (high - low) * shade).expand_as(images)


def inverted_images(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Black for white."""
    return low + high - images


def permuted_images(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The same pixels in another order, one for all images."""
    order = torch.randperm(images[0, 0].numel(), generator=_fixed())
    return images.flatten(2)[..., order].view_as(images)


def _fixed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# By name.
MADE: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "noise": noise_images,
    "flat": flat_images,
    "inverted": inverted_images,
    "permuted": permuted_images,
}
