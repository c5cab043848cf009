"""A generated set against a reference: each metric with its spread, and what real images get."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hdzoo.metrics.features import Extractor
from hdzoo.metrics.metrics import (
    ISC_SPLITS,
    KID_SUBSETS,
    frechet_distance,
    inception_score,
    jackknife,
    kernel_distance,
    kernel_subset_size,
    moments,
    precision_recall,
    standard_errors,
)
from hdzoo.metrics.reference import Reference

# Of the comparison at equal size.
REPEATS = 5

# Of two sets of equal size, the first being judged; the last argument is a seed.
STATISTICS: dict[str, Callable[[torch.Tensor, torch.Tensor, int], tuple[float, ...]]] = {
    "fid": lambda one, two, seed: (frechet_distance(moments(one), moments(two)),),
    "kid": lambda one, two, seed: kernel_distance(one, two, seed, KID_SUBSETS // REPEATS)[:1],
    "isc": lambda one, two, seed: inception_score(one, seed)[:1],
    "prc": lambda one, two, seed: precision_recall(one, two),
}


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
        metric: ``fid``, ``kid``, ``isc``, ``precision`` or ``recall``.
        name: what it is to be called, features included.
        value: of all generated images and the whole reference.
        spread: of the value.
        spread_of: what that is, in words.
        num_images: generated ones.
        num_reference: real ones that the value is of; None where a metric asks for none.
        equal_size: beside real images.
        halves: the value of the first and of the second half of the images alone, which are two
            ranges of seeds in a generated set; empty but for the Fréchet distance.
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
    """One metric of torch-fidelity; "prc" gives two results.

    Args:
        metric: one of `hdzoo.metrics.features.METRICS`.
        generated: layers of the set.
        reference: of the same extractor.
        extractor: of both.
        subsets: blocks of the `jackknife`.
        seed: of every random choice.
    """
    layer = extractor.layers[metric]
    one, two = generated[layer], reference.layers[layer]
    equal = equal_size(metric, one, two, seed)
    name, num_reference = extractor.metric_name(metric), reference.num_features
    left_out = (
        f"standard error, leaving out each of {subsets} disjoint blocks of generated images in turn"
    )
    match metric:
        case "fid":

            def distance(features: torch.Tensor) -> float:
                return frechet_distance(moments(features), reference.moments)

            without = jackknife(lambda kept: (distance(kept),), one, subsets, seed)
            (spread,) = standard_errors(without)
            middle = len(one) // 2
            return [
                Result(
                    "fid",
                    name,
                    distance(one),
                    spread,
                    left_out,
                    len(one),
                    reference.num_images,
                    equal[0],
                    halves=(distance(one[:middle]), distance(one[middle:])),
                    replicates=tuple(without[:, 0].tolist()),
                )
            ]
        case "kid":
            value, spread = kernel_distance(one, two, seed)
            size = kernel_subset_size(len(one), len(two))
            spread_of = f"standard deviation over {KID_SUBSETS} random subsets of {size} images"
            found = [("kid", name, value, spread, spread_of)]
        case "isc":
            value, spread = inception_score(one, seed)
            spread_of = f"standard deviation over {ISC_SPLITS} disjoint subsets, the value's own"
            return [Result("isc", name, value, spread, spread_of, len(one), None, equal[0])]
        case _:
            values = precision_recall(one, two)
            spreads = standard_errors(
                jackknife(lambda kept: precision_recall(kept, two), one, subsets, seed)
            )
            found = [
                (each, f"{each} ({extractor.label})", value, spread, left_out)
                for each, value, spread in zip(
                    ("precision", "recall"), values, spreads, strict=True
                )
            ]
    return [
        Result(*result, len(one), num_reference, beside)
        for result, beside in zip(found, equal, strict=True)
    ]


def equal_size(
    metric: str, generated: torch.Tensor, reference: torch.Tensor, seed: int
) -> list[EqualSize]:
    """Generated and real images against real ones, at the same numbers.

    Args:
        metric: one of torch-fidelity's.
        generated: features.
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
