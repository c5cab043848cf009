"""How well does each objective teach one small network the score, in the same number of steps?

    python benchmarks/objectives.py > benchmarks/objectives.md
    python benchmarks/objectives.py --energy --target eight-gaussians

trains on laws of the plane with noise, one network a seed. The error of the score is its mean
square on the noisy law, on a grid, divided by that of the exact score. Prints Markdown. What is
trained is kept in a JSON file as it goes; the same command goes on from there. On one thread.

Explicit score matching is there for comparison: it is told the score itself, not noise about it, so
it is not among those of which the best is taken. Contrastive divergence learns an energy from
samples of its own, and bit flips are for signs: neither has a place here.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

import hdzoo
from hdzoo import plugins
from hdzoo.files import write_json
from hdzoo.samplers.ladders import geometric_ladder
from hdzoo.training.objectives import (
    denoising_score_matching,
    draw_probes,
    draw_sigmas,
    energy_score,
    explicit_score_matching,
    generalised_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    stein_unbiased_risk,
)
from hdzoo.training.objectives.generalised import tweedie

# With the noise level.
TARGETS = {"eight-gaussians": 1.0, "moons": 0.3, "circle": 0.3}
NUM_POINTS = 10_000
LADDER = 10
WIDTH = 64
# Times the best error, above which a reason is due.
FAR = 2.0


class Network(nn.Module):
    """Two layers of 64, told the noise level.

    Args:
        scale: of the data.
        energy: whether it gives an energy, of which its score is the gradient.
    """

    def __init__(self, scale: float, energy: bool) -> None:
        super().__init__()
        self.scale, self.energy = scale, energy
        self.layers = nn.Sequential(
            nn.Linear(3, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, 1 if energy else 2),
        )

    def outputs(self, x: Tensor, sigmas: Tensor) -> Tensor:
        return self.layers(torch.cat([x / self.scale, sigmas.log()[:, None] / 4], dim=1))

    def score_at(self, sigmas: Tensor) -> Callable[[Tensor], Tensor]:
        """The score, as a function of points."""
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

    def denoiser(self, score: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: x + self.sigmas[:, None] ** 2 * score(x)


def denoising(score: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    return denoising_score_matching(score, batch.clean, batch.noise, batch.sigmas)


OBJECTIVES = {
    "explicit": lambda s, b: explicit_score_matching(s, b.noisy, b.law.score(b.noisy, b.sigmas)),
    "denoising": denoising,
    "denoising, ladder": denoising,
    "implicit, exact": lambda s, b: implicit_score_matching(s, b.noisy),
    "implicit, one probe": lambda s, b: implicit_score_matching(s, b.noisy, b.probes),
    "sliced, one probe": lambda s, b: sliced_score_matching(s, b.noisy, b.probes),
    "generalised, Tweedie": lambda s, b: (
        generalised_score_matching(b.denoiser(s), b.noisy, tweedie(b.sigmas)) / b.sigmas**4
    ),
    "SURE, noisy data": lambda s, b: (
        stein_unbiased_risk(b.denoiser(s), b.old, b.sigmas) / (2 * b.sigmas**4)
    ),
}
TOLD = "explicit"
HEADER = """\
# {title}

Printed by `python {command}`: the mean of {seeds} networks, +- their standard deviation. The error
is divided by the mean square of the exact score. The loss is that of the last tenth of the
{max_train_steps:,} steps of {train_batch_size} points, times the squared noise. Seconds are of one
thread of a CPU that other work had too."""
# Each is seen in another row of the same table.
REASONS = {
    "denoising, ladder": "it learns ten levels at once; one sample in ten has that of the error.",
    "implicit, one probe": "a random direction in place of the trace; see that of all.",
    "sliced, one probe": "its square is along a random direction, that of implicit along all.",
    "SURE, noisy data": "its noise is never fresh; see Tweedie's, the same loss of fresh noise.",
}


def relative_error(network: Network, law, sigma: float) -> float:
    """The mean square of a network's error, in that of the exact score."""
    spread = law.covariance.trace().sqrt().item() + 6 * sigma
    # The largest of the laws has its points within this of the mean.
    axis = torch.linspace(-1.8 * spread, 1.8 * spread, 201, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis) + law.mean
    weights = law.log_density(points, sigma).exp()
    weights = weights / weights.sum()
    known = law.score(points, sigma)
    with torch.no_grad():
        found = network.score_at(torch.full((len(points),), sigma))(points.float()).double()
    error = (found - known).square().sum(1) @ weights
    return (error / (known.square().sum(1) @ weights)).item()


