"""The checkpoints of three repositories: how they are opened, and where the weights are in them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from hdzoo.errors import HDZooError

Weights = dict[str, Tensor]

_MAKERS = ("scalar", "_reconstruct")

# What a state dict holds besides what an optimizer trains.
_LADDER = "sigmas"
_FREQUENCIES = re.compile(r"all_modules\.\d+\.W")

# What weights are kept in; others have no like in a network.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Names by which NumPy's numbers and arrays are pickled, and plain data of Python's own. Those who
# train keep them beside the weights; nobody here does.
_DATA = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in _MAKERS),
    "numpy.dtype",
    "numpy.ndarray",
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
    # What a defaultdict makes where it has nothing, and plain data that no other name stands for.
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("dict", "list", "int", "float", "frozenset", "range", "slice")
    ),
)

LAYOUTS = (
    "[state dict, optimizer] as in ermongroup/ncsn, [state dict, optimizer, epoch, step, averaged "
    "weights] as in ermongroup/ncsnv2, {model, ema, optimizer, step} as in "
    "yang-song/score_sde_pytorch, or a state dict alone"
)


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a checkpoint, under the names of the authors' networks.

    Attributes:
        source: the repository whose layout it has, ``"ncsn"``, ``"ncsnv2"`` or
            ``"score_sde_pytorch"``; None for a state dict alone.
        weights: as the optimizer left them, and buffers.
        averaged: the exponential moving average of what the optimizer trains; None if the file has
            none.
    """

    source: str | None
    weights: Weights
    averaged: Weights | None


class _LeftOut:
    """Stands in an opened pickle where something of NumPy's or plain data of Python's was."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# PyTorch fills none but plain dicts and lists.
def _dict(*_: Any) -> dict[Any, Any]:
    return {}


def _list(*_: Any) -> list[Any]:
    return []


def open_pickle(path: Path) -> Any:
    """Opens a pickle of tensors, numbers, lists and dicts. Nothing in it is executed.

    What NumPy made is left out, and so are dates, paths and namespaces.

    Args:
        path: as ``torch.save`` writes it, of any version.

    Raises:
        HDZooError: it cannot be read, is damaged, or holds anything else.
    """
    if not path.is_file():
        raise HDZooError(f"there is no checkpoint {path}; give the path of a .pth file")
    check_zip(path)
    try:
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
        stand_ins = [(_dict, "collections.defaultdict"), (_list, "collections.deque")]
        stand_ins += [(_LeftOut, name) for name in _DATA]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except HDZooError:
        raise
    except Exception as error:
        refused = re.search(r"(?:GLOBAL|Unsupported class|class) ([\w.]+\.[\w.]+)", str(error))
        if refused:
            raise HDZooError(
                f"{path} is a pickle that wants to run {refused[1]!r} when it is opened; nothing "
                "of it was run. A checkpoint needs tensors, numbers, lists and dicts only; do not "
                "trust this file"
            ) from error
        raise HDZooError(
            f"{path} cannot be read as a checkpoint: it is damaged, cut off, or another kind of "
            f"file ({type(error).__name__}). Download it again; it must be a file of torch.save "
            f"with {LAYOUTS}"
        ) from error


def check_zip(path: Path) -> None:
    """Refuses a zip archive, as newer ``torch.save`` writes it, that is damaged or too large.

    PyTorch neither asks for the sizes nor compares the checksums.

    Args:
        path: of a file, which may be of another kind.

    Raises:
        HDZooError: it unpacks to more than it is, or an entry has not the CRC-32 that it was
            written with.
    """
    if not is_zipfile(path):
        return
    try:
        with ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > path.stat().st_size:
                raise HDZooError(
                    f"{path} has {path.stat().st_size:,} bytes and unpacks to {unpacked:,}; "
                    "torch.save packs nothing. Do not trust this file"
                )
            damaged = archive.testzip()
    except (BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        damaged = str(error)
    if damaged is not None:
        raise HDZooError(
            f"{path} is damaged: its entry {damaged!r} is not what was written, by its checksum. "
            "Download it again"
        )


def read_checkpoint(path: Path, averages: bool = True) -> Checkpoint:
    """Opens a checkpoint and finds the weights in it.

    Args:
        path: of the file.
        averages: whether to look for averaged weights; else they are left out, whatever is there.

    Raises:
        HDZooError: it cannot be opened, or is laid out in another way.
    """
    content = open_pickle(path)
    if isinstance(content, list | tuple) and len(content) in (2, 4, 5):
        weights = _state_dict(content[0], path, "the first entry")
        if len(content) == 2:
            return Checkpoint("ncsn", weights, None)
        if not averages or len(content) < 5:
            return Checkpoint("ncsnv2", weights, None)
        return Checkpoint("ncsnv2", weights, _state_dict(content[4], path, "the fifth entry"))
    if isinstance(content, Mapping) and "model" in content:
        weights = _state_dict(content["model"], path, "the entry 'model'")
        averaged = _averaged_list(content, weights, path) if averages else None
        return Checkpoint("score_sde_pytorch", weights, averaged)
    if isinstance(content, Mapping) and content and _all_tensors(content):
        return Checkpoint(None, _state_dict(content, path, "it"), None)
    kind = type(content).__name__
    if isinstance(content, Mapping | list | tuple):
        kind += f" of {len(content)}"
    if isinstance(content, Mapping):
        kind += f", {', '.join(map(repr, list(content)[:5]))}..."
    raise HDZooError(f"{path} holds a {kind}; a checkpoint that can be converted is {LAYOUTS}")


def trained(weights: Weights) -> list[str]:
    """The names of what an optimizer trains, in the order of the authors' ``parameters()``."""
    return [key for key in weights if key != _LADDER and not _FREQUENCIES.fullmatch(key)]


