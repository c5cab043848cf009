"""The command that says how sure a network is of an image."""

import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from hdzoo.cli.options import ClassLabel, Dtype
from hdzoo.cli.terminal import note, say, work_progress
from hdzoo.environment import versions
from hdzoo.files import check_file, write_json
from hdzoo.text import counted


def posterior(
    model: Annotated[str, typer.Argument(help="A folder, a bundled name, or a Hub id.")],
    image: Annotated[str, typer.Argument(help="The image: a file or a URL.")],
    sigma: Annotated[
        float, typer.Option(help="The noise level, in the units of the network's pixels.")
    ],
    noisy: Annotated[
        bool, typer.Option("--noisy", help="The image has that noise already; none is added.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the noise, and of the probes.")] = 0,
    probes: Annotated[
        int | None,
        typer.Option(
            help="Of the estimate of the variances; exact from as many as the image has numbers. "
            "Default: exact up to 1,024 numbers, else 256."
        ),
    ] = None,
    directions: Annotated[
        int, typer.Option("--directions", "-k", help="Leading directions; 0 for none.")
    ] = 3,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-O", help="The picture, a PNG; its JSON goes beside it."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="States in the network together.")] = 64,
    dtype: Dtype = "float32",
    class_label: ClassLabel = None,
) -> None:
    """Show what a network makes of a noisy image, and how sure it is: the posterior covariance.

    Writes a picture (image, noisy, denoised, standard deviation of each pixel, the leading
    directions) and a JSON of numbers, by Jacobian-vector products (second-order Tweedie).
    """
    from hdzoo import sampling
    from hdzoo.pipelines.posterior import image_posterior
    from hdzoo.pipelines.posterior_picture import posterior_figure
    from hdzoo.plots import save_figure

    sampling.check_numbers(1, batch_size, seed)
    pipe = sampling.load_pipeline(model, dtype=dtype)
    made_by = sampling.network_protocol(pipe, model) | {
        "device": str(pipe.device),
        "image": image,
        "noisy": noisy,
        "sigma": sigma,
        "seed": seed,
        "probes": probes,
        "directions": directions,
        "class_label": class_label,
    }
    if output is None:
        output = sampling.picture_path(image, f"posterior-sigma{sigma:g}", made_by)
    beside = output.with_suffix(".json")
    check_file(output, ".png")
    check_file(beside)
    begin = time.perf_counter()
    with work_progress() as on_work:
        found = image_posterior(
            pipe,
            image,
            sigma,
            noisy=noisy,
            seed=seed,
            num_probes=probes,
            num_directions=directions,
            batch_size=batch_size,
            class_label=class_label,
            on_progress=on_work,
        )
    seconds = time.perf_counter() - begin
    save_figure(posterior_figure(found), output)
    command = shlex.join(["hdzoo", *sys.argv[1:]])
    run = {
        "command": command,
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version()}
        | versions("torch", "diffusers", "numpy", "scipy"),
    }
    write_json(beside, {"numbers": found.numbers, "made_by": made_by | run})
    numbers = found.numbers
    note(
        f"predicted squared error {numbers['trace']:.4g} +- {numbers['trace_standard_error']:.2g}"
        + ("" if noisy else f", actual {numbers['squared_error']:.4g}")
        + f"; asymmetry of the Jacobian {numbers['asymmetry']:.2g}"
    )
    note(f"{counted(numbers['num_evaluations'], 'network evaluation')} in {seconds:.1f} s")
    note(f"numbers: {beside}")
    say(output)
