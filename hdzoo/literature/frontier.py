"""Quality against network evaluations, of all samplers and baselines, each tuned alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hdzoo.checks import Many, OneOf
from hdzoo.leaderboard.board import Entry, loss
from hdzoo.leaderboard.compare import compare
from hdzoo.leaderboard.ranking import WIDTH, Difference, difference
from hdzoo.literature.base import Claim, Progress, Reproduction
from hdzoo.markdown import prose, table
from hdzoo.metrics.comparison import Result
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.reference import load_reference, reference_of
from hdzoo.metrics.report import plus_minus
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.plots import style
from hdzoo.samplers.presets import PRESETS
from hdzoo.text import counted

# The last two of features that classify.
METRICS = ("fid", "wfid", "tv")
# Hours on a machine of few cores...
FULL: dict[str, Any] = {
    "budgets": (5, 10, 20, 50, 100, 200, 1000),
    "langevin_budgets": (),
    "num_images": 10_000,
    "trials": 8,
    "trial_images": 1000,
}
# ... and minutes, by which little can be told apart.
QUICK: dict[str, Any] = {
    "budgets": (5, 10, 20, 50),
    "langevin_budgets": (200,),
    "num_images": 160,
    "trials": 3,
    "trial_images": 40,
}


@dataclass(frozen=True)
class Contender:
    """A sampler of the frontier.

    Attributes:
        sampler: its registered name.
        options: that make it what it is; the others are tuned.
        budgets: that it is for; all if there are none.
        tuned: whether it is.
    """

    sampler: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budgets: Sequence[int] = ()
    tuned: bool = True


LANGEVIN = "annealed Langevin (Algorithm 1)"
_SOLVER = "dpm-solver-pp-2m"
_PLAIN = {"solver_type": "midpoint", "noise_scale": 1.0}
_WALK = {"hand_off": "half", "readout": "full"}
CONTENDERS = {
    "Heun": Contender("heun", {"churn": 0.0}),
    "Heun, churn": Contender("heun", {"churn": 10.0}),
    "DPM-Solver++ 2M": Contender(_SOLVER, _PLAIN | {"eta": 0.0, "rho": 7.0}),
    "DPM-Solver++ 2M SDE": Contender(_SOLVER, _PLAIN | {"eta": 1.0, "rho": 7.0}),
    "UniPC": Contender("unipc", {"solver_order": 2, "solver_type": "bh2", "rho": 7.0}),
    "consistent annealing": Contender("consistent-annealed-sampling", {"readout": "full"}),
    "second-order consistent annealing": Contender(_SOLVER, {"solver_type": "heun", "rho": None}),
    LANGEVIN: Contender("annealed-langevin", {"readout": None}),
    "annealed half-denoising (Algorithm 2)": Contender("annealed-half-denoising"),
    "alpha-half-denoising (Algorithm 3)": Contender("alpha-half-denoising"),
    "averaged noise": Contender("averaged-noise-annealed-langevin", _WALK),
    "underdamped": Contender("underdamped-annealed-langevin", _WALK),
}


def contenders(model: str | Path) -> dict[str, Contender]:
    """All of them, by name: `CONTENDERS`, and the presets as they are on a model."""
    pipe = HDPipeline.from_pretrained(model)
    presets = {
        f"preset {name}": Contender(
            preset.sampler,
            preset.options(pipe.unet, pipe.scheduler.config),
            (preset.num_inference_steps,),
            tuned=False,
        )
        for name, preset in PRESETS.items()
    }
    return presets | CONTENDERS


def run(
    progress: Progress,
    *,
    folder: Path,
    quick: bool = False,
    model: str = "ncsn-mnist",
    samplers: Sequence[str] | None = None,
    budgets: Sequence[int] | None = None,
    langevin_budgets: Sequence[int] | None = None,
    num_images: int | None = None,
    trials: int | None = None,
    trial_images: int | None = None,
    rank_by: str | None = None,
    seed: int = 0,
    trial_seed: int = 1,
    chunk_size: int = 125,
    num_threads: int = 1,
    dtype: str = "float32",
) -> Reproduction:
    """Tunes each contender at each budget, and judges it on seeds that it was not tuned on.

    Each is a comparison of its own (`hdzoo.leaderboard.compare`) in a folder of its own, so a run
    goes on where it stopped, and contenders and budgets may be added.

    Args:
        progress: told how far it is.
        folder: where the comparisons are.
        quick: few images, trials and budgets (`QUICK`).
        model: a folder, a bundled name, or a Hub id, with a reference.
        samplers: names of `contenders`; all by default.
        budgets: network evaluations for each image; those of `FULL` or `QUICK` by default.
        langevin_budgets: more of them, of annealed Langevin dynamics alone, which needs many; by
            default those of `FULL` or `QUICK`, or none if there are ``budgets``.
        num_images: of each.
        trials: configurations to try of each at each budget.
        trial_images: drawn with each of these.
        rank_by: the metric that each is tuned by and that says which is best: by default ``wfid``
            if the reference's features classify, else ``fid``.
        seed: of the images that are reported.
        trial_seed: of those that are tuned on.
        chunk_size: images drawn together.
        num_threads: CPU threads.
        dtype: of the network's weights.
    """
    extractor = get_extractor(load_reference(reference_of(model)).known_extractor())
    metrics = tuple(metric for metric in METRICS if metric in extractor.metrics)
    rank_by = rank_by or ("wfid" if "wfid" in metrics else "fid")
    known = contenders(model)
    chosen = (
        list(known) if samplers is None else list(Many(OneOf(tuple(known)))("samplers", samplers))
    )
    chosen = list(dict.fromkeys(chosen))
    defaults = QUICK if quick else FULL
    asked = budgets or defaults["budgets"]
    if langevin_budgets is None:
        langevin_budgets = () if budgets else defaults["langevin_budgets"]
    sizes = {"num_images": num_images, "trials": trials, "trial_images": trial_images}
    settings: dict[str, Any] = {
        **{key: defaults[key] if size is None else size for key, size in sizes.items()},
        "seed": seed,
        "trial_seed": trial_seed,
        "chunk_size": chunk_size,
        "num_threads": num_threads,
        "dtype": dtype,
    }
    plans = {
        name: [b for b in asked if b in (known[name].budgets or asked)]
        + list(langevin_budgets if name == LANGEVIN else ())
        for name in chosen
    }
    found: dict[str, list[Entry]] = {}
    for number, (name, costs) in enumerate(plans.items()):
        if not costs:
            continue
        progress(f"{name}: {', '.join(map(str, costs))} evaluations", number, len(plans))
        one = known[name]
        board = compare(
            model,
            folder / name.lower().translate(_IN_NAMES),
            samplers=[one.sampler],
            num_inference_steps=costs,
            options=dict(one.options),
            metrics=metrics,
            rank_by=rank_by,
            on_note=progress,
            **settings | ({} if one.tuned else {"trials": 0}),
        )
        found[name] = board.entries
        said = [f"{e.num_inference_steps}: {_value(e, rank_by)}" for e in board.entries]
        progress(f"{name}: {rank_by} at {', '.join(said)}", number + 1, len(plans))
    frontier = Frontier(found, rank_by, metrics)
    return Reproduction(
        title=f"Quality against network evaluations on {model}",
        source="measured here; each sampler's own source is in `hdzoo samplers`",
        claims=frontier.claims(),
        numbers=frontier.numbers(),
        draw=frontier.draw,
        conclusion=frontier.conclusion(),
        settings={"model": model, "budgets": list(asked), "rank_by": rank_by, **settings},
        page=frontier.page(model, settings),
    )


_IN_NAMES = {ord(old): new for old, new in ((" ", "-"), (",", None), ("(", None), (")", None))}


def _value(entry: Entry, metric: str) -> str:
    if entry.report is None:
        return "failed"
    result = entry.report[metric]
    return plus_minus(result.value, result.spread)


class Frontier:
    """What a run has found.

    Args:
        entries: of each contender, one for each budget.
        rank_by: the metric that says which is best.
        metrics: that there are.
    """

    def __init__(
        self,
        entries: Mapping[str, list[Entry]],
        rank_by: str,
        metrics: Sequence[str] = METRICS,
    ) -> None:
        self.entries = entries
        self.rank_by = rank_by
        self.metrics = metrics

    @property
    def budgets(self) -> list[int]:
        """Ascending."""
        return sorted({e.num_inference_steps for found in self.entries.values() for e in found})

    def at(self, budget: int) -> dict[str, Entry]:
        """Those that have not failed, best first."""
        found = {
            name: entry
            for name, entries in self.entries.items()
            for entry in entries
            if entry.num_inference_steps == budget and entry.report is not None
        }
        by = self.rank_by
        return dict(sorted(found.items(), key=lambda item: loss(by, _result(item[1], by).value)))

    def difference(self, one: Entry, other: Entry, metric: str) -> Difference:
        """The other's metric minus the one's."""
        return difference(_result(one, metric), _result(other, metric))

    def claims(self) -> list[Claim]:
        """Which is best at each budget, and whether few evaluations do what many do."""
        claims = []
        for budget in self.budgets:
            placed = self.at(budget)
            if len(placed) < 2:
                continue
            (name, best), *others = placed.items()
            ties = [o for o, e in others if self.difference(best, e, self.rank_by).is_tie]
            claims.append(
                Claim(
                    f"{budget} evaluations: the best of {len(placed)} by {self.rank_by}",
                    "not public",
                    f"{name}, {_value(best, self.rank_by)}; "
                    + (f"cannot be told from it: {', '.join(ties)}" if ties else "no tie"),
                )
            )
        walks = [e for e in self.entries.get(LANGEVIN, ()) if e.report is not None]
        many = max(walks, key=lambda e: e.num_inference_steps, default=None)
        for budget in (10, 20):
            placed = self.at(budget)
            if many is None or not placed or many.num_inference_steps <= budget:
                continue
            name, few = next(iter(placed.items()))
            for metric in (m for m in ("fid", "wfid") if m in self.metrics):
                found = self.difference(many, few, metric)
                claims.append(
                    Claim(
                        f"{metric}: {name} at {budget} minus {LANGEVIN} at "
                        f"{many.num_inference_steps} is not above 0",
                        "not public",
                        str(found),
                        agrees=found.is_tie or found.value < 0,
                    )
                )
        return claims

    def conclusion(self) -> str:
        """In words."""
        said = [
            f"{budget} evaluations: {name} ({self.rank_by} {_value(entry, self.rank_by)})"
            for budget in self.budgets
            for name, entry in list(self.at(budget).items())[:1]
        ]
        return (
            f"Best by {self.rank_by}, ± {WIDTH} standard errors: {'; '.join(said)}. The claims and "
            "the page say which others cannot be told from them: what has not been told apart is "
            "a tie."
        )

    def numbers(self) -> dict[str, Any]:
        """Of every entry, and every difference from the best at its budget."""
        rows = []
        for name, entries in self.entries.items():
            for entry in entries:
                budget = entry.num_inference_steps
                row: dict[str, Any] = {
                    "contender": name,
                    "sampler": entry.sampler,
                    "num_inference_steps": budget,
                    "options": entry.options,
                    "trials": [asdict(trial) for trial in entry.trials],
                    "failure": entry.failure,
                }
                if entry.report is not None:
                    best = next(iter(self.at(budget).values()))
                    for result in entry.report.results:
                        row[result.metric] = {"value": result.value, "spread": result.spread}
                    for metric in self.metrics:
                        found = self.difference(best, entry, metric)
                        row[metric]["minus_the_best"] = asdict(found) | {"tie": found.is_tie}
                rows.append(row)
        return {"entries": rows}

    def page(self, model: str, settings: Mapping[str, Any]) -> str:
        """Tables in Markdown."""
        first = next((e for b in self.budgets for e in self.at(b).values()), None)
        floor = "" if first is None else self._floors(first)
        parts = [
            f"# Quality against network evaluations on {prose(model)}",
            f"{counted(settings['num_images'], 'image')} of each, of seeds that it was not tuned "
            f"on; tuned by {self.rank_by} at each budget, by at most "
            f"{counted(settings['trials'], 'configuration')} of "
            f"{counted(settings['trial_images'], 'image')}, the same search for all; presets are "
            f"taken as they are. ± is {WIDTH} standard errors.{floor}",
        ]
        for metric in self.metrics:
            parts += [f"## {metric}", self._table(partial(_value, metric=metric))]
        failures = [
            f"* {name} at {entry.num_inference_steps}: {prose(entry.failure or '')}"
            for name, entries in self.entries.items()
            for entry in entries
            if entry.report is None
        ]
        if failures:
            parts += ["## Those that failed", "\n".join(failures)]
        parts += [
            f"## {self.rank_by}, minus the best of the column",
            "A tie is what cannot be told from the best: a difference within two standard errors "
            "of itself, or of another sign in one half of the images.",
            self._table(self._minus_best),
            "## Options that the search chose",
            self._table(_options),
        ]
        return "\n\n".join(parts) + "\n"

    def _minus_best(self, entry: Entry) -> str:
        best = next(iter(self.at(entry.num_inference_steps).values()), entry)
        if entry.report is None or entry is best:
            return "best" if entry is best else "failed"
        return str(self.difference(best, entry, self.rank_by))

    def _table(self, cell: Callable[[Entry], str]) -> str:
        rows = []
        for name, entries in self.entries.items():
            said = {entry.num_inference_steps: cell(entry) for entry in entries}
            rows.append([name, *(said.get(budget, "") for budget in self.budgets)])
        return table(["evaluations", *self.budgets], rows)

    def _floors(self, entry: Entry) -> str:
        """What real images get."""
        said = []
        for metric in self.metrics:
            floor = _result(entry, metric).equal_size
            if floor is not None:
                real = plus_minus(floor.floor, floor.floor_spread)
                said.append(f"{metric} {real} at {counted(floor.num_images, 'image')}")
        return f" Real images get {', '.join(said)}." if said else ""

    def draw(self, figure: Any) -> None:
        """One panel for each metric."""
        figure.set_size_inches(5 * max(2, len(self.metrics)), 5.5)
        panels = figure.subplots(1, len(self.metrics), squeeze=False)[0]
        for axes, metric in zip(panels, self.metrics, strict=True):
            for number, (name, entries) in enumerate(self.entries.items()):
                done = sorted(
                    (e for e in entries if e.report is not None),
                    key=lambda entry: entry.num_inference_steps,
                )
                results = [_result(entry, metric) for entry in done]
                axes.errorbar(
                    [entry.num_inference_steps for entry in done],
                    [result.value for result in results],
                    [result.spread for result in results],
                    label=name,
                    capsize=2,
                    lw=1,
                    ls="" if name.startswith("preset") else "-",
                    **style(number),
                )
            axes.set(xscale="log", xlabel="network evaluations an image", title=metric)
            axes.set_yscale("linear" if metric == "tv" else "log")
            axes.set_xticks(self.budgets, [str(budget) for budget in self.budgets])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=5)


def _result(entry: Entry, metric: str) -> Result:
    assert entry.report is not None
    return entry.report[metric]


def _options(entry: Entry) -> str:
    return ", ".join(f"{key}={value}" for key, value in entry.options.items()) or "its own"
