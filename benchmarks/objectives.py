"""How well does each objective teach one small network the score, in the same number of steps?

    python benchmarks/objectives.py
    python benchmarks/objectives.py --energy --target eight-gaussians

trains on laws of the plane with noise. The error of the score is integrated over the noisy law, on
a grid, and divided by the mean square of the exact score. All networks of one row, one a seed, are
trained at once. Prints a table and writes JSON.

Explicit score matching is there for comparison: it is told the score itself, not noise about it.
A ladder of ten levels shows a network one tenth as often the level at which it is judged.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import hdzoo
from hdzoo import plugins
from hdzoo.samplers.ladders import geometric_ladder
from hdzoo.training.objectives import (
    denoising_score_matching,
    draw_probes,
    draw_sigmas,
    energy_score,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    stein_unbiased_risk,
)

# With the noise level.
TARGETS = {"eight-gaussians": 1.0, "moons": 0.3, "circle": 0.3}
NUM_POINTS = 10_000
LADDER = 10
WIDTH = 64


class Networks(torch.nn.Module):
    """As many networks as seeds, each of two layers of 64, told the noise level.

    Args:
        seeds: how many.
        scale: of the data.
        energy: whether they give an energy, of which their score is the gradient.
    """

    def __init__(self, seeds: int, scale: float, energy: bool) -> None:
        super().__init__()
        self.seeds, self.scale, self.energy = seeds, scale, energy
        sizes = (3, WIDTH, WIDTH, 1 if energy else 2)
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for before, after in pairwise(sizes):
            bound = before**-0.5
            self.weights.append(torch.empty(seeds, before, after).uniform_(-bound, bound))
            self.biases.append(torch.empty(seeds, 1, after).uniform_(-bound, bound))

    def outputs(self, x: Tensor, sigmas: Tensor) -> Tensor:
        told = torch.cat([x / self.scale, sigmas.log()[:, None] / 4], dim=1)
        hidden = told.view(self.seeds, -1, 3)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, F.silu(hidden) if i else hidden, weight)
        return hidden.flatten(0, 1)

    def score_at(self, sigmas: Tensor) -> Callable[[Tensor], Tensor]:
        """The score, as a function of points: the first part of them is the first network's."""
        if self.energy:
            return energy_score(lambda x: self.outputs(x, sigmas)[:, 0] * self.scale / sigmas)
        return lambda x: self.outputs(x, sigmas) / sigmas[:, None]


class Batch:
    """What a step has: clean points, fresh noise, and the same points with noise of their own."""

    def __init__(self, law, clean: Tensor, noisy: Tensor, sigmas: Tensor) -> None:
        self.law, self.clean, self.sigmas, self.old = law, clean, sigmas, noisy
        self.noise = torch.randn_like(clean)
        self.noisy = clean + sigmas[:, None] * self.noise
        self.probes = draw_probes(clean, 1, "rademacher")


OBJECTIVES = {
    "explicit": lambda s, b: explicit_score_matching(s, b.noisy, b.law.score(b.noisy, b.sigmas)),
    "denoising": lambda s, b: denoising_score_matching(s, b.clean, b.noise, b.sigmas),
    "denoising, ladder": lambda s, b: denoising_score_matching(s, b.clean, b.noise, b.sigmas),
    "implicit, exact": lambda s, b: implicit_score_matching(s, b.noisy),
    "implicit, one probe": lambda s, b: implicit_score_matching(s, b.noisy, b.probes),
    "sliced, one probe": lambda s, b: sliced_score_matching(s, b.noisy, b.probes),
    "sure, noisy data": lambda s, b: (
        stein_unbiased_risk(lambda x: x + b.sigmas[:, None] ** 2 * s(x), b.old, b.sigmas)
        / (2 * b.sigmas**4)
    ),
}


def relative_error(networks: Networks, law, sigma: float) -> list[float]:
    """Of each network: the mean square of its error, in that of the exact score."""
    spread = law.covariance.trace().sqrt().item() + 6 * sigma
    # The largest of the laws has its points within this of the mean.
    axis = torch.linspace(-1.8 * spread, 1.8 * spread, 201, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis) + law.mean
    weights = law.log_density(points, sigma).exp()
    weights = weights / weights.sum()
    known = law.score(points, sigma)
    with torch.no_grad():
        every = points.float().repeat(networks.seeds, 1)
        found = networks.score_at(torch.full((len(every),), sigma))(every).double()
    errors = (found.view(networks.seeds, -1, 2) - known).square().sum(2) @ weights
    return (errors / (known.square().sum(1) @ weights)).tolist()


def train(name: str, target: str, args: argparse.Namespace) -> dict:
    """One row: all seeds of one objective on one law."""
    sigma, law = TARGETS[target], plugins.get("targets", target)()
    torch.manual_seed(0)
    points = law.sample(args.seeds * NUM_POINTS).float().view(args.seeds, NUM_POINTS, 2)
    noisy = points + sigma * torch.randn_like(points)
    networks = Networks(args.seeds, law.covariance.trace().div(2).sqrt().item(), args.energy)
    levels = [sigma]
    if name == "denoising, ladder":
        levels = geometric_ladder(10 * sigma, sigma, LADDER)
    adam = torch.optim.Adam(networks.parameters(), lr=args.learning_rate)
    rate = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, args.max_train_steps)
    losses, begin = [], time.process_time()
    for _ in range(args.max_train_steps):
        chosen = torch.randint(NUM_POINTS, (args.seeds, args.train_batch_size, 1)).expand(-1, -1, 2)
        clean, old = (data.gather(1, chosen).flatten(0, 1) for data in (points, noisy))
        sigmas = draw_sigmas("ladder", len(clean), torch.tensor(levels), 0, 1)
        batch = Batch(law, clean, old, sigmas)
        loss = sigmas**2 * OBJECTIVES[name](networks.score_at(sigmas), batch)
        # Each network has the mean over its own part.
        adam.zero_grad()
        (loss.mean() * args.seeds).backward()
        adam.step()
        rate.step()
        losses.append(loss.mean().item())
    errors = torch.tensor(relative_error(networks, law, sigma))
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "objective": name,
        "target": target,
        "sigma": sigma,
        "errors": errors.tolist(),
        "error": errors.mean().item(),
        "spread": errors.std().item(),
        "loss": sum(last) / len(last),
        "seconds": (time.process_time() - begin) / args.seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--energy", action="store_true", help="energies in place of scores")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-train-steps", type=int, default=1000)
    parser.add_argument("--train-batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--output", type=Path, default=Path("objectives.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, console = [], Console()
    for target in args.target or TARGETS:
        for name in OBJECTIVES:
            rows.append(train(name, target, args))
            console.print(f"{target}, {name}: {rows[-1]['error']:.4f}", highlight=False)
    best: dict[str, float] = {}
    for row in rows:
        best[row["target"]] = min(row["error"], best.get(row["target"], row["error"]))
    table = Table("target", "objective", "error", "in the best", "loss", "seconds")
    for row in rows:
        table.add_row(
            row["target"],
            row["objective"],
            f"{row['error']:.4f} +- {row['spread']:.4f}",
            f"{row['error'] / best[row['target']]:.2f}",
            f"{row['loss']:.3f}",
            f"{row['seconds']:.1f}",
        )
    console.print(table)
    versions = {"hdzoo": hdzoo.__version__, "torch": torch.__version__}
    settings = {k: v for k, v in vars(args).items() if k != "output"}
    written = {"settings": settings, "rows": rows}
    written["versions"] = versions | {"python": platform.python_version()}
    args.output.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
