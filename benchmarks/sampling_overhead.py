"""What does a sampler cost beside the network? Pipeline time over that of as many bare passes.

    python benchmarks/sampling_overhead.py

Both sides run in turn in this process, on the same inputs; the ratio is taken pair by pair. The
pipeline's side is the whole call: first state, one generator a sample, every step, pictures.
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

import hdzoo
from hdzoo import sample_generators
from hdzoo.sampling import load_pipeline


@torch.no_grad()
def bare_passes(pipe: hdzoo.HDPipeline, batch_size: int) -> float:
    state = torch.randn(batch_size, *pipe.sample_shape, device=pipe.device)
    begin = time.perf_counter()
    for t in pipe.scheduler.timesteps:
        pipe.unet(state, t, return_dict=False)
    return time.perf_counter() - begin


def whole_pipeline(pipe: hdzoo.HDPipeline, batch_size: int, steps: int) -> float:
    generators = sample_generators(0, range(batch_size))
    begin = time.perf_counter()
    pipe(batch_size, steps, generator=generators)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ncsn-mnist")
    parser.add_argument("--samplers", nargs="*", default=hdzoo.list_samplers())
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-inference-steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    table = Table("sampler", "bare passes, s", "pipeline, s", "ratio: least, median, most")
    for name in args.samplers:
        pipe = load_pipeline(args.model, name)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler.set_timesteps(args.num_inference_steps)
        whole_pipeline(pipe, args.batch_size, args.num_inference_steps)  # warm-up
        bare, whole = [], []
        for _ in range(args.pairs):
            bare.append(bare_passes(pipe, args.batch_size))
            whole.append(whole_pipeline(pipe, args.batch_size, args.num_inference_steps))
        ratios = sorted(w / b for w, b in zip(whole, bare, strict=True))
        table.add_row(
            name,
            f"{statistics.median(bare):.2f}",
            f"{statistics.median(whole):.2f}",
            f"{ratios[0]:.3f}, {statistics.median(ratios):.3f}, {ratios[-1]:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
