"""The command that paints the missing part of an image."""

from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import (
    Backend,
    ClassLabel,
    Dtype,
    Evaluations,
    Options,
    SamplerName,
    Seed,
    parse_options,
)
from hdzoo.cli.terminal import note, note_evaluations, say
from hdzoo.files import check_file
from hdzoo.text import counted


def inpaint(
    model: Annotated[str, typer.Argument(help="A folder, a bundled name, or a Hub id.")],
    image: Annotated[str, typer.Argument(help="The image: a file or a URL.")],
    mask_image: Annotated[
        str, typer.Argument(metavar="MASK", help="Its mask: white is painted, black is kept.")
    ],
    sampler: SamplerName = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="How many.")] = 1,
    num_inference_steps: Evaluations = None,
    seed: Seed = 0,
    option: Options = None,
    known_noise: Annotated[
        str, typer.Option(help="New noise on the known part at each: step, level.")
    ] = "step",
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="Where the grid goes, a PNG.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images painted together.")] = 64,
    dtype: Dtype = "float32",
    backend: Backend = "torch",
    class_label: ClassLabel = None,
    scale: Annotated[int, typer.Option(min=1, help="Size of a pixel in the grid.")] = 1,
) -> None:
    """Paint the missing part of an image and save what comes out as a grid.

    Samplers that walk on each noise level come closest: annealed-langevin, annealed-half-denoising.
    """
    options = parse_options(option)
    from hdzoo import sampling
    from hdzoo.pipelines import inpainting

    sampling.check_numbers(num_images, batch_size, seed)
    pipe = sampling.load_pipeline(model, sampler, options, dtype, backend=backend)
    start = sampling.start_of(pipe, model)
    if start is not None:
        note(
            f"{type(pipe.scheduler).__name__} walks at one noise level: it starts from what "
            f"{type(start).__name__} paints, "
            f"{counted(start.num_inference_steps, 'network evaluation')} each"
        )
    pipe.scheduler.set_timesteps(num_inference_steps)
    sampling.check_grid(pipe, num_images, scale)
    made_by = sampling.protocol(pipe, model, seed, start, class_label)
    made_by |= {"image": image, "mask_image": mask_image, "known_noise": known_noise}
    if output is None:
        painted = made_by | {"num_images": num_images, "scale": scale}
        name = f"{sampler or type(pipe.scheduler).__name__}-{pipe.scheduler.num_inference_steps}"
        output = sampling.picture_path(image, name, painted)
    check_file(output, ".png")
    begun = 0 if start is None else start.num_inference_steps
    note_evaluations(num_images, pipe.scheduler.num_inference_steps + begun)
    images = inpainting.paint(
        pipe,
        image,
        mask_image,
        num_images,
        num_inference_steps=num_inference_steps,
        seed=seed,
        batch_size=batch_size,
        start=start,
        known_noise=known_noise,
        class_label=class_label,
    )
    sampling.save_png(sampling.image_grid(images, scale), output, made_by)
    each = counted(pipe.scheduler.num_inference_steps, "network evaluation")
    note(f"{counted(len(images), 'image')}, {each} each")
    say(output)
