"""How much faster does another program compute a network? `hdzoo sample` by PyTorch and by it.

    python benchmarks/backends.py

Both draw the same images in turn in this process, by the sampler and the number of evaluations that
`hdzoo sample` takes by default; the ratio is taken pair by pair, in seconds of the processor. What
loading costs more is a row of its own, in seconds.
"""

import argparse
import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from hdzoo.pipelines.backends import BACKENDS
from hdzoo.sampling import draw, load_pipeline

NAMES = ("torch", *(name for name in BACKENDS if name != "torch"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ncsn-mnist")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=(1, 4, 16, 64))
    parser.add_argument("--num-inference-steps", type=int)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    load_pipeline(args.model)  # what is imported with it
    pipes, loading = {}, []
    for name in NAMES:
        begin = time.process_time()
        pipes[name] = load_pipeline(args.model, backend=name)
        loading.append(time.process_time() - begin)
    table = Table("images together", *NAMES, "ratio: least, median, most", "pixels apart")
    table.add_row("loading", *(f"{seconds:.2f}" for seconds in loading))
    for size in args.batch_sizes:
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        pixels = {}
        # The first pair is a warm-up.
        for _ in range(args.pairs + 1):
            for name in NAMES:
                begin = time.process_time()
                images = draw(
                    pipes[name],
                    size,
                    num_inference_steps=args.num_inference_steps,
                    batch_size=size,
                    on_progress=lambda _: None,
                )
                seconds[name].append(time.process_time() - begin)
                pixels[name] = np.stack([np.asarray(image, int) for image in images])
        ratios = sorted(a / b for a, b in zip(*(seconds[n][1:] for n in NAMES), strict=True))
        apart = np.abs(pixels[NAMES[0]] - pixels[NAMES[1]]).max()
        table.add_row(
            str(size),
            *(f"{statistics.median(seconds[name][1:]):.2f}" for name in NAMES),
            f"{ratios[0]:.2f}, {statistics.median(ratios):.2f}, {ratios[-1]:.2f}",
            f"{apart} of 255",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
