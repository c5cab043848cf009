"""Where models come from: folders, bundled names, and the Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hdzoo.bundled import INDEX, named_model, what_a_model_is
from hdzoo.errors import HDZooError
from hdzoo.files import named_path
from hdzoo.hub import downloads, weights
from hdzoo.hub.client import reason
from hdzoo.hub.index import check_unconditional, no_index, read_index

# What `hdzoo evaluate` compares images with.
REFERENCES = "reference-*"
DOWNLOADED = ("*.json", "README.md", f"{REFERENCES}{weights.SAFETENSORS}")


def local_model(name: str | Path) -> Path | None:
    """The folder of a model that is here, an existing one or a bundled one."""
    path = named_path(name, "the model")
    return path if path.is_dir() else named_model(str(name))


def resolve_model(name: str | Path, *, variant: str | None = None, **options: Any) -> Path:
    """Finds a model: an existing folder, a bundled name without a slash, or a Hub id.

    Args:
        name: which.
        variant: of the weights to download, such as ``"fp16"``.
        **options: `huggingface_hub.snapshot_download`'s ``revision``, ``token``, ``cache_dir``,
            ``local_files_only`` and ``force_download``.

    Returns:
        A local folder.

    Raises:
        HDZooError: it is none of the three, or no pipeline, or the Hub does not give it.
    """
    local = local_model(name)
    if local is None:
        with refusal(str(name), options):
            return download_pipeline(str(name), variant, **options)
    if options.get("revision") is not None:
        raise HDZooError(
            f"revision is {options['revision']!r}, and {str(name)!r} is a folder, {local}, which "
            "has no revisions; leave it out"
        )
    return local


@contextmanager
def refusal(name: str, options: dict[str, Any]) -> Iterator[None]:
    """Turns whatever the Hub, or its client, says of a model into an `HDZooError`.

    Args:
        name: of the model.
        options: of the download.
    """
    allowed = what_a_model_is()
    if name.count("/") != 1 or Path(name).is_absolute():
        raise HDZooError(f"there is no model {name!r}: {allowed}")
    try:
        yield
    except HDZooError:
        raise
    except RevisionNotFoundError as error:
        raise HDZooError(
            f"{name!r} has no revision {options.get('revision')!r} on the Hub; give one of its "
            "branches, tags or commits"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HDZooError(
            f"there is no model {name!r} on the Hub, or it needs a token=... or `hf auth login`: "
            f"{allowed}"
        ) from error
    except Exception as error:
        raise HDZooError(
            f"{name!r} is no folder, and the Hub does not give it: {reason(error)}; {allowed}"
        ) from error


def download_pipeline(repo_id: str, variant: str | None = None, **options: Any) -> Path:
    """Downloads what a pipeline needs of its repository: the index first, which says what that is.

    Args:
        repo_id: ``"namespace/name"``.
        variant: of the weights.
        **options: as in `resolve_model`.

    Returns:
        The folder in the cache.

    Raises:
        HDZooError: there is no index, or there are no weights that can be loaded.
        Exception: what the client raises.
    """
    folder = downloads.download(repo_id, [INDEX], **options)
    names = downloads.names_on_hub(repo_id, folder, options.get("cache_dir"))
    if INDEX not in names:
        raise no_index(repr(repo_id), bare="config.json" in names)
    index = read_index(folder)
    check_unconditional(index, repr(repo_id))
    weights.check_names(names, index, variant, repr(repo_id))
    allow, ignore = weights.patterns(index, variant)
    # Of the same commit, whatever happens to the branch meanwhile.
    options["revision"] = folder.name
    return downloads.download(repo_id, [*DOWNLOADED, *allow], ignore, **options)
