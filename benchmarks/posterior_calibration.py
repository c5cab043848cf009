"""Is a network as sure of its denoised images as it may be?

    python benchmarks/posterior_calibration.py --test TEST.parquet

adds noise to held-out images, and compares the squared error of the denoised ones with what the
network itself predicts for it: the trace of the posterior covariance by second-order Tweedie
(`hdzoo.PosteriorCovariance`), image by image, by Hutchinson's estimate. Given the noisy image the
expected error is the trace, if the network is exact: then the ratio of their means is 1, and so is
the slope of the error over the trace. Data are named as in `hdzoo train`. Prints a table, draws a
figure and writes JSON.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import hdzoo
from hdzoo.environment import versions
from hdzoo.images.sources import load_images
from hdzoo.pipelines.pictures import read_pictures
from hdzoo.plots import save_figure, style
from hdzoo.sampling import load_pipeline, network_protocol


def load(source: str, num_images: int, seed: int, pipe: hdzoo.HDPipeline) -> torch.Tensor:
    """Held-out images in the network's units, drawn without repetition."""
    data = load_images(source, "test")
    chosen = np.random.default_rng(seed).permutation(len(data))[:num_images]
    images = data.select(chosen)["image"]
    low, high = pipe.data_range
    return low + (high - low) * read_pictures("images", list(images), pipe.sample_shape[0])


def mean(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def level(pipe: hdzoo.HDPipeline, images: torch.Tensor, sigma: float, args: argparse.Namespace):
    """What is found at a noise level: numbers for a row, and the pairs for the figure."""
    generators = hdzoo.sample_generators(args.seed, range(len(images)))
    noise = torch.cat([torch.randn(images[:1].shape, generator=g) for g in generators])
    noisy = images + sigma * noise
    posterior = hdzoo.PosteriorCovariance(pipe.denoise, noisy.to(pipe.device), sigma)
    found = posterior.diagonal(args.probes, generators)
    predicted = found.trace.cpu().double().numpy()
    spread = found.trace_standard_error.cpu().double().numpy()
    actual = (posterior.mean.cpu() - images).flatten(1).double().square().sum(1).numpy()
    (p, p_error), (a, a_error) = mean(predicted), mean(actual)
    # Of a ratio of means, to first order.
    ratio_error = mean(actual - a / p * predicted)[1] / p
    # The probes' own spread would flatten the line.
    centred = predicted - p
    variance = centred @ centred / (len(images) - 1) - (spread**2).mean()
    slope = centred @ (actual - a) / (len(images) - 1) / variance
    slope_error = (centred**2 * (actual - a - slope * centred) ** 2).sum() ** 0.5
    slope_error /= (len(images) - 1) * variance
    row = {
        "sigma": sigma,
        "predicted": [p, p_error],
        "actual": [a, a_error],
        "ratio": [a / p, ratio_error],
        "slope": [float(slope), float(slope_error)],
        "correlation": float(np.corrcoef(predicted, actual)[0, 1]),
        "probe_error": float(spread.mean() / p),
        "num_evaluations": posterior.num_evaluations,
    }
    return row, predicted, actual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", default="ylecun/mnist")
    parser.add_argument("--model", default="ncsn-mnist")
    parser.add_argument("--num-images", type=int, default=64)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.5, 1.0, 2.0])
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/posterior-calibration.png"))
    args = parser.parse_args()

    begin = time.perf_counter()
    pipe = load_pipeline(args.model)
    images = load(args.test, args.num_images, args.seed, pipe)
    figure = Figure((5.2, 4.6), layout="constrained")
    ax = figure.subplots()
    table = Table("sigma", "predicted", "actual", "actual / predicted", "slope", "correlation")
    rows, ends = [], []
    for number, sigma in enumerate(args.sigmas):
        row, predicted, actual = level(pipe, images, sigma, args)
        rows.append(row)
        columns = ("predicted", "actual", "ratio", "slope")
        texts = [f"{row[name][0]:.3g} ± {row[name][1]:.1g}" for name in columns]
        table.add_row(f"{sigma:g}", *texts, f"{row['correlation']:.2f}")
        look = style(number)
        dots = {"s": 10, "color": look["color"], "marker": look["marker"], "linewidths": 0}
        ax.scatter(predicted, actual, alpha=0.6, label=f"sigma = {sigma:g}", **dots)
        ends += [predicted, actual]
        print(f"sigma {sigma:g}: {time.perf_counter() - begin:.0f} s", flush=True)
    means = np.array([[row["predicted"][0], row["actual"][0]] for row in rows])
    line = np.polyfit(*np.log(means.T), 1) if len(rows) > 1 else None
    drawn = np.stack(ends)
    line_ends = [drawn[drawn > 0].min(), drawn.max()]
    ax.plot(line_ends, line_ends, color="black", linewidth=0.8)
    ax.scatter(*means.T, s=60, facecolors="none", edgecolors="black", label="means")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="predicted: trace of the posterior covariance",
        ylabel="actual squared error",
        title=f"{args.model}, {args.num_images} held-out images",
    )
    ax.legend(fontsize=7)
    Console(width=120).print(table)
    lost = int((drawn <= 0).sum())
    if lost:
        print(
            f"{lost} of {len(ends) // 2 * len(images)} predictions are not positive, and not drawn"
        )
    if line is not None:
        print(f"slope of log actual over log predicted, means of all levels: {line[0]:.3f}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, args.output)
    report = {
        "made_by": network_protocol(pipe, args.model)
        | {"num_images": args.num_images, "probes": args.probes, "seed": args.seed}
        | {"test": args.test, "device": str(pipe.device), "versions": versions()},
        "seconds": round(time.perf_counter() - begin, 1),
        "levels": rows,
        "log_slope": None if line is None else float(line[0]),
    }
    args.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    print(args.output)


if __name__ == "__main__":
    main()
