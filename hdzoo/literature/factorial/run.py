"""What half-denoising is worth: hand-off, walk, last noise, read-out and step size, all with all.

Every combination at the same number of network evaluations, the read-out's among them, with common
random numbers: on Gaussians in closed form, on the digits mixture with its exact score, and on
score networks. What was predicted stands in `hdzoo.literature.factorial.rules`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hdzoo.files import check_folder, exclusive, whole_file
from hdzoo.literature.base import Progress, Reproduction
from hdzoo.literature.factorial.cells import CHAINS, ENDS, Cell, Chain, End, spelled
from hdzoo.literature.factorial.findings import Found, claims, conclusion, draw, numbers, page
from hdzoo.literature.factorial.intervals import without_each
from hdzoo.literature.factorial.rules import DEQUANTISED, MNIST, chains_asked_for
from hdzoo.literature.factorial.targets import (
    SEEDS,
    Digest,
    Digits,
    Network,
    Sampled,
    Spectrum,
    told,
)

TITLE = "What half-denoising is worth"


def run(
    progress: Progress,
    *,
    quick: bool = False,
    network: str | None = "ncsn-mnist",
    dequantised: str | None = None,
    folder: Path,
) -> Reproduction:
    """Runs what is not done yet, and judges.

    Args:
        progress: told how far it is.
        quick: few samples; of networks 20 evaluations instead of 50, and of their chains only those
            that single rules ask for: minutes instead of hours.
        network: a network of MNIST, as it is; None to leave networks out.
        dequantised: one of MNIST with noise within a grey level, as ``hdzoo train --dequantize``
            makes; left out by default.
        folder: of what is done.
    """
    check_folder(folder)
    exact = [Spectrum(evaluations, share) for share in (0.0, 0.5) for evaluations in (100, 1000)]
    sampled: list[Sampled] = [Digits(500 if quick else 2000, 100)]
    for model, kind in ((network, MNIST), (dequantised, DEQUANTISED)):
        if model is not None:
            size, evaluations, levels = (64, 20, 5) if quick else (1000, 50, 10)
            sampled.append(Network(model, kind, size, evaluations, (5.0, 0.1, levels)))
    found = []
    for target in exact:
        progress(f"{target.name}: exact laws")
        table: dict[Cell, float] = {}
        for chain in CHAINS:
            table |= target.table(chain)
        found.append(Found(told(target), [{"Frechet": table}]))
    with exclusive(folder):
        plans = [
            chains_asked_for() if quick and isinstance(one, Network) else CHAINS for one in sampled
        ]
        total, before = sum(map(len, plans)), 0
        for one, chains in zip(sampled, plans, strict=True):
            counted = partial(_after, progress, before, total)
            found.append(Found(told(one), measured(one, chains, folder, counted)))
            before += len(chains)
    return Reproduction(
        title=TITLE,
        source="The report on annealed half-denoising, Algorithms 1 to 3; Hyvärinen (arXiv "
        "2410.05837); Leimkuhler and Matthews (arXiv 1203.5428)",
        claims=claims(found),
        numbers=numbers(found),
        draw=partial(draw, found),
        conclusion=conclusion(found),
        settings={"quick": quick, "targets": [dict(one.target) for one in found]},
        page=page(TITLE, found),
    )


def _after(progress: Progress, before: int, total: int, text: str, done: int) -> None:
    progress(text, before + done, total)


def measured(
    target: Sampled, chains: Sequence[Chain], folder: Path, progress: Callable[[str, int], None]
) -> list[dict[str, dict[Cell, float]]]:
    """The distances of the cells of some chains by metric, of all seeds, and of all but each."""
    names = without_each(SEEDS)
    tables: list[dict[str, dict[Cell, float]]] = [{} for _ in names]
    for done, chain in enumerate(chains):
        cost = f"{target.num_samples} samples by {target.ladder.evaluations} evaluations"
        progress(
            f"{target.name}: {chain.hand_off} hand-off, {chain.noise} noise, eta {chain.eta:g}, "
            f"{len(SEEDS)} seeds of {cost}",
            done,
        )
        digests = {seed: kept(target, chain, seed, folder) for seed in SEEDS}
        for seeds, table in zip(names, tables, strict=True):
            for end in ENDS:
                values = target.measure([digests[seed][end] for seed in seeds])
                for metric, value in values.items():
                    table.setdefault(metric, {})[Cell(chain, *end)] = value
    return tables


# ---- what is done -------------------------------------------------------------------------------


def kept(target: Sampled, chain: Chain, seed: int, folder: Path) -> dict[End, Digest]:
    """What comes of a chain, drawn if it was not before with the very same settings."""
    settings = json.dumps([target.protocol, chain, seed], sort_keys=True)
    words = re.sub(r"[^a-z0-9.]+", "-", f"{Path(target.name).name} {' '.join(map(str, chain))}")
    mark = hashlib.sha256(settings.encode()).hexdigest()[:16]
    path = folder / f"{words.strip('-')}-{seed}-{mark}.npz"
    found = read(path)
    if found is None:
        found = target.digests(chain, seed)
        write(path, found)
    return found


def write(path: Path, digests: Mapping[End, Digest]) -> None:
    """Keeps what comes of a chain."""
    arrays: dict[str, Any] = {
        f"{last} {spelled(readout)} {key}": array
        for (last, readout), digest in digests.items()
        for key, array in digest.items()
    }
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def read(path: Path) -> dict[End, Digest] | None:
    """What `write` has kept; None where there is nothing, or what is damaged."""
    try:
        with np.load(path) as arrays:
            flat = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile):
        return None
    return {(last, readout): _digest(flat, f"{last} {spelled(readout)} ") for last, readout in ENDS}


def _digest(flat: Mapping[str, Any], start: str) -> Digest:
    return {name.removeprefix(start): flat[name] for name in flat if name.startswith(start)}
