"""A generated set against a reference: each metric with its spread, and what real images get."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hdzoo.metrics.features import CLASS_METRICS, Extractor
from hdzoo.metrics.metrics import (
    ISC_SPLITS,
    KID_SUBSETS,
    Moments,
    class_shares,
    class_weighted_moments,
    frechet_distance,
    inception_score,
    jackknife,
    kernel_distance,
    kernel_subset_size,
    moments,
    precision_recall,
    standard_errors,
    total_variation,
)
from hdzoo.metrics.reference import Reference

# Of the comparison at equal size.
REPEATS = 5

Statistic = Callable[[torch.Tensor], tuple[float, ...]]

# Of two sets of equal size, the first being judged; the last argument is a seed.
STATISTICS: dict[str, Callable[[torch.Tensor, torch.Tensor, int], tuple[float, ...]]] = {
    "fid": lambda one, two, seed: (frechet_distance(moments(one), moments(two)),),
    "kid": lambda one, two, seed: kernel_distance(one, two, seed, KID_SUBSETS // REPEATS)[:1],
    "isc": lambda one, two, seed: inception_score(one, seed)[:1],
    "prc": lambda one, two, seed: precision_recall(one, two),
    "wfid": lambda one, two, seed: (weighted_distance(one, moments(two[:, :-1]), two[:, -1]),),
    "tv": lambda one, two, seed: (total_variation(one, two),),
}
# What sets may be ranked by, and whether more of it is better: the results that have the spread of
# a difference.
RANKINGS = {"fid": False, "wfid": False, "tv": False, "precision": True, "recall": True}


@dataclass(frozen=True)
class EqualSize:
    """Generated and real images in the same place: each set has ``num_images``, and so has the
    reference part that it is compared with. Real images are in one of the two alone.

    Most metrics depend on the numbers of images, so that a value can be held against real images at
    the same numbers only. Means and standard deviations are over `REPEATS` random choices, which
    share images.

    Args:
        num_images: of each set.
        value: of generated images.
        value_spread: its standard deviation.
        floor: of real images: what the best model would get.
        floor_spread: its standard deviation.
    """

    num_images: int
    value: float
    value_spread: float
    floor: float
    floor_spread: float


@dataclass(frozen=True)
class Result:
    """What a metric says of a set.

    Args:
        metric: ``fid``, ``kid``, ``isc``, ``precision``, ``recall``, ``wfid`` or ``tv``.
        name: what it is to be called, features included.
        value: of all generated images and the whole reference.
        spread: of the value.
        spread_of: what that is, in words.
        num_images: generated ones.
        num_reference: real ones that the value is of; None where a metric asks for none.
        equal_size: beside real images.
        halves: the value of the first and of the second half of the images alone, which are two
            ranges of seeds in a generated set; empty but for `RANKINGS`.
        replicates: the values without each of the blocks that ``spread`` is from; empty where it is
            not. Sets of one size have the same blocks, so that the difference of two of them has
            the spread of the differences (`hdzoo.leaderboard.ranking`).
    """

    metric: str
    name: str
    value: float
    spread: float
    spread_of: str
    num_images: int
    num_reference: int | None
    equal_size: EqualSize
    halves: tuple[float, ...] = ()
    replicates: tuple[float, ...] = ()


def judge(
    metric: str,
    generated: dict[str, torch.Tensor],
    reference: Reference,
    extractor: Extractor,
    *,
    subsets: int = 10,
    seed: int = 2020,
) -> list[Result]:
    """One metric; "prc" gives two results.

    Args:
        metric: one that the extractor has (`hdzoo.metrics.features.Extractor.metrics`).
        generated: layers of the set.
        reference: of the same extractor.
        extractor: of both.
        subsets: blocks of the `jackknife`.
        seed: of every random choice.
    """
    one, two = (layer_of(metric, layers, extractor) for layers in (generated, reference.layers))
    equal = equal_size(metric, one, two, seed)
    name, num_reference = extractor.metric_name(metric), reference.num_features
    names = {metric: name}
    match metric:
        case "kid":
            value, spread = kernel_distance(one, two, seed)
            size = kernel_subset_size(len(one), len(two))
            spread_of = f"standard deviation over {KID_SUBSETS} random subsets of {size} images"
            return [
                Result("kid", name, value, spread, spread_of, len(one), num_reference, equal[0])
            ]
        case "isc":
            value, spread = inception_score(one, seed)
            spread_of = f"standard deviation over {ISC_SPLITS} disjoint subsets, the value's own"
            return [Result("isc", name, value, spread, spread_of, len(one), None, equal[0])]
        case "prc":
            names = {each: f"{each} ({extractor.label})" for each in ("precision", "recall")}
        case "fid" | "wfid":
            num_reference = reference.num_images
    statistic = statistic_of(metric, two, reference)
    without = jackknife(statistic, one, subsets, seed)
    middle = len(one) // 2
    numbers = zip(
        statistic(one),
        standard_errors(without),
        equal,
        zip(statistic(one[:middle]), statistic(one[middle:]), strict=True),
        without.T.tolist(),
        strict=True,
    )
    left_out = (
        f"standard error, leaving out each of {subsets} disjoint blocks of generated images in turn"
    )
    return [
        Result(
            each,
            label,
            value,
            spread,
            left_out,
            len(one),
            num_reference,
            beside,
            halves=halves,
            replicates=tuple(replicates),
        )
        for (each, label), (value, spread, beside, halves, replicates) in zip(
            names.items(), numbers, strict=True
        )
    ]


def statistic_of(metric: str, real: torch.Tensor, reference: Reference) -> Statistic:
    """A metric of generated images alone, the whole reference being given.

    Args:
        metric: one whose error is the jackknife's.
        real: `layer_of` the reference.
        reference: it; its moments are of more images than it has features of.
    """
    match metric:
        case "fid":
            return lambda kept: (frechet_distance(moments(kept), reference.moments),)
        case "wfid":
            return lambda kept: (weighted_distance(kept, reference.moments, real[:, -1]),)
        case "tv":
            return lambda kept: (total_variation(kept, real),)
    return lambda kept: precision_recall(kept, real)


def layer_of(metric: str, layers: dict[str, torch.Tensor], extractor: Extractor) -> torch.Tensor:
    """What a metric looks at: a layer; the class of each image, the most probable; or features with
    the class as the last column.

    Args:
        metric: one that the extractor has.
        layers: of a set.
        extractor: of them.
    """
    if metric not in CLASS_METRICS:
        return layers[extractor.layers[metric]]
    classes = layers[extractor.layers["isc"]].argmax(1)
    if metric == "tv":
        return classes
    return torch.cat([layers[extractor.layers["fid"]].double(), classes[:, None]], 1)


def weighted_distance(labelled: torch.Tensor, real: Moments, real_classes: torch.Tensor) -> float:
    """The squared Fréchet distance from a set in which each class weighs as much as in the data.

    The shares of the classes vary by chance from set to set, and with them the Fréchet distance,
    more than with what the images look like. This one sees the latter; `total_variation` the
    former.

    Args:
        labelled: features of generated images, with the class as the last column.
        real: moments of real ones.
        real_classes: of real ones, shape (images,).
    """
    shares = class_shares(real_classes, int(real_classes.max()) + 1)
    weighted = class_weighted_moments(labelled[:, :-1], labelled[:, -1], shares)
    return frechet_distance(weighted, real)


def equal_size(
    metric: str, generated: torch.Tensor, reference: torch.Tensor, seed: int
) -> list[EqualSize]:
    """Generated and real images against real ones, at the same numbers.

    Args:
        metric: one of `STATISTICS`.
        generated: what it looks at, as from `layer_of`.
        reference: likewise; two disjoint parts of it are taken, so that half of it is the limit.
        seed: of the parts.

    Returns:
        One for each number that the metric gives.
    """
    size = min(len(generated), len(reference) // 2)
    values, floors = [], []
    for repeat in range(REPEATS):
        rng = np.random.default_rng([seed, repeat])
        real = rng.permutation(len(reference))
        chosen = generated[np.sort(rng.permutation(len(generated))[:size])]
        held_out, compared = reference[real[:size]], reference[real[size : 2 * size]]
        values.append(STATISTICS[metric](chosen, compared, seed))
        floors.append(STATISTICS[metric](held_out, compared, seed))
    summaries = [
        column
        for sets in (values, floors)
        for column in (np.mean(sets, axis=0), np.std(sets, axis=0, ddof=1))
    ]
    return [
        EqualSize(size, *(float(number) for number in numbers))
        for numbers in zip(*summaries, strict=True)
    ]
