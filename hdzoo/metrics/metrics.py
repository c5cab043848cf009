"""torch-fidelity's metrics on features: Fréchet and kernel distance, scores, shares.

Features are found once for each set and used many times: for the value, its spread and its floor.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

# torch-fidelity's defaults.
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
ISC_SPLITS = 10
PRC_NEIGHBORHOOD = 3

# Fewer cannot be cut into ISC_SPLITS parts that have anything to compare.
LEAST_IMAGES = 2 * ISC_SPLITS

Moments = dict[str, np.ndarray]


def moments(features: torch.Tensor) -> Moments:
    """Mean and covariance, in float64, where torch-fidelity adds up the mean in float32.

    Args:
        features: shape (images, features).

    Returns:
        ``"mu"``, shape (features,), and ``"sigma"``, shape (features, features), divided by
        images - 1.
    """
    return fid_features_to_statistics(features.double())


def frechet_distance(one: Moments, two: Moments) -> float:
    """The squared Fréchet distance between Gaussians of these moments: FID on Inception-v3.

    Biased upwards at small numbers of images. Rounding makes it slightly negative at times.

    Source: Heusel et al. (arXiv 1706.08500), eq. 6.
    """
    return fid_statistics_to_metric(one, two, verbose=False)[KEY_METRIC_FID]


def kernel_subset_size(*counts: int) -> int:
    """How many images a subset for `kernel_distance` has: 1000, and at most half of any set.

    Subsets that are the set itself would have no spread.
    """
    return min(KID_SUBSET_SIZE, *(count // 2 for count in counts))


def kernel_distance(
    one: torch.Tensor, two: torch.Tensor, seed: int, subsets: int = KID_SUBSETS
) -> tuple[float, float]:
    """The squared maximum mean discrepancy with the kernel (x.y / d + 1)^3: KID on Inception-v3.

    Unbiased, so that it may be negative.

    Source: Binkowski et al. (arXiv 1801.01401).

    Args:
        one: shape (images, features).
        two: likewise.
        seed: of the subsets.
        subsets: how many, each of `kernel_subset_size`.

    Returns:
        Mean and standard deviation over random subsets.
    """
    found = kid_features_to_metric(
        one,
        two,
        kid_subsets=subsets,
        kid_subset_size=kernel_subset_size(len(one), len(two)),
        rng_seed=seed,
        verbose=False,
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def inception_score(logits: torch.Tensor, seed: int) -> tuple[float, float]:
    """The exponential of the information that an image has about its class.

    Biased at small numbers of images, and knows nothing of a reference.

    Source: Salimans et al. (arXiv 1606.03498).

    Args:
        logits: shape (images, classes).
        seed: of the shuffle.

    Returns:
        Mean and standard deviation over 10 disjoint parts.
    """
    found = isc_features_to_metric(logits, ISC_SPLITS, True, seed)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]


def precision_recall(generated: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
    """The shares of each set that lie within the other, as spread out to third neighbours.

    Source: Kynkaanniemi et al. (arXiv 1904.06991).

    Args:
        generated: shape (images, features).
        reference: likewise.

    Returns:
        Precision, the share of generated images, and recall, that of the reference.
    """
    # In parts the distances between large sets fit into memory.
    found = prc_features_to_metric(
        generated, reference, prc_neighborhood=PRC_NEIGHBORHOOD, save_cpu_ram=True, verbose=False
    )
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def class_shares(classes: torch.Tensor, count: int) -> np.ndarray:
    """The shares of the classes in a set.

    Args:
        classes: of each image, whole numbers from 0, shape (images,).
        count: how many classes there are.

    Returns:
        Shape (count,); they add up to 1.
    """
    return torch.bincount(classes.long(), minlength=count).numpy() / len(classes)


def total_variation(one: torch.Tensor, two: torch.Tensor) -> float:
    """The total variation between the class shares of two sets: half of the sum of the absolute
    differences, which is the share of images whose class would have to be another.

    Biased upwards at small numbers of images.

    Args:
        one: class of each image, shape (images,).
        two: likewise.
    """
    count = int(max(one.max(), two.max())) + 1
    return float(np.abs(class_shares(one, count) - class_shares(two, count)).sum() / 2)


def class_weighted_moments(
    features: torch.Tensor, classes: torch.Tensor, shares: np.ndarray
) -> Moments:
    r"""Mean and covariance of a set in which each class weighs as much as its share in the data.

    An image of class c has the weight :math:`w \propto q_c / n_c`, its share in the data over how
    many of the set are of it. A class of which the set has none cannot be weighed; the others have
    its share. The covariance is divided by :math:`1 - \sum w^2`, which is unbiased for weights that
    are independent of the features, and for equal ones is images - 1 over images. Where fewer than
    two images have a weight, all weigh the same.

    Args:
        features: shape (images, features).
        classes: of each image, shape (images,).
        shares: of the classes in the data, for the classes from 0 on; others have none.
    """
    shares = np.append(shares, np.zeros(max(0, int(classes.max()) + 1 - len(shares))))
    own = class_shares(classes, len(shares))
    weights = (shares / np.where(own > 0, own, 1))[classes.long().numpy()]
    if np.count_nonzero(weights) < 2:
        weights = np.ones(len(weights))
    weights = weights / weights.sum()
    values = features.double().numpy()
    return {
        "mu": np.average(values, axis=0, weights=weights),
        "sigma": np.cov(values, rowvar=False, aweights=weights),
    }


def jackknife(
    statistic: Callable[[torch.Tensor], Sequence[float]],
    features: torch.Tensor,
    blocks: int,
    seed: int,
) -> np.ndarray:
    """Statistics without one of some disjoint random blocks of images at a time.

    What is left has nearly as many images, hence nearly the same bias, and none of them twice: a
    bootstrap's repeated images would raise a Fréchet distance and spoil nearest neighbours.

    Source: Efron and Stein (1981); Kuensch (1989).

    Args:
        statistic: of features.
        features: shape (images, features).
        blocks: how many.
        seed: of the blocks, which are the same for all sets of one size.

    Returns:
        Shape (blocks, numbers that the statistic gives), for `standard_errors`.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    left = [np.delete(order, np.s_[block::blocks]) for block in range(blocks)]
    return np.array([statistic(features[np.sort(kept)]) for kept in left])


def standard_errors(replicates: np.ndarray) -> list[float]:
    """The jackknife's standard errors.

    Args:
        replicates: of `jackknife`, or differences between those of two sets.

    Returns:
        One for each column.
    """
    blocks = len(replicates)
    return [float(error) for error in replicates.std(axis=0) * np.sqrt(blocks - 1)]
