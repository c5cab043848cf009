"""What a sampler draws, replaced."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hdzoo.errors import HDZooError


class NotAffineError(HDZooError):
    """A sampler whose law on Gaussian data is not Gaussian, or cannot be found by impulses."""


# Of torch's functions those that draw. All that is drawn in Python goes through one of them.
RANDOM = frozenset(
    (
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "randperm",
        "normal",
        "normal_",
        "uniform_",
        "random_",
        "bernoulli",
        "bernoulli_",
        "binomial",
        "cauchy_",
        "exponential_",
        "geometric_",
        "log_normal_",
        "multinomial",
        "poisson",
        "dropout",
        "dropout_",
        "alpha_dropout",
        "alpha_dropout_",
        "feature_dropout",
        "feature_dropout_",
        "rrelu",
        "rrelu_",
        "feature_alpha_dropout",
        "feature_alpha_dropout_",
        "native_dropout",
        "_standard_gamma",
        "_sample_dirichlet",
    )
)


class Draws(TorchFunctionMode):
    """Replaces whatever is drawn inside it, each draw by what a function of its number returns."""

    def __init__(self, replacement: Callable[[int, torch.Size], torch.Tensor]) -> None:
        super().__init__()
        self.replacement = replacement
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name not in RANDOM:
            return func(*args, **kwargs)
        if name in ("randn", "randn_like") and kwargs.get("out") is None:
            # What is replaced need not be drawn, which would take as long as all the rest.
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"}
            empty = torch.empty if name == "randn" else torch.empty_like
            return self.instead_of(empty(*args, **kwargs))
        # Where arguments have one form; which costs too much for all that is called.
        with _Drawing(self):
            return func(*args, **kwargs)

    def instead_of(self, drawn: torch.Tensor) -> torch.Tensor:
        """What a draw of standard normal noise is replaced by."""
        unit = self.replacement(self.count, drawn.shape)
        if unit.numel() != drawn.numel():
            raise NotAffineError(
                f"noise of the shape {tuple(drawn.shape)} is drawn for states of the shape "
                f"{tuple(unit.shape)}; each coordinate of each sample needs its own"
            )
        self.count += 1
        return unit.view(drawn.shape).to(drawn.dtype)


class _Drawing(TorchDispatchMode):
    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name not in ("randn", "normal_", "normal"):
            raise NotAffineError(
                f"the sampler draws {name}; its exact law is found where it draws normal noise only"
            )
        drawn = func(*args, **kwargs)
        unit = self.draws.instead_of(drawn)
        if name == "normal":
            return args[0] + (args[1] if len(args) > 1 else 1.0) * unit
        if name == "normal_":
            given = dict(zip(("mean", "std"), args[1:], strict=False))
            mean_std = {"mean": 0.0, "std": 1.0} | kwargs | given
            return drawn.copy_(mean_std["mean"] + mean_std["std"] * unit)
        return drawn.copy_(unit)
