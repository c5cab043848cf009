"""Commands that draw: pictures, sets of images, chains in the plane."""

import os
import shlex
import sys
import time
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import (
    CLEAR_MODEL,
    DEFAULT_MODEL,
    Backend,
    ClassLabel,
    Dtype,
    Evaluations,
    Model,
    Options,
    Preset,
    SamplerName,
    Seed,
    parse_options,
    parse_pairs,
)
from hdzoo.cli.terminal import note, note_evaluations, print_table, say, work_progress
from hdzoo.errors import HDZooError
from hdzoo.files import check_file, check_folder
from hdzoo.text import counted


def sample(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A folder, a bundled name, or a Hub id. "
            f"Default: {CLEAR_MODEL}; with a sampler, preset or option, {DEFAULT_MODEL}."
        ),
    ] = None,
    sampler: SamplerName = None,
    num_images: Annotated[
        int | None,
        typer.Option("--num-images", "-n", help="How many. Default: 64; 16 with --interpolate."),
    ] = None,
    num_inference_steps: Evaluations = None,
    seed: Annotated[
        int | None, typer.Option(help="Image i depends on (seed, i) alone. Default: 0.")
    ] = None,
    interpolate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A:B",
            help="Two seeds: a row of images from one's first to the other's. May be repeated.",
        ),
    ] = None,
    samples_every: Annotated[
        int | None,
        typer.Option(
            help="Keep the denoised image after each so many evaluations: a chain is a row."
        ),
    ] = None,
    option: Options = None,
    preset: Preset = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="Where the grid goes, a PNG.")
    ] = None,
    images_dir: Annotated[
        Path | None, typer.Option(help="A folder for the single images, as PNGs.")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="An animated GIF of the grid forming.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images drawn together.")] = 64,
    dtype: Dtype = "float32",
    backend: Backend = "torch",
    class_label: ClassLabel = None,
    scale: Annotated[int, typer.Option(min=1, help="Size of a pixel in grid and GIF.")] = 2,
) -> None:
    """Draw images with a sampler and save them as a grid."""
    options, pairs = parse_options(option), parse_pairs(interpolate)
    if pairs and seed is not None:
        raise HDZooError(f"--seed is {seed}, and --interpolate has seeds of its own; give one")
    each = num_images if num_images is not None else 16 if pairs else 64
    seed = seed or 0
    from hdzoo import sampling
    from hdzoo.samplers.presets import get_preset

    sampling.check_numbers(each, batch_size, seed, pairs)
    sampling.check_preset(preset, sampler, options, num_inference_steps)
    if model is None:
        model = DEFAULT_MODEL if sampler or preset or options else CLEAR_MODEL
        note(f"model: {model}")
    pipe = sampling.load_pipeline(model, sampler, options, dtype, preset, backend)
    if preset is not None:
        note(f"preset {preset}: {get_preset(preset).describe(pipe)}")
    start = sampling.start_of(pipe, model)
    if start is not None:
        note(
            f"{type(pipe.scheduler).__name__} walks at one noise level: it starts from images of "
            f"{type(start).__name__}, "
            f"{counted(start.num_inference_steps, 'network evaluation')} each"
        )
    pipe.scheduler.set_timesteps(num_inference_steps)
    steps = pipe.scheduler.num_inference_steps
    num_images, row = each * max(1, len(pairs)), each if pairs else None
    along = sampling.images_of_a_chain(pipe, samples_every)
    columns = along if along > 1 else row
    sampling.check_grid(pipe, num_images * along, scale, columns)
    made_by = sampling.protocol(pipe, model, seed, start, class_label, pairs)
    made_by |= {"samples_every": samples_every} if samples_every else {}
    if output is None:
        drawn = made_by | {"num_images": num_images, "scale": scale}
        name = f"{preset or sampler or type(pipe.scheduler).__name__}-{steps}"
        output = sampling.picture_path(model, name, drawn)
    check_file(output, ".png")
    if gif is not None:
        check_file(gif, ".gif")
    if images_dir is not None:
        check_folder(images_dir)
    trajectory = sampling.Trajectory(pipe, steps, scale, row) if gif else None
    note_evaluations(num_images, steps + (0 if start is None else start.num_inference_steps))
    begin = time.perf_counter()
    with work_progress() as on_work:
        images = sampling.draw(
            pipe,
            each,
            num_inference_steps=num_inference_steps,
            seed=seed,
            batch_size=batch_size,
            class_label=class_label,
            start=start,
            interpolate=pairs,
            samples_every=samples_every,
            on_step=trajectory.record if trajectory else None,
            on_progress=lambda done: on_work("images", done, num_images),
        )
    seconds = time.perf_counter() - begin
    sampling.save_png(sampling.image_grid(images, scale, columns), output, made_by)
    if images_dir is not None:
        for i, image in enumerate(images):
            sampling.save_png(image, images_dir / f"{i:05d}.png", made_by | {"index": i})
        note(f"single images: {images_dir}")
    if trajectory is not None and gif is not None:
        trajectory.save(gif)
        note(f"animation: {gif}")
    note(f"{counted(len(images), 'image')} in {seconds:.1f} s")
    say(output)


