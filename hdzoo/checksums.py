"""Files of tensors that know their own checksum, so that no damage goes unnoticed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hdzoo.errors import HDZooError
from hdzoo.files import whole_file

# The entry of a file's metadata: SHA-256 of all that is in it, in hexadecimal.
CHECKSUM = "hdzoo_sha256"


def content_hash(
    tensors: Iterable[tuple[str, torch.Tensor]], metadata: Mapping[str, str] | None = None
) -> str:
    """SHA-256 of named tensors, and of what is said of them, however they are stored.

    Args:
        tensors: names and tensors, sorted by name.
        metadata: its entry `CHECKSUM` is left out.

    Returns:
        64 hexadecimal digits.
    """
    said = {key: value for key, value in (metadata or {}).items() if key != CHECKSUM}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, tensor in tensors:
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file with its checksum. The same content gives the same bytes.

    Args:
        tensors: of any device.
        path: of the file; it is written whole or not at all.
        metadata: of the file.

    Raises:
        HDZooError: it cannot be written.
    """
    # Copies, since the format has no place for tensors that share memory.
    copies = {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in tensors}
    said = dict(metadata or {})
    said[CHECKSUM] = content_hash(sorted(copies.items()), said)
    with whole_file(path) as partial:
        save_file(copies, partial, said)
        _sort_metadata(partial)


def _sort_metadata(path: Path) -> None:
    """Puts the metadata of a safetensors file in order, which is another at each writing."""
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length
        file.seek(8)
        # The format pads its header with spaces.
        file.write(ordered.ljust(length))


def add_checksum(path: Path) -> None:
    """Writes a safetensors file anew, with its checksum.

    Args:
        path: of the file.
    """
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors, metadata = {name: file.get_tensor(name) for name in names}, file.metadata()
    save_tensors(tensors, path, metadata)


def check_tensors(path: Path) -> bool:
    """Refuses a damaged safetensors file.

    Args:
        path: of the file.

    Returns:
        Whether the file has a checksum; without one nothing can be told.

    Raises:
        HDZooError: it cannot be read, or its content is not what was written.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if CHECKSUM not in metadata:
                return False
            names = sorted(file.keys())
            found = content_hash(((name, file.get_tensor(name)) for name in names), metadata)
    except (SafetensorError, OSError) as error:
        raise HDZooError(
            f"{path} cannot be read, or is damaged: {error}; download or save it again"
        ) from error
    if found != metadata[CHECKSUM]:
        raise HDZooError(
            f"{path} is damaged: its content has the SHA-256 {found[:8]}..., where "
            f"{metadata[CHECKSUM][:8]}... was written; download or save it again"
        )
    return True
