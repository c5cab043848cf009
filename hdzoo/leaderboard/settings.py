"""What all samplers of a comparison have in common, and that a folder holds one comparison."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdzoo.checks import IMAGES, SEED, THREADS, Maybe, OneOf, Rule, Whole
from hdzoo.errors import HDZooError
from hdzoo.files import check_no_link, has_content, sweep, write_json, writing
from hdzoo.generation.manifest import flat
from hdzoo.leaderboard.tuning import MOST_POINTS
from hdzoo.metrics.comparison import RANKINGS
from hdzoo.metrics.features import check_metrics
from hdzoo.metrics.metrics import LEAST_IMAGES
from hdzoo.pipelines.backends import check_backend
from hdzoo.sampling import find_dtype

PROTOCOL = "protocol.json"
MOST_TRIAL_IMAGES = 250


@dataclass(frozen=True)
class Settings:
    """What all samplers of a comparison have in common.

    Args:
        num_images: of each set that is reported.
        options: of every sampler that has them; what is given is not tuned.
        trials: configurations to try of each sampler at each cost, at most, its own among them; 0
            takes that one untried.
        trial_images: drawn with each; 250 by default, and never more than ``num_images``.
        seed: of the images that are reported.
        trial_seed: of those that are tried.
        chunk_size: images drawn together. Processes share chunks, so at most
            ``trial_images / chunk_size`` of them are busy while a sampler is tuned.
        dtype: of the network's weights.
        backend: what computes the network, as `generate` has it.
        num_threads: CPU threads of each process.
        class_label: for a class-conditional network, the class of all images; evenly over all
            classes by index by default.
        reference: as `evaluate` has it; so are ``reference_split``, ``features``, ``weights`` and
            ``metrics``, of which ``rank_by`` is always one.
        reference_split: of reference images.
        reference_image_column: of reference images, likewise.
        features: the name of an extractor.
        weights: of the extractor.
        rank_by: the metric that samplers are tuned by and ranked by: ``fid``, ``wfid``, ``tv``,
            ``precision`` or ``recall``. The Fréchet distance of a thousand images is mostly luck in
            the shares of the classes; ``wfid`` has them equal to the data's, and ``tv`` is what is
            left out of it.

    Raises:
        HDZooError: a number is out of its range, or both seeds are one.
    """

    num_images: int = 1000
    options: dict[str, Any] = field(default_factory=dict)
    trials: int = 8
    trial_images: int | None = None
    seed: int = 0
    trial_seed: int = 1
    chunk_size: int = 125
    dtype: str = "float32"
    backend: str = "torch"
    num_threads: int = 1
    class_label: int | None = None
    reference: str | Path | None = None
    reference_split: str = "test"
    reference_image_column: str | None = None
    features: str | None = None
    weights: str | Path | None = None
    metrics: Sequence[str] | None = None
    rank_by: str = "fid"

    def __post_init__(self) -> None:
        enough = Whole(LEAST_IMAGES, IMAGES.high)
        rules: dict[str, Rule] = {
            "num_images": enough,
            "trials": Whole(0, MOST_POINTS),
            "trial_images": Maybe(enough),
            "seed": SEED,
            "trial_seed": SEED,
            "chunk_size": IMAGES,
            "num_threads": THREADS,
            # What has the spread of a difference.
            "rank_by": OneOf(tuple(RANKINGS)),
        }
        for name, rule in rules.items():
            rule(name, getattr(self, name))
        check_backend(self.backend, find_dtype(self.dtype))
        if self.metrics is not None:
            check_metrics(self.metrics)
        if self.trial_images is None:
            object.__setattr__(self, "trial_images", min(MOST_TRIAL_IMAGES, self.num_images))
        elif self.trial_images > self.num_images:
            raise HDZooError(
                f"trial_images is {self.trial_images} and num_images is {self.num_images}; a "
                "sampler is tuned on at most as many images as it is judged by, so give fewer"
            )
        if self.seed == self.trial_seed:
            raise HDZooError(
                f"seed and trial_seed are both {self.seed}; images that a sampler was tuned on say "
                "too much good of it, so give two seeds"
            )

    @property
    def drawing(self) -> dict[str, Any]:
        """For `generate`."""
        names = ("chunk_size", "dtype", "backend", "num_threads", "class_label")
        return {key: getattr(self, key) for key in names}

    @property
    def objective(self) -> str:
        """The metric of `hdzoo.metrics.features` that gives ``rank_by``."""
        return self.rank_by if self.rank_by not in ("precision", "recall") else "prc"

    @property
    def judging(self) -> dict[str, Any]:
        """For `evaluate`."""
        names = ("reference", "reference_split", "reference_image_column", "features", "weights")
        return {key: getattr(self, key) for key in names}


def keep_protocol(folder: Path, protocol: dict[str, Any]) -> None:
    """Writes the protocol of a new comparison; refuses the folder of another one."""
    path, reports = folder / PROTOCOL, folder / "reports"
    for part in (folder / "sets", folder / "trials", reports, reports / "sets", reports / "trials"):
        check_no_link(part)
    sweep(folder, reports / "sets", reports / "trials")
    if not path.exists():
        if has_content(folder):
            raise HDZooError(
                f"{folder} is not empty and has no {PROTOCOL}; give a new folder, or that of a "
                "comparison to go on with"
            )
        with writing(folder):
            write_json(path, protocol)
        return
    try:
        before = flat(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise HDZooError(f"{path} is damaged: {error}; give another folder") from error
    now = flat(json.loads(json.dumps(protocol)))
    differs = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    ]
    if differs:
        raise HDZooError(
            f"{folder} holds a comparison of another protocol: {'; '.join(differs)}. Give the same "
            "to go on with it, or another folder"
        )