def train(name: str, target: str, seed: int, args: argparse.Namespace) -> dict:
    """One network: its error, the mean loss of its last tenth, and its seconds."""
    sigma, law = TARGETS[target], plugins.get("targets", target)()
    torch.manual_seed(seed)
    points = law.sample(NUM_POINTS).float()
    noisy = points + sigma * torch.randn_like(points)
    network = Network(law.covariance.trace().div(2).sqrt().item(), args.energy)
    levels = torch.tensor([sigma])
    if name == "denoising, ladder":
        levels = torch.tensor(geometric_ladder(10 * sigma, sigma, LADDER))
    adam = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    rate = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, args.max_train_steps)
    losses, begin = [], time.process_time()
    for _ in range(args.max_train_steps):
        chosen = torch.randint(NUM_POINTS, (args.train_batch_size,))
        sigmas = draw_sigmas("ladder", len(chosen), levels, 0, 1)
        batch = Batch(law, points[chosen], noisy[chosen], sigmas)
        loss = (sigmas**2 * OBJECTIVES[name](network.score_at(sigmas), batch)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        rate.step()
        losses.append(loss.item())
    seconds = time.process_time() - begin
    return {
        "error": relative_error(network, law, sigma),
        "loss": statistics.fmean(losses[-max(1, len(losses) // 10) :]),
        "seconds": seconds,
    }


def mean_and_spread(values: list[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}"
    return text + (f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def table(target: str, rows: dict[str, list[dict]]) -> list[str]:
    """One law: what each objective came to, as lines of Markdown."""
    errors = {name: statistics.fmean(run["error"] for run in runs) for name, runs in rows.items()}
    best = min(error for name, error in errors.items() if name != TOLD)
    lines = [
        f"## {target}, noise {TARGETS[target]:g}",
        "",
        "| objective | error of the score | in the best | loss | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, runs in rows.items():
        columns = zip(("error", "loss", "seconds"), (4, 3, 1), strict=True)
        cells = [mean_and_spread([run[key] for run in runs], digits) for key, digits in columns]
        cells.insert(1, f"{errors[name] / best:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    far = [name for name, error in errors.items() if error > FAR * best]
    lines += ["", *(f"{name}: {REASONS.get(name, 'not explained.')}" for name in far)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--energy", action="store_true", help="energies in place of scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-train-steps", type=int, default=1000)
    parser.add_argument("--train-batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--output", type=Path, default=Path("objectives.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    apart = ("output", "target", "seeds")
    settings = {key: value for key, value in vars(args).items() if key not in apart}
    versions = {"hdzoo": hdzoo.__version__, "torch": torch.__version__}
    versions["python"] = platform.python_version()
    written = {"settings": settings, "versions": versions, "runs": {}}
    if args.output.exists():
        before = json.loads(args.output.read_text())
        if any(before[key] != written[key] for key in ("settings", "versions")):
            parser.error(f"{args.output} has other settings or versions; give another --output")
        written = before
    tables = []
    for target in args.target or TARGETS:
        rows = written["runs"].setdefault(target, {name: [] for name in OBJECTIVES})
        for seed, name in product(range(args.seeds), OBJECTIVES):
            if seed == len(rows[name]):
                rows[name].append(train(name, target, seed, args))
                write_json(args.output, written)
                print(f"{target}, {name}: {rows[name][-1]['error']:.4f}", file=sys.stderr)
        tables += ["", *table(target, {name: rows[name][: args.seeds] for name in OBJECTIVES})]
    settings |= {"command": " ".join(sys.argv), "seeds": args.seeds}
    print(HEADER.format(title=__doc__.splitlines()[0], **settings))
    print("\n".join(tables))


if __name__ == "__main__":
    main()
