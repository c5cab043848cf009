"""What does a sampler cost beside the network? Pipeline time over that of as many bare passes.

    python benchmarks/sampling_overhead.py
    python benchmarks/sampling_overhead.py --against OTHER_CHECKOUT

Both sides run in turn in this process, on the same inputs; the ratio is taken pair by pair. The
pipeline's side is the whole call: first state, one generator a sample, every step, pictures. On a
CPU, whose speed changes between two runs, the last column is of one run: the whole call over the
time that the same call spent in the network.

With ``--against`` it is the samplers' ``step`` alone, this checkout's over another's, in seconds of
the processor: a process of each holds the batch and steps when its turn comes, in turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hdzoo
from hdzoo.errors import HDZooError

ROOT = Path(__file__).parents[1]


def clock_of(pipe: hdzoo.HDPipeline) -> Callable[[], float]:
    """On a CPU, seconds of the processor, whatever else it does."""
    return time.process_time if pipe.device.type == "cpu" else time.perf_counter


@torch.no_grad()
def bare_passes(pipe: hdzoo.HDPipeline, batch_size: int) -> float:
    state = torch.randn(batch_size, *pipe.sample_shape, device=pipe.device)
    clock = clock_of(pipe)
    begin = clock()
    for t in pipe.scheduler.timesteps:
        pipe.unet(state, t, return_dict=False)
    return clock() - begin


def whole_pipeline(pipe: hdzoo.HDPipeline, batch_size: int, steps: int) -> tuple[float, float]:
    """Seconds of a call, and those of them in the network: of a GPU, which is not waited for, the
    first alone means something."""
    generators = hdzoo.sample_generators(0, range(batch_size))
    clock = clock_of(pipe)
    inside = 0.0
    forward = pipe.unet.forward

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        start = clock()
        output = forward(*args, **kwargs)
        inside += clock() - start
        return output

    pipe.unet.forward = timed
    begin = clock()
    pipe(batch_size, steps, generator=generators)
    seconds = clock() - begin
    del pipe.unet.forward
    return seconds, inside


def overhead(args: argparse.Namespace) -> Table:
    """The whole pipeline over as many bare passes."""
    from hdzoo.sampling import load_pipeline

    columns = ("bare passes, s", "pipeline, s", "ratio: least, median, most")
    table = Table("sampler", *columns, "call over its network time")
    for name in args.samplers:
        pipe = load_pipeline(args.model, name)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler.set_timesteps(args.num_inference_steps)
        try:
            whole_pipeline(pipe, args.batch_size, args.num_inference_steps)  # warm-up
        except HDZooError as error:
            table.add_row(name, "", "", str(error), "")
            continue
        bare, whole, inside = [], [], []
        for _ in range(args.pairs):
            bare.append(bare_passes(pipe, args.batch_size))
            call, network = whole_pipeline(pipe, args.batch_size, args.num_inference_steps)
            whole.append(call)
            inside.append(network)
        own = spread(whole, inside) if pipe.device.type == "cpu" else ""
        row = f"{median(bare):.2f}", f"{median(whole):.2f}", spread(whole, bare), own
        table.add_row(name, *row)
    return table


@torch.no_grad()
def answer_with_steps(batch_size: int, steps: int) -> None:
    """For each name on standard input, prints what so many steps of that sampler take."""
    torch.set_num_threads(1)
    output = torch.randn(batch_size, 1, 28, 28)
    for line in sys.stdin:
        sampler: Any = hdzoo.get_sampler(line.strip())()
        sampler.set_timesteps(steps)
        sampler.set_begin_index(0)
        generators = [torch.Generator().manual_seed(seed) for seed in range(batch_size)]
        state = torch.randn(batch_size, 1, 28, 28)
        begin = time.process_time()
        for t in sampler.timesteps:
            state = sampler.step(output, t, state, generator=generators, return_dict=False)[0]
        print(json.dumps(time.process_time() - begin), flush=True)


def steps_against(args: argparse.Namespace) -> Table:
    """The steps of this checkout over those of another."""
    options = ["--batch-size", args.batch_size, "--num-inference-steps", args.num_inference_steps]
    command = [sys.executable, __file__, "--answer", *map(str, options)]
    mine, theirs = (
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )
        for checkout in (ROOT, args.against)
    )

    def ask(process: "subprocess.Popen[str]", name: str) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        print(name, file=process.stdin, flush=True)
        return float(json.loads(process.stdout.readline()))

    columns = ("step there, ms", "step here, ms", "ratio", "of pairs: least, median, most")
    table = Table("sampler", *columns)
    for name in args.samplers:
        new, old = [], []
        # The first pair is a warm-up.
        for _ in range(args.pairs + 1):
            old.append(ask(theirs, name))
            new.append(ask(mine, name))
        # Whatever else the machine does can only add: the least is what the code takes.
        there, here = (1000 * min(s[1:]) / args.num_inference_steps for s in (old, new))
        row = f"{there:.3f}", f"{here:.3f}", f"{here / there:.3f}"
        table.add_row(name, *row, spread(new[1:], old[1:]))
    for process in (mine, theirs):
        process.communicate()
    return table


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)


def spread(one: list[float], other: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    return f"{ratios[0]:.3f}, {median(ratios):.3f}, {ratios[-1]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ncsn-mnist")
    parser.add_argument("--samplers", nargs="*", default=hdzoo.list_samplers())
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-inference-steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--against", type=Path, help="a checkout to compare steps with")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        answer_with_steps(args.batch_size, args.num_inference_steps)
    else:
        Console().print(steps_against(args) if args.against else overhead(args))


if __name__ == "__main__":
    main()
