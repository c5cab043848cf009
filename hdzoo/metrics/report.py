"""Reports: what the metrics say of a set, and all that the numbers depend on."""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdzoo import plugins
from hdzoo.checks import IMAGES, Whole
from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.files import write_json
from hdzoo.metrics.comparison import REPEATS, EqualSize, Result, judge
from hdzoo.metrics.features import Extractor, check_metrics, get_extractor
from hdzoo.metrics.image_sets import ImageSet, OnProgress, open_images, render
from hdzoo.metrics.metrics import LEAST_IMAGES
from hdzoo.metrics.reference import (
    SUFFIX,
    Reference,
    check_enough,
    load_reference,
    make_reference,
    reference_of,
)
from hdzoo.text import counted

LEAST_SUBSETS = 5


@dataclass(frozen=True)
class Report:
    """The metrics of a set; from `evaluate`.

    Args:
        images: the source of the set, its split, number of images and their size, and the manifest
            of a generated set.
        reference: the protocol of the reference.
        extractor: its name, its label, its weights and their SHA-256.
        seed: of every random choice that the metrics make.
        results: one for each number.
        notes: what a reader should know, in sentences.
        versions: of the packages that the numbers depend on.
        command: what the user typed.
        seconds: what it took.
    """

    images: dict[str, Any]
    reference: dict[str, Any]
    extractor: dict[str, Any]
    seed: int
    results: list[Result]
    notes: list[str]
    versions: dict[str, str]
    command: str | None
    seconds: float

    def __getitem__(self, metric: str) -> Result:
        """A result by the name of its metric, such as ``report["fid"]``."""
        found = {result.metric: result for result in self.results}
        if metric not in found:
            raise HDZooError(f"the report has no {metric!r}; it has {', '.join(found)}")
        return found[metric]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Writes JSON."""
        write_json(path, self.to_dict())

    def rows(self) -> list[dict[str, str]]:
        """A table for people: each number with its spread, and beside real images."""
        rows = []
        for result in self.results:
            equal = result.equal_size
            against = f" against {result.num_reference:,}" if result.num_reference else ""
            rows.append(
                {
                    # A line for the label keeps the column narrow.
                    "metric": result.name.replace(" (", "\n("),
                    "all images": (
                        f"{plus_minus(result.value, result.spread)}\n{result.num_images:,}{against}"
                    ),
                    f"{equal.num_images:,} images": plus_minus(equal.value, equal.value_spread),
                    f"{equal.num_images:,} real": plus_minus(equal.floor, equal.floor_spread),
                }
            )
        return rows

    def legend(self) -> list[str]:
        """What the table means, in lines."""
        spreads: dict[str, list[str]] = {}
        for result in self.results:
            spreads.setdefault(result.spread_of, []).append(result.name.partition(" (")[0])
        size = self.results[0].equal_size.num_images
        return [
            *(f"± of {', '.join(names)}: {of}." for of, names in spreads.items()),
            f"{size:,} images of the set, and as many real ones, against {size:,} other real ones: "
            f"means ± standard deviations over {REPEATS} random choices.",
            f"Features: {self.extractor['name']}, weights {self.extractor['weights_sha256']}.",
            f"Reference: {self.reference['dataset']}, split {self.reference['split']}.",
            f"Seed: {self.seed}. Time: {self.seconds} s.",
        ]


def load_report(path: Path) -> Report:
    """Reads what `Report.save` has written.

    Raises:
        HDZooError: it is damaged, or of another version.
    """
    try:
        return report_of(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HDZooError(
            f"{path} is no report of this version, or damaged: {error}; take it away and judge the "
            "images again"
        ) from error


def report_of(content: Any) -> Report:
    """A report from what `Report.to_dict` has made of it.

    Raises:
        TypeError, KeyError, AttributeError: it is damaged, or of another version.
    """
    results = [
        Result(
            **result
            | {
                "equal_size": EqualSize(**result["equal_size"]),
                "halves": tuple(result["halves"]),
                "replicates": tuple(result["replicates"]),
            }
        )
        for result in content["results"]
    ]
    return Report(**content | {"results": results})


def plus_minus(value: float, spread: float) -> str:
    """A number with its spread, if it has one."""
    return f"{value:.4g} ± {spread:.2g}" if spread else f"{value:.4g}"


def evaluate(
    images: str | Path,
    *,
    split: str = "train",
    image_column: str | None = None,
    reference: str | Path | None = None,
    reference_split: str = "test",
    reference_image_column: str | None = None,
    features: str | None = None,
    weights: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    subsets: int = 10,
    seed: int = 2020,
    batch_size: int = 256,
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Judges a set of images by a reference.

    The values are those of ``torch_fidelity.calculate_metrics`` with this seed, but for the
    rounding of means (`hdzoo.metrics.metrics.moments`).

    Args:
        images: as `open_images` takes them, such as the folder of a generated set.
        split: of the images.
        image_column: of the images.
        reference: images likewise, or a file of `Reference.save`; by default the one that the model
            in the manifest of a generated set has with it.
        reference_split: of reference images.
        reference_image_column: of reference images.
        features: the name of an extractor; by default that of a saved reference.
        weights: of the extractor, in the place of its own.
        metrics: some of `METRICS`, torch-fidelity's, and of `CLASS_METRICS`, for features with a
            classifier; all that can be had with the features by default.
        subsets: how many blocks the standard errors are from, at least 5.
        seed: of every random choice; torch-fidelity's own by default.
        batch_size: images that go through the extractor together.
        command: what the user typed, for the record.
        on_progress: called with what is done, how much of it, and of how much.

    Raises:
        HDZooError: something is not found, does not fit together, or has too few images.
    """
    begin = time.perf_counter()
    if metrics is not None:
        check_metrics(metrics)
    # Of fewer, a spread says nothing.
    Whole(LEAST_SUBSETS)("subsets", subsets)
    # What torch-fidelity's generators are started from.
    Whole(0, 2**32 - 1)("seed", seed)
    IMAGES("batch_size", batch_size)
    generated = open_images(images, split, image_column)
    check_enough(len(generated), generated.source)
    if subsets > len(generated) // 2:
        raise HDZooError(
            f"subsets is {subsets} and {generated.source} has "
            f"{counted(len(generated), 'image')}; give at most {len(generated) // 2} subsets"
        )
    saved = find_saved(generated, reference, features)
    if saved is not None:
        extractor = get_extractor(features or saved.known_extractor(), weights)
        saved.check_extractor(extractor)
        real = saved
    else:
        if features is None:
            raise HDZooError(
                "the metrics need the name of their features; give one of "
                f"{', '.join(plugins.names('feature_extractors'))}"
            )
        extractor = get_extractor(features, weights)
        extractor.check_metrics(metrics or extractor.metrics)
        real = make_reference(
            open_images(str(reference), reference_split, reference_image_column),
            extractor,
            batch_size=batch_size,
            on_progress=on_progress,
        )
    if real.num_features < 2 * LEAST_IMAGES:
        raise HDZooError(
            f"the reference has the features of {counted(real.num_features, 'image')}; at least "
            f"{2 * LEAST_IMAGES} are needed, so that its halves can be compared"
        )
    metrics = extractor.metrics if metrics is None else metrics
    extractor.check_metrics(metrics)
    found = generated.extract(extractor, batch_size, on_progress)
    results: list[Result] = []
    for number, metric in enumerate(metrics, 1):
        results += judge(metric, found.layers, real, extractor, subsets=subsets, seed=seed)
        if on_progress is not None:
            on_progress("metrics", number, len(metrics))
    return Report(
        images={
            "source": generated.source,
            "split": generated.split,
            "image_column": generated.image_column,
            "num_images": len(generated),
            "image_size": list(found.image_size),
            "manifest": generated.manifest,
        },
        reference=real.protocol,
        extractor={
            "name": extractor.name,
            "label": extractor.label,
            "weights": str(extractor.weights),
            "weights_sha256": extractor.weights_sha256,
        },
        seed=seed,
        results=results,
        notes=list(notes(len(generated), found.image_size, real, extractor)),
        versions=versions("torch", "torch-fidelity", "numpy"),
        command=command,
        seconds=round(time.perf_counter() - begin, 1),
    )


