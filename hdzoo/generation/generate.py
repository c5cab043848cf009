"""Generated sets: many images of a model and a sampler, drawn by any number of processes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image

from hdzoo.checks import SEED, THREADS
from hdzoo.errors import HDZooError
from hdzoo.files import check_folder, exclusive, named_path
from hdzoo.generation.folder import finish, prepare
from hdzoo.generation.manifest import MANIFEST, check_same_protocol, make_manifest, read_manifest
from hdzoo.generation.shards import Shards
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.processes import all_processes, fail_together, in_first_process
from hdzoo.sampling import check_batch, check_preset, draw_batch, load_pipeline, start_of
from hdzoo.text import counted


@dataclass(frozen=True)
class Generation:
    """What a run has done.

    Attributes:
        folder: the set, complete.
        num_images: how many it has.
        num_drawn: how many of them this run has drawn.
        num_processes: by how many processes.
        seconds: what that took, loading excluded.
        is_main_process: whether this is the process that speaks for all.
    """

    folder: Path
    num_images: int
    num_drawn: int
    num_processes: int
    seconds: float
    is_main_process: bool


def generate(
    model: str | Path,
    output_dir: str | Path,
    num_images: int,
    *,
    sampler: str | None = None,
    options: dict[str, Any] | None = None,
    preset: str | None = None,
    num_inference_steps: int | None = None,
    start_num_inference_steps: int | None = None,
    seed: int = 0,
    chunk_size: int = 250,
    dtype: str = "float32",
    backend: str = "torch",
    num_threads: int = 1,
    class_label: int | None = None,
    command: str | None = None,
    on_plan: Callable[[int, int], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Generation:
    """Draws a set of images into a folder, in shards that ``datasets.load_dataset`` reads.

    The set is cut into chunks of fixed size by index; each is drawn as one batch and written as one
    shard (`Shards`), whole or not at all. Image i depends on (seed, i), the protocol and the shape
    of its chunk alone, so that any number of processes, stopped and started again any number of
    times, makes the same bytes (on devices of one kind). Run it in every process of
    ``accelerate launch`` or, on CPUs, of ``torchrun``; they need a common file system.

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
        preset: the name of a preset, in the place of these and of ``num_inference_steps``.
        num_inference_steps: network evaluations for each image; the sampler's own by default.
        start_num_inference_steps: those of the images to start from, on top; the model's own
            sampler's number by default.
        seed: of the set.
        chunk_size: images drawn together; they have to fit into memory. Part of the protocol, since
            a network may round differently in another batch.
        dtype: of the network's weights, one of `hdzoo.sampling.DTYPES`.
        backend: what computes the network, one of `hdzoo.pipelines.backends.BACKENDS`.
        num_threads: CPU threads of each process. Part of the protocol, since convolutions may round
            differently with another number; 1 by default, because every machine has it, and
            because more processes use a machine better than more threads.
        class_label: for a class-conditional network, the class of all images; evenly over all
            classes by index by default.
        command: what the user typed, for the record.
        on_plan: called in the first process, before anything is drawn, with the number of images
            to draw now and of network evaluations that each of them takes, the start's included.
        on_progress: called in the first process with the number of images done by all, whole ones
            in shards and shares of those that are forming.
        on_note: called in the first process with each thing to tell, such as a damaged shard.

    Returns:
        What was done, the same in every process but for ``is_main_process``.

    Raises:
        HDZooError: an argument does not fit, the folder holds another set or cannot be written or
            is in use, or samples are not finite. What is there stays, for the next call.
    """
    SEED("seed", seed)
    THREADS("num_threads", num_threads)
    shards = Shards(named_path(output_dir, "output_dir"), num_images, chunk_size)
    state = all_processes()
    in_first_process(state, lambda: check_folder(shards.folder))
    check_preset(preset, sampler, options, num_inference_steps)
    pipe = load_pipeline(model, sampler, options, dtype, preset, backend)
    if pipe.data_range is None:
        raise HDZooError(
            f"the samples of {type(pipe.unet).__name__} are no images; take a model of images"
        )
    check_batch(pipe, "chunk_size", min(chunk_size, num_images))
    start = start_of(pipe, model)
    if start is not None:
        start.set_timesteps(start_num_inference_steps)
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
        class_label=class_label,
    )
    first = HDPipeline(pipe.unet, start) if start is not None else None
    for part in (pipe, first):
        if part is not None:
            part.set_progress_bar_config(disable=True)
    draw = partial(
        draw_batch,
        pipe,
        num_inference_steps=num_inference_steps,
        start_num_inference_steps=start_num_inference_steps,
        seed=seed,
        first=first,
        class_label=class_label,
    )
    label = f"{manifest['sampler']} {json.dumps(manifest['sampler_options'], sort_keys=True)}"
    with threads(num_threads), ExitStack() as stack:
        in_first_process(state, lambda: stack.enter_context(exclusive(shards.folder)))
        in_first_process(state, lambda: prepare(shards, manifest))
        check_common_folder(state, shards.folder, manifest)
        missing = find_missing(state, shards, on_note)
        num_drawn = sum(len(shards.indices(number)) for number in missing)
        if state.is_main_process and on_plan is not None:
            steps = ("num_inference_steps", "start_num_inference_steps")
            on_plan(num_drawn, sum(manifest[name] for name in steps))
        if state.is_main_process and on_progress is not None:
            on_progress(num_images - num_drawn)
        begin = time.perf_counter()
        failure: Exception | None = None
        try:
            for number in missing[state.process_index :: state.num_processes]:
                on_step = None
                if state.is_main_process and on_progress is not None:
                    running = min(state.num_processes, len(missing))
                    on_step = progress_in_chunk(
                        shards, number, manifest["num_inference_steps"], running, on_progress
                    )
                shards.write(number, draw_chunk(draw, shards.indices(number), on_step), seed, label)
        except Exception as error:
            failure = error
        fail_together(failure)
        if state.is_main_process and on_progress is not None:
            on_progress(num_images)
        seconds = time.perf_counter() - begin
        in_first_process(state, lambda: finish(shards, manifest))
    return Generation(
        shards.folder, num_images, num_drawn, state.num_processes, seconds, state.is_main_process
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets the number of CPU threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_common_folder(state: PartialState, folder: Path, manifest: dict[str, Any]) -> None:
    """Refuses processes that look at other folders, or would draw other images."""
    if state.is_main_process:
        return
    before = read_manifest(folder)
    if before is None:
        raise HDZooError(
            f"process {state.process_index} does not see {folder / MANIFEST}, which process 0 has "
            "written; give an output folder on a file system that all machines share"
        )
    check_same_protocol(folder, before, manifest)


def find_missing(
    state: PartialState, shards: Shards, on_note: Callable[[str], None] | None
) -> list[int]:
    """Verifies the shards that are there, and takes away the damaged ones.

    Args:
        state: each process verifies its part.
        shards: of the set.
        on_note: called in the first process with a message on each damaged shard.

    Returns:
        The numbers of those to draw, ascending, the same in every process.
    """
    found: list[tuple[int, str | None]] = []
    for number in range(state.process_index, len(shards), state.num_processes):
        if not shards.path(number).exists():
            found.append((number, None))
        elif fault := shards.fault(number):
            shards.remove(number)
            found.append((number, fault))
    found = sorted(gather_object(found))
    for number, fault in found:
        if fault is not None and state.is_main_process and on_note is not None:
            on_note(f"{shards.path(number)} is damaged and is drawn again: {fault}")
    return [number for number, _ in found]


def draw_chunk(
    draw: Callable[..., list[Image.Image]],
    indices: range,
    on_step: Callable[[int, Any], None] | None,
) -> list[Image.Image]:
    """Draws a chunk, and says which it was if it cannot be drawn."""
    try:
        return draw(indices, on_step=on_step)
    except HDZooError as error:
        raise HDZooError(f"images {indices[0]} to {indices[-1]}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise HDZooError(
            f"{counted(len(indices), 'image')} at a time do not fit into memory: {error}. Give a "
            "smaller chunk_size"
        ) from error


def progress_in_chunk(
    shards: Shards, number: int, steps: int, running: int, on_progress: Callable[[float], None]
) -> Callable[[int, Any], None]:
    """What reports progress after each step of a chunk.

    Args:
        shards: of the set.
        number: of the shard that the first process draws.
        steps: of its chain.
        running: how many processes draw, which are taken to be as far.
        on_progress: called with the number of images.
    """
    before, size = shards.count_images(), len(shards.indices(number))

    def on_step(step: int, _: Any) -> None:
        on_progress(min(shards.num_images, before + running * size * (step + 1) / steps))

    return on_step
