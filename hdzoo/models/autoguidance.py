"""A network guided by a lesser one."""

from collections.abc import Sequence
from typing import Any

from hdzoo.errors import HDZooError
from hdzoo.models.unet import UNetScoreModel

# In which two networks must be the same, for one to guide the other.
SHARED = (
    "sample_size",
    "in_channels",
    "patch_size",
    "norm_num_groups",
    "data_mean",
    "data_std",
    "sigma_min",
    "sigma_max",
    "data_range",
)


def autoguide(
    network: UNetScoreModel,
    guide: UNetScoreModel,
    guidance_scale: float = 2.0,
    guidance_interval: Sequence[float] = (0.1, 5.0),
) -> UNetScoreModel:
    r"""A network whose denoised images are led away from those of a lesser one.

    .. math:: D_w(x, \sigma) = D_{guide}(x, \sigma) + w (D(x, \sigma) - D_{guide}(x, \sigma))

    .. code-block:: python

        pipe.unet = hdzoo.autoguide(pipe.unet, guide)
        pipe.save_pretrained("guided")

    The lesser one makes the errors of the other and more of them: less wide, and trained for a
    shorter time on the same data. What both get wrong is less then, most of all for samplers
    without noise. The result has no ``held_out_loss``, for it is no denoiser of the data.

    Source: Karras, Aittala, Kynkäänniemi, Lehtinen, Aila, Laine (arXiv 2406.02507).

    Args:
        network: that is guided; it stays as it is.
        guide: of one layer a block and no attention, in all else but its widths as the network.
        guidance_scale: :math:`w`, 1 or more; of 1 it is the network alone.
        guidance_interval: the lowest and the highest noise level with guidance.

    Raises:
        HDZooError: the two do not go together, or a number is out of its range.
    """
    for name, one in (("network", network), ("guide", guide)):
        if type(one) is not UNetScoreModel or one.guide is not None:
            other_kind = type(one) is not UNetScoreModel
            found = f"is a {type(one).__name__}" if other_kind else "has a guide"
            raise HDZooError(f"{name} {found}; it must be a UNetScoreModel without a guide")
    other = [key for key in SHARED if _plain(network.config[key]) != _plain(guide.config[key])]
    if other:
        raise HDZooError(
            f"{other[0]} is {network.config[other[0]]} in the network and "
            f"{guide.config[other[0]]} in the guide; it must be the same in both"
        )
    if guide.config.layers_per_block != 1 or guide.config.add_attention:
        raise HDZooError(
            f"the guide has layers_per_block {guide.config.layers_per_block} and add_attention "
            f"{guide.config.add_attention}; a guide has one layer and no attention"
        )
    options: dict[str, Any] = {
        **{key: value for key, value in network.config.items() if not key.startswith("_")},
        "held_out_loss": None,
        "guide_block_out_channels": guide.config.block_out_channels,
        "guidance_scale": guidance_scale,
        "guidance_interval": guidance_interval,
    }
    both = UNetScoreModel(**options)
    both.unet.load_state_dict(network.unet.state_dict())
    assert both.guide is not None
    both.guide.load_state_dict(guide.unet.state_dict())
    return both.to(network.device).to(network.dtype).train(network.training)


def _plain(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value