def find_saved(
    images: ImageSet, reference: str | Path | None, features: str | None
) -> Reference | None:
    """The saved reference that is meant; None if the reference is images.

    Args:
        images: that are judged.
        reference: what the user gave.
        features: likewise.

    Raises:
        HDZooError: none is given, and the images do not lead to one.
    """
    if reference is not None:
        is_file = str(reference).endswith(SUFFIX)
        return load_reference(Path(reference)) if is_file else None
    if images.manifest is None:
        raise HDZooError(
            f"{images.source} is no generated set, so that no model says which images are its "
            "reference; give one: a data set, .parquet file(s), a folder of images, or a file of "
            "`hdzoo reference`"
        )
    try:
        path = reference_of(images.manifest["model"], features)
    except HDZooError as error:
        raise HDZooError(
            f"the model that drew {images.source} leads to no reference: {error}; or give a "
            "reference yourself: a data set, .parquet file(s), a folder of images, or a file of "
            "`hdzoo reference`"
        ) from error
    return load_reference(path)


def notes(
    num_images: int, image_size: tuple[int, int], real: Reference, extractor: Extractor
) -> Sequence[str]:
    """What a reader of the numbers should know.

    Args:
        num_images: of the generated set.
        image_size: of its images.
        real: the reference.
        extractor: of both.
    """
    said = []
    half, dimension = real.num_features // 2, len(real.moments["mu"])
    if num_images > half:
        said.append(
            f"The reference has the features of {real.num_features:,} images: beside real images, "
            f"{half:,} of each are compared, not {num_images:,}."
        )
    for what, count in (("set", num_images), ("reference", real.num_images)):
        if count <= dimension and extractor.layers["fid"] in real.layers:
            said.append(
                f"The {what} has {count:,} images for {dimension:,} features: their covariance has "
                f"rank {count - 1:,} at most, and {extractor.metric_name('fid')} is mostly bias. "
                "Hold it against the value of real images, or draw more."
            )
    if list(image_size) != real.protocol["image_size"]:
        said.append(
            f"The images have {render(image_size)} pixels, those of the reference "
            f"{render(tuple(real.protocol['image_size']))}: the extractor resizes them, which the "
            "metrics see."
        )
    return said
