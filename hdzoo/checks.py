"""What an argument may be, checked and said in one way.

A rule is called with the name of an argument and its value. It gives the value back as plain
Python, which a configuration can be saved with, or raises an `HDZooError`. NumPy's numbers and
tensors of one number are numbers too; ``True``, ``"3"`` and NaN are none.
"""

import functools
import inspect
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from hdzoo.errors import HDZooError

if TYPE_CHECKING:
    import torch

Rule = Callable[[str, Any], Any]
Init = TypeVar("Init", bound=Callable[..., None])

LONGEST_REPR = 60

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, LONGEST_REPR, LONGEST_REPR
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 10


def refuse(name: str, value: Any, allowed: str, cause: Exception | None = None) -> NoReturn:
    """Raises the error of an argument that is not allowed.

    Args:
        name: of the argument.
        value: of it.
        allowed: what it must be, such as ``"a finite number above 0"``.
        cause: the error that it led to.
    """
    raise HDZooError(f"{name} is {shown(value)}; it must be {allowed}") from cause


def shown(value: Any) -> str:
    """A value in an error: short, and of an array the shape and the dtype alone."""
    kind = type(value).__name__
    if getattr(value, "shape", ()) != () and hasattr(value, "dtype"):
        return f"a {kind} of shape {tuple(value.shape)} and dtype {value.dtype}"
    try:
        # A list of lists of lists may have more to print than to hold.
        text = " ".join(_SHORT.repr(value.item() if hasattr(value, "dtype") else value).split())
    except Exception:
        # Integers of more than 4300 digits, and objects that cannot be printed.
        return f"a {kind}"
    return text if len(text) <= LONGEST_REPR else f"{text[:LONGEST_REPR]}... (a {kind})"


@dataclass(frozen=True)
class Whole:
    """A whole number.

    Attributes:
        low: the lowest that is allowed; None for any.
        high: the highest.
    """

    low: int | None = None
    high: int | None = None

    def __call__(self, name: str, value: Any) -> int:
        number = _scalar(value)
        if isinstance(number, bool) or not isinstance(number, Integral):
            refuse(name, value, str(self))
        whole = int(number)
        if (self.low is not None and whole < self.low) or (
            self.high is not None and whole > self.high
        ):
            refuse(name, value, str(self))
        return whole

    def __str__(self) -> str:
        ends = (None if end is None else f"{end:,}" for end in (self.low, self.high))
        return "a whole number" + _between(*ends)


@dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        low: the lowest that is allowed; None for any.
        high: the highest.
        above: a number that it must be above; None for any.
        below: a number that it must be below.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __call__(self, name: str, value: Any) -> float:
        number = _scalar(value)
        if isinstance(number, bool) or not isinstance(number, Real):
            refuse(name, value, str(self))
        try:
            real = float(number)
        except OverflowError:
            real = math.inf
        if not (
            math.isfinite(real)
            and (self.low is None or real >= self.low)
            and (self.high is None or real <= self.high)
            and (self.above is None or real > self.above)
            and (self.below is None or real < self.below)
        ):
            refuse(name, value, str(self))
        return real

    def __str__(self) -> str:
        ends = (None if end is None else f"{end:g}" for end in (self.low, self.high))
        text = "a finite number" + _between(*ends)
        text += "" if self.above is None else f" above {self.above:g}"
        return text + ("" if self.below is None else f" and below {self.below:g}")


@dataclass(frozen=True)
class OneOf:
    """One of some words.

    Attributes:
        words: those that are allowed.
    """

    words: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise HDZooError(f"{name} is {shown(value)}; allowed are {self}")
        return value

    def __str__(self) -> str:
        return ", ".join(map(repr, self.words))


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def __call__(self, name: str, value: Any) -> bool:
        flag = _scalar(value)
        if not isinstance(flag, bool):
            refuse(name, value, str(self))
        return flag

    def __str__(self) -> str:
        return "True or False"


@dataclass(frozen=True)
class Many:
    """A list of values of one kind; a tuple, an array or a tensor of one axis will do.

    Attributes:
        each: the rule of one of them.
        least: how many there must be.
        most: how many there may be; they are counted before anything else is done.
    """

    each: Rule
    least: int = 1
    most: int | None = None

    def __call__(self, name: str, value: Any) -> Any:
        array = getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")
        if not (isinstance(value, list | tuple) or array):
            refuse(name, value, str(self))
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            raise HDZooError(f"{name} has {len(value):,} values; it must be {self}")
        values = value.tolist() if array else value
        checked = [self.each(f"{name}[{i}]", one) for i, one in enumerate(values)]
        return tuple(checked) if isinstance(value, tuple) else checked

    def __str__(self) -> str:
        count = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most:,}"
        return f"a list of {count} values, each {self.each}"


