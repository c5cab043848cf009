"""Predictors, a corrector and the probability flow: their order on a score that is exact.

On data that are normal, with a broad, a narrow and a singular direction as images have, the law of
every chain is known, and so its distance to the data: what is left of the published order where no
network's error is in the way.
"""

from functools import partial
from typing import Any

import numpy as np

from hdzoo.distances import gaussian_wasserstein2
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.verification import Gaussian
from hdzoo.verification.laws import declared_law
from hdzoo_reverse_diffusion.predictor_corrector import ScoreSDEPCSampler
from hdzoo_reverse_diffusion.probability_flow import ProbabilityFlowSampler
from hdzoo_reverse_diffusion.reverse_sde import ReverseSDESampler

DATA = Gaussian.of([0.0, 0.0, 0.0], [0.25**2, 0.05**2, 0.0])
# The ladder of their CIFAR-10 models, and their signal-to-noise ratio.
LADDER: dict[str, Any] = {"sigma_max": 50.0, "sigma_min": 0.01}
SNR = 0.16
LEVELS = (50, 100, 250, 500, 1000)
STEPS = 1000


def run(progress: Progress) -> Reproduction:
    """Finds the distances of table 1's samplers to Gaussian data."""
    found: dict[str, dict[int, float]] = {}
    chains = samplers()
    for done, (name, (sampler, each)) in enumerate(chains.items()):
        progress(f"{name}: exact laws", done, len(chains))
        found[name] = {n * each: distance(sampler, n * each) for n in LEVELS}
    ancestral, reverse = (found[f"VE, {kind}"] for kind in ("ancestral", "reverse diffusion"))
    corrected, flow = found["VE, reverse diffusion, corrected"], found["VE, probability flow"]
    many = 2 * STEPS
    twice = distance(chains["VE, reverse diffusion"][0], many)
    vp = {name: rows[STEPS] for name, rows in found.items() if name.startswith("VP")}
    return Reproduction(
        title="The samplers of score_sde on an exact score",
        source="Song et al. (arXiv 2011.13456), table 1: FID of CIFAR-10, VE and VP SDE",
        claims=[
            Claim(
                f"VE, {STEPS} steps of the predictor: reverse diffusion against ancestral",
                "reverse diffusion is the better one, by little",
                f"W2 {reverse[STEPS]:.5f} against {ancestral[STEPS]:.5f}",
                agrees=reverse[STEPS] < ancestral[STEPS],
            ),
            Claim(
                f"VE, at {many} evaluations: {STEPS} levels corrected once, against {many} levels",
                "the corrected one is better",
                f"W2 {corrected[many]:.5f} against {twice:.5f}",
                agrees=corrected[many] < twice,
            ),
            Claim(
                f"VE, {STEPS} steps: probability flow against reverse diffusion",
                "the flow is far worse",
                f"W2 {flow[STEPS]:.5f} against {reverse[STEPS]:.5f}",
                agrees=flow[STEPS] > reverse[STEPS],
            ),
            Claim(
                f"VP, {STEPS} steps: reverse diffusion against ancestral",
                "reverse diffusion is the better one, by little",
                " against ".join(
                    f"{vp[f'VP, {kind}']:.5f}" for kind in ("reverse diffusion", "ancestral")
                ),
                agrees=vp["VP, reverse diffusion"] < vp["VP, ancestral"],
            ),
        ],
        numbers={
            "wasserstein2": {name: {str(n): w for n, w in r.items()} for name, r in found.items()},
            "reverse diffusion, twice the levels": twice,
        },
        draw=partial(draw, found),
        conclusion=conclusion(
            reverse[STEPS], ancestral[STEPS], corrected[many], twice, flow[STEPS]
        ),
        settings={
            "data": "N(0, diag(0.25^2, 0.05^2, 0))",
            "ladder": LADDER,
            "snr": SNR,
            "levels": list(LEVELS),
            "start": "the data with the noise of the first level",
            "distance": "exact, of the law by the closed forms that `hdzoo verify` proves",
        },
    )


def conclusion(
    reverse: float, ancestral: float, corrected: float, twice: float, flow: float
) -> str:
    """What to take from the numbers, by what they are."""
    first = "As published, reverse diffusion ends nearer to the data than ancestral sampling"
    if reverse >= ancestral:
        first = (
            "Unlike published, ancestral sampling ends nearer to the data, not reverse diffusion"
        )
    second = "as published, a corrector is worth more than twice the levels"
    if corrected >= twice:
        second = "unlike published, twice the levels are worth more than a corrector"
    third = "and as published the flow is the worst."
    if flow <= reverse:
        third = (
            "and unlike published the flow is not the worst: on an exact score its error is that "
            "of the steps alone. What makes it worst on images is the network, whose errors no "
            "noise repairs."
        )
    return f"{first}; {second}; {third}"


def samplers() -> dict[str, tuple[Any, int]]:
    """By name, each with its evaluations a level."""
    kinds = {"reverse diffusion": "reverse-diffusion", "ancestral": "ancestral"}
    chains: dict[str, tuple[Any, int]] = {
        f"{sde.upper()}, {name}": (ReverseSDESampler(sde=sde, predictor=kind, **LADDER), 1)
        for sde in ("ve", "vp")
        for name, kind in kinds.items()
    }
    corrected = ScoreSDEPCSampler(snr=SNR, **LADDER)
    flow = ProbabilityFlowSampler(predictor="reverse-diffusion", **LADDER)
    return chains | {
        "VE, reverse diffusion, corrected": (corrected, 2),
        "VE, probability flow": (flow, 1),
    }


def distance(sampler: Any, evaluations: int) -> float:
    """The exact Wasserstein-2 distance of a chain's end to the data."""
    sampler.set_timesteps(evaluations)
    law = declared_law(sampler, DATA, DATA.noisy(float(sampler.sigmas[0])))
    assert law is not None
    return gaussian_wasserstein2(*law, *DATA)


def draw(found: dict[str, dict[int, float]], figure: Any) -> None:
    """Distance against evaluations."""
    figure.set_size_inches(7, 4.2)
    panel = figure.subplots()
    for name, rows in found.items():
        style = "--" if name.startswith("VP") else "-"
        panel.plot(list(rows), list(rows.values()), style, marker="o", markersize=4, label=name)
    panel.set(
        xscale="log",
        yscale="log",
        xlabel="network evaluations",
        ylabel="exact W2 to the data",
        title=r"N(0, diag(0.25$^2$, 0.05$^2$, 0)), $\sigma$ from 50 to 0.01",
    )
    ticks = np.unique([n for rows in found.values() for n in rows])
    panel.set_xticks(ticks, [str(n) for n in ticks], rotation=45)
    panel.minorticks_off()
    panel.grid(which="major", alpha=0.3)
    panel.legend(fontsize=8)
