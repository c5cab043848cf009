"""Training of the digit classifier that image metrics are computed on."""

import dataclasses
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import tqdm
from torch.nn import functional as F

from hdzoo.checks import IMAGES, NOT_NEGATIVE, POSITIVE, SEED, Number, Rule, Whole
from hdzoo.errors import HDZooError
from hdzoo.files import check_folder, exclusive, named_path, write_json
from hdzoo.images.folder import check_apart
from hdzoo.images.images import Images
from hdzoo.metrics.classifier import DigitClassifier
from hdzoo.pipelines.saving import replacing
from hdzoo.training.data import StepBatchSampler, image_loader, image_transform
from hdzoo.training.outcome import RECORD_FILE, run_record

if TYPE_CHECKING:
    from datasets import Dataset

LABELS = "label"


NUMBERS: dict[str, Rule] = {
    "num_epochs": Whole(1, 1_000_000),
    "train_batch_size": IMAGES,
    "learning_rate": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "max_rotation": NOT_NEGATIVE,
    "max_shift": NOT_NEGATIVE,
    "max_scaling": Number(low=0, below=1),
    "seed": SEED,
}


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """What a training run depends on.

    Args:
        num_epochs: passes over the data.
        train_batch_size: images a step.
        learning_rate: the largest one of AdamW; it rises to it and falls to zero (one cycle).
        weight_decay: of AdamW.
        max_rotation: each image is turned by up to so many degrees, either way.
        max_shift: and moved by up to so many pixels along each axis.
        max_scaling: and scaled by a factor between 1 minus and 1 plus this.
        seed: of the weights, the order of the data, and the moves.
    """

    num_epochs: int = 12
    train_batch_size: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 0.02
    max_rotation: float = 12.0
    max_shift: float = 2.0
    max_scaling: float = 0.12
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what no run can use."""
        for name, rule in NUMBERS.items():
            rule(name, getattr(self, name))


def train_classifier(
    dataset: "Dataset | Images",
    test: "Dataset | Images",
    output_dir: str | Path,
    config: ClassifierConfig,
    *,
    command: str | None = None,
    dataset_name: str | None = None,
) -> Path:
    """Trains a `DigitClassifier` and measures it.

    The weights are a function of the data and the configuration alone, bit for bit on the same
    machine with the same number of threads. Nothing is kept of a run that is stopped: on MNIST one
    takes minutes (see the card of ``mnist-classifier``). A call that finds the run finished trains
    no more.

    Args:
        dataset: images with an integer column ``"label"``, from 0 to 9; brought to 28x28 and grey,
            which is said in a warning if they are not so.
        test: images to measure the accuracy on at the end, not seen before.
        output_dir: the folder to write: ``config.json``, the weights as safetensors, and the record
            ``training.json``, with ``"test_accuracy"`` among the rest.
        config: the run.
        command: what the user typed, for the record.
        dataset_name: where the images are from, for the record.

    Returns:
        ``output_dir``.

    Raises:
        HDZooError: the folder holds another run, the data have no such labels, the loss is not
            finite, or the run is interrupted.
    """
    output_dir = named_path(output_dir, "output_dir")
    check_folder(output_dir)
    record_file = output_dir / RECORD_FILE
    if record_file.is_file():
        check_same(record_file, config, len(dataset))
        return output_dir
    device = PartialState().device
    with torch.random.fork_rng(), ExitStack() as stack:
        torch.manual_seed(config.seed)
        model = DigitClassifier()
        pictures = Images.of(dataset, dataset_name or "the data set")
        test_pictures = Images.of(test, "the test set")
        for given in (pictures, test_pictures):
            check_apart(given.name, output_dir)
        check_classes(pictures, test_pictures)
        images, labels = tensors(pictures, model)
        test_images, test_labels = tensors(test_pictures, model)
        # What data are refused leave no folder.
        stack.enter_context(exclusive(output_dir))
        begin = time.monotonic()
        fit(model.to(device), images, labels, config)
        seconds = time.monotonic() - begin
        with replacing(output_dir) as partial:
            model.save_pretrained(partial)
        record = run_record(config, len(dataset), seconds, num_processes=1)
        record["test_accuracy"] = accuracy(model, test_images, test_labels)
        record["num_test_images"] = len(test)
        write_json(output_dir / RECORD_FILE, record | {"dataset": dataset_name, "command": command})
    return output_dir


def fit(
    model: DigitClassifier, images: torch.Tensor, labels: torch.Tensor, config: ClassifierConfig
) -> None:
    """Trains a network in place, and leaves it ready for use.

    Args:
        model: the network.
        images: shape (images, channels, height, width), in the network's ``data_range``.
        labels: shape (images,).
        config: the run.

    Raises:
        HDZooError: there are fewer images than in a batch, the loss is not finite, or the run is
            interrupted.
    """
    steps = config.num_epochs * (len(images) // config.train_batch_size)
    batches = StepBatchSampler(len(images), config.train_batch_size, config.seed, range(steps))
    # On a CPU the convolutions are faster so.
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(steps, 2), pct_start=0.2
    )
    with interruptible(), tqdm(total=steps, desc="training", unit="step") as progress:
        for done, batch in enumerate(batches, start=1):
            moved = move(images[batch], config).to(model.device, memory_format=torch.channels_last)
            logits = model(moved, return_dict=False)[0]
            loss = F.cross_entropy(logits, labels[batch].to(model.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.update()
            if done % 50 == 0 or done == steps:
                if not loss.isfinite():
                    raise HDZooError(
                        f"the run has diverged: the loss is {loss.item()} at step {done}; lower "
                        f"learning_rate (now {config.learning_rate:g})"
                    )
                progress.set_postfix(loss=f"{loss.item():.3f}")
    model.to(memory_format=torch.contiguous_format).eval()


def move(images: torch.Tensor, config: ClassifierConfig) -> torch.Tensor:
    """Turns, scales and shifts each image at random, from torch's global generator.

    Args:
        images: shape (batch, channels, height, width); what comes in from outside is 0.
        config: how far.
    """
    angle, scaling, *shift = torch.rand(4, len(images)) * 2 - 1
    angle = angle * torch.pi / 180 * config.max_rotation
    scale = 1 / (1 + scaling * config.max_scaling)
    # The picture goes from -1 to 1 along each axis.
    x, y = (s * 2 * config.max_shift / images.shape[-1] for s in shift)
    rows = (scale * angle.cos(), -scale * angle.sin(), x, scale * angle.sin(), scale * angle.cos())
    matrices = torch.stack([*rows, y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


@torch.no_grad()
def accuracy(model: DigitClassifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose largest logit is that of their label."""
    right = [
        model(part.to(model.device), return_dict=False)[0].argmax(1).cpu() == wanted
        for part, wanted in zip(images.split(500), labels.split(500), strict=True)
    ]
    return torch.cat(right).double().mean().item()