def generate(
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-O", help="The folder of the set: new, or to go on with."),
    ],
    model: Model = DEFAULT_MODEL,
    sampler: SamplerName = None,
    num_images: Annotated[
        int, typer.Option("--num-images", "-n", help="Of the whole set; it may grow later.")
    ] = 10_000,
    num_inference_steps: Evaluations = None,
    seed: Seed = 0,
    option: Options = None,
    preset: Preset = None,
    chunk_size: Annotated[int, typer.Option(help="Images drawn together: a shard.")] = 250,
    dtype: Dtype = "float32",
    backend: Backend = "torch",
    class_label: ClassLabel = None,
    num_threads: Annotated[int, typer.Option(help="CPU threads of each process.")] = 1,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAMESPACE/NAME", help="The dataset repository to fill.")
    ] = None,
) -> None:
    """Draw a set of images into a folder that `datasets` reads; go on with one that was stopped.

    Many processes draw the same bytes: `accelerate launch -m hdzoo generate ...` on GPUs,
    `torchrun --nproc-per-node 8 -m hdzoo generate ...` on CPUs.
    """
    options = parse_options(option)
    try:
        from hdzoo.generation import dataset_card
        from hdzoo.generation.generate import generate as generate_set
        from hdzoo.hub.client import check_repo_id
        from hdzoo.sampling import check_preset

        check_preset(preset, sampler, options, num_inference_steps)
        if push_to_hub is not None:
            check_repo_id(push_to_hub)
        with work_progress() as on_work:
            made = generate_set(
                model,
                output_dir,
                num_images,
                sampler=sampler,
                options=options,
                preset=preset,
                num_inference_steps=num_inference_steps,
                seed=seed,
                chunk_size=chunk_size,
                dtype=dtype,
                backend=backend,
                class_label=class_label,
                num_threads=num_threads,
                command=shlex.join(["hdzoo", *sys.argv[1:]]),
                on_plan=note_evaluations,
                on_progress=lambda done: on_work("images", done, num_images),
                on_note=note,
            )
        if made.is_main_process:
            by = counted(made.num_processes, "process", "processes")
            drawn = f"{made.num_drawn:,} drawn now by {by} in {made.seconds:.1f} s"
            note(f"{counted(made.num_images, 'image')}, {drawn}")
            if push_to_hub is not None:
                note(f"sent to {dataset_card.push_to_hub(made.folder, push_to_hub)}")
            say(made.folder)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            note(f"interrupted: what is drawn is in {output_dir}; the same command goes on with it")
        raise typer.Exit(130) from None


def demo_2d(
    target: Annotated[
        str, typer.Option(help="A registered target in the plane.")
    ] = "eight-gaussians",
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler",
            "-s",
            help="May be repeated; annealed-langevin and half-denoising by default.",
        ),
    ] = None,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Chains of each.")] = 400,
    num_inference_steps: Annotated[
        int, typer.Option("--num-inference-steps", "-t", help="Evaluations for each chain.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="Chain i depends on (seed, i) alone.")] = 0,
    option: Options = None,
    frames: Annotated[int, typer.Option(help="Pictures, the first and the last included.")] = 60,
    output: Annotated[Path, typer.Option("--output", "-O", help="The animated GIF.")] = Path(
        "demo.gif"
    ),
    png: Annotated[Path | None, typer.Option(help="A PNG of the last picture.")] = None,
) -> None:
    """Show chains moving on a density in the plane and its score, samplers side by side.

    The table has the share of each mode, and the W2 distance to exact samples.
    Exact samples of the same size are some distance apart themselves: "exact".
    """
    options = parse_options(option)
    from hdzoo.demo import demo

    check_file(output, ".gif")
    if png is not None:
        check_file(png, ".png")
    with work_progress() as on_work:
        done = count(1)
        result = demo.demo_2d(
            target,
            sampler or demo.DEFAULT_SAMPLERS,
            num_samples=num_samples,
            num_inference_steps=num_inference_steps,
            seed=seed,
            options=options,
            num_frames=frames,
            on_frame=lambda _: on_work("pictures", next(done), frames),
        )
    result.save(output)
    if png is not None:
        result.save_last_frame(png)
        note(f"last picture: {png}")
    print_table(result.table, tuple(result.table[0]))
    say(output)
