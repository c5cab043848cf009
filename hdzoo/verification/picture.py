"""What `hdzoo verify` finds of samplers' bias, as a picture: distance to the data against cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from hdzoo.plots import style

if TYPE_CHECKING:
    from hdzoo.verification.verify import Verdict

COST = "num_inference_steps"


def cost_curves(verdicts: Sequence["Verdict"]) -> dict[str, Mapping[float, float]]:
    """The Wasserstein-2 distance to the data by the number of network evaluations, by sampler.

    Args:
        verdicts: of any checks; those have curves that numbers called ``wasserstein2`` came with.
    """
    found = ((verdict.sampler, verdict.numbers.get("wasserstein2", {})) for verdict in verdicts)
    return {sampler: curves[COST] for sampler, curves in found if curves.get(COST)}


def bias_figure(curves: Mapping[str, Mapping[float, float]]) -> Figure:
    """One line for each sampler.

    Args:
        curves: for each sampler, from network evaluations to the distance; of a distance of 0 there
            is no point, since both axes are logarithmic.
    """
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes: Any = figure.subplots()
    for number, (sampler, curve) in enumerate(sorted(curves.items())):
        points = sorted((cost, distance) for cost, distance in curve.items() if distance > 0)
        costs, distances = zip(*points, strict=True) if points else ((), ())
        axes.plot(costs, distances, label=sampler, **style(number))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="network evaluations",
        ylabel="exact Wasserstein-2 distance to the data",
        title="Bias of samplers on Gaussian data",
    )
    ticks = sorted({cost for curve in curves.values() for cost in curve})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    if curves:
        axes.legend(fontsize=8)
    return figure