def test_accuracy(folder: Path) -> float:
    """The accuracy that a finished run has recorded."""
    return float(json.loads((folder / RECORD_FILE).read_text())["test_accuracy"])


def check_classes(images: Images, test: Images) -> None:
    """Refuses data sets that number their classes differently."""
    one, other = (
        getattr(part.dataset.features.get(LABELS), "names", None) for part in (images, test)
    )
    if one and other and one != other:
        raise HDZooError(
            f"the classes of {images.name} are {', '.join(one)}, and those of {test.name} "
            f"{', '.join(other)}; their numbers must mean the same"
        )


def tensors(
    dataset: "Dataset | Images", model: DigitClassifier
) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of a data set, as a network takes them.

    Raises:
        HDZooError: the labels are missing, or not those of the network.
    """
    config = model.config
    images = Images.of(dataset)
    columns = images.dataset.column_names
    if LABELS not in columns:
        raise HDZooError(
            f"a classifier needs a column {LABELS!r}, and {images.name} has {', '.join(columns)}; "
            "rename or add it, or put the images of each class into a folder"
        )
    found = images.dataset[LABELS][:]
    try:
        labels = torch.as_tensor(found)
        if labels.is_floating_point() or labels.ndim != 1:
            raise TypeError(f"they are {labels.dtype} of shape {tuple(labels.shape)}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise HDZooError(
            f"the labels of {images.name} are no whole numbers, one for each image: {error}"
        ) from error
    wrong = labels[(labels < 0) | (labels >= config.num_classes)]
    if len(wrong):
        raise HDZooError(
            f"label {wrong[0].item()} is none of the {config.num_classes} classes, which count "
            f"from 0 to {config.num_classes - 1}"
        )
    survey = images.survey()
    if survey.side != config.sample_size or (survey.has_colour and config.in_channels == 1):
        warnings.warn(
            f"{images.name} has {survey}; they are brought to {config.sample_size} x "
            f"{config.sample_size} pixels, {'grey' if config.in_channels == 1 else 'RGB'}",
            stacklevel=2,
        )
    transform = image_transform(config.sample_size, config.in_channels, config.data_range)
    return torch.cat(list(image_loader(images, transform, batch_size=500))), labels


def check_same(record_file: Path, config: ClassifierConfig, num_images: int) -> None:
    """Refuses a finished run of other options or other data, and says what differs."""
    record: dict[str, Any] = json.loads(record_file.read_text())
    before = record["config"] | {"images": record["num_images"]}
    now = dataclasses.asdict(config) | {"images": num_images}
    differs = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if differs:
        raise HDZooError(
            f"{record_file.parent} holds another run: {'; '.join(differs)}; give another output "
            "folder"
        )


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns Ctrl-C into a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise HDZooError("interrupted; nothing is kept, and the same command starts anew") from None
