"""Classes of images, for networks that draw them by class."""

from collections.abc import Sequence
from typing import Any

import torch

from hdzoo.errors import HDZooError


def labels_by_index(
    network: Any, indices: Sequence[int], class_label: int | None = None
) -> list[int] | None:
    """The class of each image of a set: a function of its index, evenly over all classes.

    Args:
        network: which draws.
        indices: of the images.
        class_label: one class for all instead.

    Returns:
        The index modulo the number of classes; None for a network that has none.
    """
    if class_label is not None:
        return [class_label] * len(indices)
    classes = network.config.get("num_class_embeds")
    return None if classes is None else [index % classes for index in indices]


def labels_in_words(network: Any, class_label: int | None) -> int | str | None:
    """The same for the protocol of a set."""
    classes = network.config.get("num_class_embeds")
    if class_label is not None or classes is None:
        return class_label
    return f"index modulo {classes}"


def check_class_labels(
    network: Any, class_labels: Any, samples: int, device: Any
) -> torch.Tensor | None:
    """The class of each sample, as a network takes it.

    Args:
        network: with the options of diffusers' `UNet2DModel`: ``num_class_embeds``, of how many
            classes it has a table; or ``class_embed_type``, where a label is what it embeds.
        class_labels: one for all samples, or one for each; None for a network that takes none.
        samples: how many.
        device: of the network.

    Raises:
        HDZooError: the network takes no labels, or needs them, or does not know one of them.
    """
    classes, kind = (network.config.get(key) for key in ("num_class_embeds", "class_embed_type"))
    name = type(network).__name__
    if classes is None and kind is None:
        if class_labels is not None:
            raise HDZooError(f"class_labels are given, and {name} knows no classes; leave them out")
        return None
    table = kind is None
    allowed = f"whole numbers from 0 to {classes - 1}" if table else f"what {kind!r} embeds"
    if class_labels is None:
        raise HDZooError(
            f"{name} draws images of a class; give class_labels, one for all or one for each "
            f"sample: {allowed}"
        )
    try:
        labels = torch.as_tensor(class_labels)
    except (ValueError, TypeError, RuntimeError) as error:
        raise HDZooError(f"class_labels are {class_labels!r}; give {allowed}") from error
    labels = labels.expand(samples) if labels.ndim == 0 else labels
    if len(labels) != samples:
        raise HDZooError(
            f"{len(labels)} class_labels are given for {samples} samples; give one for all, or one "
            "for each sample"
        )
    whole = labels.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if table and not (
        whole and labels.ndim == 1 and bool(((labels >= 0) & (labels < classes)).all())
    ):
        raise HDZooError(f"class_labels are {class_labels!r}; they must be {allowed}")
    return labels.to(device, torch.int64 if table else None)