@dataclass(frozen=True)
class Interval:
    """Two finite numbers, the lower one first."""

    def __call__(self, name: str, value: Any) -> Any:
        ends = Many(Number(), 2, 2)(name, value)
        # Their difference is divided by.
        if not 0 < ends[1] - ends[0] < math.inf:
            refuse(name, value, str(self))
        return ends

    def __str__(self) -> str:
        return "two finite numbers, the lower one first"


@dataclass(frozen=True)
class Maybe:
    """None, or what another rule allows.

    Attributes:
        rule: the other one.
    """

    rule: Rule

    def __call__(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        try:
            return self.rule(name, value)
        except HDZooError as error:
            raise HDZooError(f"{error}, or None") from None

    def __str__(self) -> str:
        return f"{self.rule}, or None"


# Of a ladder; the longest published one has 2,311.
MAX_LEVELS = 100_000

COUNT = Whole(1)
# Of images: of a set, or drawn together.
IMAGES = Whole(1, 100_000_000)
# What Parquet's columns hold.
SEED = Whole(0, 2**63 - 1)
THREADS = Whole(1, 1024)
POSITIVE = Number(above=0)
NOT_NEGATIVE = Number(low=0)
# Of a network or a sampler: its square and the inverse of that are numbers of float32.
LOWEST_NOISE, HIGHEST_NOISE = 1e-15, 1e15
NOISE_LEVEL = Number(LOWEST_NOISE, HIGHEST_NOISE)
LEVELS = Many(NOISE_LEVEL, most=MAX_LEVELS)


def checked(**rules: Rule) -> Callable[[Init], Init]:
    """Checks the arguments of an ``__init__`` before anything else is done with them.

    Put it above `register_to_config`, which then records what the rules give back. The rules stay
    with the ``__init__``, as its attribute ``rules``.

    Args:
        **rules: for each argument its own. One without a rule, or that is not given, is let by.
    """

    def decorate(init: Init) -> Init:
        names = list(inspect.signature(init).parameters)[1:]

        def allowed(name: str, value: Any) -> Any:
            return rules[name](name, value) if name in rules else value

        @functools.wraps(init)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
            given = [allowed(*one) for one in zip(names, args, strict=False)]
            named = {name: allowed(name, value) for name, value in kwargs.items()}
            init(self, *given, *args[len(names) :], **named)

        wrapper.rules = rules  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate


def real_array(name: str, values: Any) -> npt.NDArray[np.float64]:
    """A tensor, an array, a list or a number as an array of float64, which may be a view.

    Args:
        name: of the argument.
        values: of it; any shape, any device.

    Raises:
        HDZooError: it holds something else than real numbers, or a value that is not finite.
    """
    array = as_float64(name, values)
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise HDZooError(
            f"{name} has {wrong} of {array.size} values that are not finite; look for where they "
            "come from, such as a sampler that diverged, or leave them out"
        )
    return array


def as_float64(name: str, values: Any) -> npt.NDArray[np.float64]:
    """As `real_array`, of values that need not be finite."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no bfloat16, so the tensor is widened first.
        values = (values.double() if values.is_floating_point() else values).numpy()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        refuse(name, values, "an array of numbers, all rows of one length", error)
    if array.dtype.kind not in "biuf":
        refuse(name, array if array.ndim else values, "an array of real numbers")
    # What is too large for float64 comes out infinite.
    with np.errstate(over="ignore"):
        return array.astype(np.float64, copy=False)


def floating(name: str, value: Any, allowed: str) -> Any:
    """A tensor of floating-point numbers: results are of its dtype, and whole numbers would be cut.

    Args:
        name: of the argument.
        value: of it.
        allowed: what it must be, for the error.

    Raises:
        HDZooError: it is none.
    """
    floating_dtype(name, value, allowed)
    return value


def floating_dtype(name: str, value: Any, allowed: str) -> "torch.dtype":
    """The dtype of what `floating` lets through; arguments as there."""
    dtype: torch.dtype | None = value.dtype if hasattr(value, "is_floating_point") else None
    if dtype is None or not dtype.is_floating_point:
        refuse(name, value, f"a tensor of a floating-point dtype, {allowed}")
    return dtype


def check_device(device: Any) -> None:
    """Refuses what is no device, or one that is not here; None is any."""
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
    # Whatever the library of the device raises.
    except Exception as error:
        refuse("device", device, "a device that is here, such as 'cpu' or 'cuda:0', or None", error)


def _scalar(value: Any) -> Any:
    """A number of NumPy or PyTorch as Python's own; all else as it is."""
    if hasattr(value, "dtype") and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _between(low: str | None, high: str | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"