def _all_tensors(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _state_dict(content: Any, path: Path, where: str) -> Weights:
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise HDZooError(
            f"{path} holds no weights where they belong: {where} is no dict of tensors; a "
            f"checkpoint that can be converted is {LAYOUTS}"
        )
    weights: Weights = {}
    for name, value in content.items():
        key = name.removeprefix("module.")
        if key in weights:
            raise HDZooError(
                f"{path} has {key!r} twice in {where}, with and without 'module.' before it; it "
                "cannot be known which is meant. Save one of the two"
            )
        weights[key] = _weight(value, name, path)
    total = sum(value.nbytes for value in weights.values())
    if total > path.stat().st_size:
        raise HDZooError(
            f"{path} has {path.stat().st_size:,} bytes, and the weights in {where} would be "
            f"{total:,}; do not trust this file"
        )
    for key, value in weights.items():
        # In float32, which is what a network keeps.
        if not torch.isfinite(value.float()).all():
            raise HDZooError(
                f"{path} has weights that are not finite, {key!r} first; take another checkpoint "
                "of that run"
            )
    return weights


def _weight(value: Tensor, name: str, path: Path) -> Tensor:
    kept = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
    if not kept or value.dtype not in _DTYPES:
        raise HDZooError(
            f"{path} has {name!r} of {value.dtype}, {value.layout}, on {value.device}; a weight is "
            f"a plain tensor of {', '.join(map(str, _DTYPES))}"
        )
    # A tensor may say that it is larger than what is stored of it.
    if value.nbytes > value.untyped_storage().nbytes():
        raise HDZooError(
            f"{path} has {name!r} of the shape {tuple(value.shape)}, {value.nbytes:,} bytes, of "
            f"which {value.untyped_storage().nbytes():,} are in the file; do not trust it"
        )
    return value.detach()


def _averaged_list(content: Mapping[str, Any], weights: Weights, path: Path) -> Weights | None:
    """The averaged weights, which are a list there, under the names of what is trained."""
    if content.get("ema") is None:
        return None
    ema, names = content["ema"], trained(weights)
    values = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(values, list | tuple) or len(values) != len(names):
        found = len(values) if isinstance(values, list | tuple) else "no list of"
        raise HDZooError(
            f"{path} has {found} averaged weights in ema.shadow_params, and its network has "
            f"{len(names)} that are trained; take another checkpoint, or the weights that are not "
            "averaged (--no-ema)"
        )
    return _state_dict(dict(zip(names, values, strict=True)), path, "ema.shadow_params")
