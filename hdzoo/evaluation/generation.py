"""Generated sets: many images of a model and a sampler, drawn by any number of processes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from filelock import FileLock, Timeout

from hdzoo.errors import HDZooError
from hdzoo.evaluation.dataset_card import write_dataset_card
from hdzoo.evaluation.manifest import (
    MANIFEST,
    check_same_protocol,
    make_manifest,
    options_of,
    read_manifest,
    write_manifest,
)
from hdzoo.evaluation.shards import Shards, writing
from hdzoo.pipeline import HDPipeline
from hdzoo.sampling import draw_batch, load_pipeline, start_of

LOCK = ".lock"
# One process may wait for another's last chunk as long as that takes.
LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True)
class Generation:
    """What a run has done.

    Attributes:
        folder: the set, complete.
        num_images: how many it has.
        num_drawn: how many of them this run has drawn.
        seconds: what that took, loading excluded.
        is_main_process: whether this is the process that speaks for all.
    """

    folder: Path
    num_images: int
    num_drawn: int
    seconds: float
    is_main_process: bool


def generate(
    model: str | Path,
    output_dir: str | Path,
    num_images: int,
    *,
    sampler: str | None = None,
    options: dict[str, Any] | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    chunk_size: int = 250,
    dtype: str = "float32",
    num_threads: int = 1,
    command: str | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Generation:
    """Draws a set of images into a folder, in shards that ``datasets.load_dataset`` reads.

    The set is cut into chunks of fixed size by index; each is drawn as one batch and written as one
    shard (`Shards`), whole or not at all. Image i depends on (seed, i), the protocol and the shape
    of its chunk alone, so that any number of processes, stopped and started again any number of
    times, makes the same bytes (on devices of one kind). Run it in every process of
    ``accelerate launch``; they need a common file system.

    A call on a folder that has images verifies them by their checksums, draws what is missing or
    damaged, and refuses if the protocol in its ``manifest.json`` is another. A set may grow: with
    a larger ``num_images`` what is there stays, but for a last chunk that was not full.

    Args:
        model: a folder, a bundled name, or a Hub id.
        output_dir: the folder, new or empty or of this set.
        num_images: of the whole set.
        sampler: a registered name; the model's own sampler by default. One that walks at a single
            level starts from images of the model's own.
        options: of the sampler.
        num_inference_steps: network evaluations for each image; the sampler's own by default.
        seed: of the set.
        chunk_size: images drawn together; they have to fit into memory. Part of the protocol, since
            a network rounds differently in another batch.
        dtype: of the network's weights, one of `hdzoo.sampling.DTYPES`.
        num_threads: CPU threads of each process. Part of the protocol, since convolutions round
            differently with another number; 1 by default, because every machine has it, and
            because more processes use a machine better than more threads.
        command: what the user typed, for the record.
        on_progress: called in the first process with the number of images done by all, whole ones
            in shards and shares of those that are forming.
        on_note: called in the first process with each thing to tell, such as a damaged shard.

    Returns:
        What was done, the same in every process but for ``is_main_process``.

    Raises:
        HDZooError: an argument does not fit, the folder holds another set or cannot be written or
            is in use, or samples are not finite. What is there stays, for the next call.
    """
    for name, number, least in (("seed", seed, 0), ("num_threads", num_threads, 1)):
        if number < least:
            raise HDZooError(f"{name} is {number}; it must be at least {least}")
    shards = Shards(Path(output_dir), num_images, chunk_size)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=LONGEST_WAIT)
    pipe = load_pipeline(model, sampler, options, dtype)
    if pipe.data_range is None:
        raise HDZooError(
            f"the samples of {type(pipe.unet).__name__} are no images; take a model of images"
        )
    start = start_of(pipe, model)
    pipe.scheduler.set_timesteps(num_inference_steps)
    manifest = make_manifest(
        pipe,
        model,
        start=start,
        num_images=num_images,
        chunk_size=chunk_size,
        seed=seed,
        num_threads=num_threads,
        command=command,
    )
    with ExitStack() as stack:
        stack.enter_context(threads(num_threads))
        first_process(state, lambda: prepare(stack, shards, manifest))
        check_seen(state, shards.folder, manifest)
        missing = verify(state, shards, on_note)
        begin = time.perf_counter()
        draw_missing(state, shards, missing, pipe, start, num_inference_steps, seed, on_progress)
        state.wait_for_everyone()
        seconds = time.perf_counter() - begin
        first_process(state, lambda: finish(shards, manifest))
    num_drawn = sum(len(shards.indices(number)) for number in missing)
    return Generation(shards.folder, num_images, num_drawn, seconds, state.is_main_process)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets the number of CPU threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def first_process(state: PartialState, action: Callable[[], None]) -> None:
    """Does something in the first process; the others wait, and fail as it fails."""
    refusal: list[HDZooError | None] = [None]
    if state.is_main_process:
        try:
            action()
        except HDZooError as error:
            refusal = [error]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise refusal[0]


def prepare(stack: ExitStack, shards: Shards, manifest: dict[str, Any]) -> None:
    """Takes hold of the folder, checks that it is this set's, and writes the manifest.

    Args:
        stack: what gives the folder free again.
        shards: of the set.
        manifest: of what is asked for.
    """
    folder = shards.folder
    with writing(folder):
        for part in (shards.path(0).parent, shards.checksum_path(0).parent):
            # An existing folder is checked before anything is put into it.
            if not folder.exists():
                part.mkdir(parents=True)
        stack.enter_context(exclusive(folder))
        before = read_manifest(folder)
        if before is None:
            check_empty(folder)
        elif shards.path(0).parent.exists() and any(shards.path(0).parent.glob("*.parquet")):
            check_same_protocol(folder, before, manifest)
            grow(shards, before["num_images"])
        for pattern in (".partial-*", "data/.partial-*", "checksums/.partial-*"):
            for leftover in folder.glob(pattern):
                leftover.unlink()
        if before is None or before["num_images"] != manifest["num_images"]:
            write_manifest(folder, manifest)
