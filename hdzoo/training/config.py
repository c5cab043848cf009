"""The options of a training run."""

import dataclasses
from typing import Any

from hdzoo.checks import IMAGES, POSITIVE, SEED, Maybe, Number, Rule, Whole
from hdzoo.errors import HDZooError
from hdzoo.images.framing import INTERPOLATIONS, Framing
from hdzoo.training.average import EMA_RULES
from hdzoo.training.objectives import LOSS_WEIGHTINGS, SIGMA_DISTRIBUTIONS, build_objective
from hdzoo.training.objectives.base import option_defaults

CHOICES = {
    # Of diffusers' schedules, "piecewise_constant" needs rules of its own.
    "lr_scheduler": (
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
    ),
    "sigma_distribution": SIGMA_DISTRIBUTIONS,
    "ema_rule": EMA_RULES,
    "loss_weighting": LOSS_WEIGHTINGS,
    "mixed_precision": ("no", "bf16", "fp16"),
    "image_interpolation_mode": INTERPOLATIONS,
}
MOST_STEPS = 1_000_000_000
NUMBERS: dict[str, Rule] = {
    "max_train_steps": Whole(1, MOST_STEPS),
    "train_batch_size": IMAGES,
    "gradient_accumulation_steps": Whole(1, MOST_STEPS),
    "learning_rate": POSITIVE,
    "lr_warmup_steps": Whole(0, MOST_STEPS),
    "max_grad_norm": POSITIVE,
    "ema_decay": Number(low=0, below=1),
    "log_sigma_mean": Number(),
    "log_sigma_std": POSITIVE,
    "seed": SEED,
    "center_crop": Maybe(Whole(1)),
}
# What people call them as well.
PRECISIONS = {"float32": "no", "fp32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What a training run depends on.

    Args:
        max_train_steps: optimiser steps in all. May grow from one call to the next.
        train_batch_size: images a step, over all processes.
        gradient_accumulation_steps: parts into which each process divides its images of a step, so
            that they need less memory.
        learning_rate: of Adam.
        lr_scheduler: diffusers' name of the schedule: ``"constant_with_warmup"``, ``"cosine"``...
        lr_warmup_steps: steps of linear warm-up.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: the largest decay of the moving average of the weights.
        ema_rule: how the decay grows to it, one of those of `hdzoo.training.average.Average`.
        sigma_distribution: ``"ladder"`` for a network with a ladder of its own, ``"log-uniform"``
            or ``"log-normal"`` for one that is trained on a range of noise levels.
        log_sigma_mean: for ``"log-normal"``.
        log_sigma_std: for ``"log-normal"``.
        loss_weighting: ``"song-ermon"`` (``sigma^2``) or ``"karras"``.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"``, as Accelerate takes it; or the name of
            the dtype.
        seed: of the order of the data, and of the noise.
        random_flip: whether each image is mirrored with probability 1/2.
        dequantize: whether noise within one grey level is added to each image, anew at each step,
            and to held-out ones (`hdzoo.training.data.dequantized`).
        center_crop: side of the square around its centre that each image is cropped to, in pixels;
            smaller ones are refused. By default images are taken whole.
        resize: whether images of another size than the network's are cropped to squares around
            their centres, the largest if `center_crop` says nothing else, and resized; else they
            are refused.
        image_interpolation_mode: of the resizing, one of `hdzoo.images.framing.INTERPOLATIONS`.
        initial_weights: the hash of the weights that the run starts from
            (`hdzoo.training.setup.initial_network`); None for fresh ones.
        objective: the registered name of what is made small.
        objective_options: options of its class; those at their default are left out.
    """

    max_train_steps: int = 10_000
    train_batch_size: int = 128
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    lr_scheduler: str = "constant_with_warmup"
    lr_warmup_steps: int = 200
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9995
    ema_rule: str = "warmup"
    sigma_distribution: str = "ladder"
    log_sigma_mean: float = -1.4
    log_sigma_std: float = 1.4
    loss_weighting: str = "song-ermon"
    mixed_precision: str = "no"
    seed: int = 0
    random_flip: bool = False
    dequantize: bool = False
    center_crop: int | None = None
    resize: bool = False
    image_interpolation_mode: str = INTERPOLATIONS[0]
    initial_weights: str | None = None
    objective: str = "denoising"
    objective_options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what no run can use, before anything is written."""
        precision = PRECISIONS.get(self.mixed_precision, self.mixed_precision)
        object.__setattr__(self, "mixed_precision", precision)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise HDZooError(
                    f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}"
                )
        for name, rule in NUMBERS.items():
            rule(name, getattr(self, name))
        if self.image_interpolation_mode != INTERPOLATIONS[0] and not self.resize:
            raise HDZooError(
                f"image_interpolation_mode is {self.image_interpolation_mode!r}, and nothing is "
                "resized; give resize=True (--resize) as well"
            )
        defaults = option_defaults(type(build_objective(self.objective, self.objective_options)))
        # One that a later version adds leaves a run the same.
        given = {k: v for k, v in self.objective_options.items() if v != defaults[k]}
        object.__setattr__(self, "objective_options", given)

    def framing(self, side: int | None) -> Framing:
        """What is done to each image before a network sees it.

        Args:
            side: of the network; None where it is to be that of the images.
        """
        size = side if self.resize else None
        return Framing(size, self.center_crop, self.image_interpolation_mode)
