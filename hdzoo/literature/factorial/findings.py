"""What comes of the factorial: verdicts, effects of each axis, claims, page, and picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hdzoo import markdown
from hdzoo.literature.base import Claim
from hdzoo.literature.factorial.cells import (
    CELLS,
    ETAS,
    LAST_NOISES,
    READOUTS,
    WALKS,
    Cell,
    spelled,
)
from hdzoo.literature.factorial.intervals import CONFIDENCE, Interval, contrast, interval
from hdzoo.literature.factorial.rules import (
    ALG_1,
    ALG_2,
    ALG_3,
    CROSS_RULE,
    DEQUANTISED,
    MARGIN,
    MNIST,
    RULES,
    Table,
    Verdict,
    below_zero,
    cell,
    judge,
)
from hdzoo.plots import style
from hdzoo.samplers.langevin import HAND_OFFS

NAMED = {
    "Algorithm 1": ALG_1,
    "Algorithm 3": ALG_3,
    "Algorithm 2": ALG_2,
    "Algorithm 1, denoised": cell("own"),
    "half hand-off, denoised": cell(),
    "the same, averaged noise, eta 1.1": cell(noise="averaged", eta=1.1),
}
BEST = 5
# Step sizes in the picture: the report's, and one that fresh noise does not bear.
SHOWN = (0.2, 1.1)


@dataclass(frozen=True)
class Found:
    """What was measured on a target.

    Args:
        target: its settings.
        tables: distances of all cells by metric, the main one first: of all seeds, and of all but
            each; or the exact ones.
    """

    target: Mapping[str, Any]
    tables: Sequence[Mapping[str, Table]]

    @property
    def name(self) -> str:
        return str(self.target["name"])

    @property
    def metric(self) -> str:
        """The main one."""
        return next(iter(self.tables[0]))

    @property
    def main(self) -> list[Table]:
        return [table[self.metric] for table in self.tables]

    @property
    def is_exact(self) -> bool:
        return len(self.tables) == 1

    @property
    def cells(self) -> list[Cell]:
        """Those that were run."""
        return [one for one in CELLS if one in self.main[0]]

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """By the rule's name; without those of which some cells were not run."""
        ran = set(self.cells)
        return {
            rule.name: judge(rule, self.main, self.target["kind"])
            for rule in RULES
            if rule.asks <= ran
        }

    def of(self, one: Cell, metric: str | None = None) -> Interval:
        """The distance of a cell."""
        return contrast(
            lambda table: table[one], [table[metric or self.metric] for table in self.tables]
        )

    @cached_property
    def ranking(self) -> list[tuple[Cell, Interval]]:
        """The cells that were run, the best first."""
        return sorted(((one, self.of(one)) for one in self.cells), key=lambda row: row[1].value)


def cross_verdict(found: Sequence[Found]) -> Verdict | None:
    """The rule on two networks, if there are two."""
    by_kind = {one.target["kind"]: one for one in found}
    if not {MNIST, DEQUANTISED} <= set(by_kind):
        return None
    pairs = zip(by_kind[MNIST].main, by_kind[DEQUANTISED].main, strict=True)
    ratio = CROSS_RULE.difference
    # The seeds are the same, and so is the noise.
    difference = interval([ratio(after) - ratio(before) for before, after in pairs])
    return Verdict(CROSS_RULE, difference, None, below_zero(difference), True)


# ---- effects ------------------------------------------------------------------------------------

AXES: dict[str, tuple[Sequence[Any], Callable[[Cell, Any], Cell]]] = {
    "hand-off": (HAND_OFFS, lambda c, level: c._replace(chain=c.chain._replace(hand_off=level))),
    "walk noise": (tuple(WALKS), lambda c, level: c._replace(chain=c.chain._replace(noise=level))),
    "last noise": (LAST_NOISES, lambda c, level: c._replace(last=level)),
    "read-out": (READOUTS, lambda c, level: c._replace(readout=level)),
    "eta": (
        (0.2, *(eta for eta in ETAS if eta != 0.2)),
        lambda c, level: c._replace(chain=c.chain._replace(eta=level)),
    ),
}


def effects(tables: Sequence[Table]) -> dict[str, dict[str, Interval]]:
    """Of each axis, each level's distance over that of the first level, all else equal: the
    geometric mean over everything else. Nothing where not all cells were run."""
    found: dict[str, dict[str, Interval]] = {}
    if len(tables[0]) < len(CELLS):
        return found
    for axis, (levels, put) in AXES.items():
        others = list(dict.fromkeys(put(one, levels[0]) for one in CELLS))
        found[axis] = {
            str(level): _ratio(others, [put(one, level) for one in others], tables)
            for level in levels[1:]
        }
    return found


def _ratio(ones: Sequence[Cell], others: Sequence[Cell], tables: Sequence[Table]) -> Interval:
    def mean_log(table: Table) -> float:
        logs = [math.log(table[b] / table[a]) for a, b in zip(ones, others, strict=True)]
        return float(np.mean(logs))

    return Interval(*map(math.exp, contrast(mean_log, tables)))


# ---- for the JSON -------------------------------------------------------------------------------


def numbers(found: Sequence[Found]) -> dict[str, Any]:
    """All that was measured."""
    cross = cross_verdict(found)
    return {
        "confidence": CONFIDENCE,
        "margin of equality": MARGIN,
        "targets": {
            one.name: {
                "verdicts": [_told(verdict) for verdict in one.verdicts.values()],
                "effects": {
                    axis: {level: ratio._asdict() for level, ratio in levels.items()}
                    for axis, levels in effects(one.main).items()
                },
                "cells": {
                    metric: {str(c): one.of(c, metric)._asdict() for c in one.cells}
                    for metric in one.tables[0]
                },
            }
            for one in found
        },
        "across networks": None if cross is None else _told(cross),
    }


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "rule": verdict.rule.name,
        "statement": verdict.rule.statement,
        "difference": verdict.difference._asdict(),
        "margin": None if verdict.margin is None else verdict.margin._asdict(),
        "holds": verdict.holds,
        "predicted": verdict.predicted,
    }


# ---- in words -----------------------------------------------------------------------------------


def claims(found: Sequence[Found]) -> list[Claim]:
    """One for each rule, over all targets."""
    rows = []
    for rule in RULES:
        verdicts = {one.name: one.verdicts[rule.name] for one in found if rule.name in one.verdicts}
        decided = [v for v in verdicts.values() if None not in (v.holds, v.predicted)]
        rows.append(
            Claim(
                rule.statement,
                "predicted: " + _by_outcome({n: v.predicted for n, v in verdicts.items()}, "open"),
                _by_outcome({n: v.holds for n, v in verdicts.items()}, "cannot tell"),
                all(v.holds == v.predicted for v in decided) if decided else None,
            )
        )
    return rows


def _by_outcome(outcomes: Mapping[str, bool | None], neither: str) -> str:
    parts = []
    for outcome, word in ((True, "yes"), (False, "no"), (None, neither)):
        names = [name for name, found in outcomes.items() if found is outcome]
        if names:
            parts.append(f"{word}: {'; '.join(names)}")
    return ". ".join(parts)


def conclusion(found: Sequence[Found]) -> str:
    """How many predictions held, and what is best where."""
    verdicts = [verdict for one in found for verdict in one.verdicts.values()]
    made = [verdict for verdict in verdicts if verdict.predicted is not None]
    held = sum(verdict.holds == verdict.predicted for verdict in made)
    open_ = sum(verdict.holds is None for verdict in made)
    text = (
        f"Of {len(made)} predictions on {len(found)} targets {held} held, "
        f"{len(made) - held - open_} did not, and of {open_} the data cannot tell."
    )
    for one in found:
        first, value = one.ranking[0]
        text += f" Best on {one.name}: {first}, {one.metric} {value}."
    return text


def page(title: str, found: Sequence[Found]) -> str:
    """The report."""
    parts = [
        f"# {title}",
        conclusion(found),
        f"Intervals are of {CONFIDENCE:.0%}, paired over seeds, for the difference itself. Each "
        "stands for itself: of many, one in twenty misses. A statement of equality allows "
        f"{MARGIN:g} of what is at stake. Distances are less their bias of first order in the "
        "number of samples.",
        "## Targets",
        markdown.table(
            ("target", "levels", "evaluations", "samples", "distance"),
            [
                (
                    one.name,
                    "{num_levels} from {sigma_max:g} to {sigma_min:g}".format(**one.target),
                    one.target["evaluations"],
                    "exact"
                    if one.is_exact
                    else f"{len(one.tables) - 1} seeds of {one.target['num_samples']}",
                    one.metric,
                )
                for one in found
            ],
        ),
        "## Decision rules",
        "Of each statement whether it holds, as predicted or AGAINST the prediction, and the "
        "difference of distances that decides: below 0 where the statement holds, or within the "
        "margin where it is one of equality.",
        markdown.table(
            ("statement", "predicted because", *(one.name for one in found)),
            [
                (
                    rule.statement,
                    rule.why,
                    *(_cell(one.verdicts.get(rule.name)) for one in found),
                )
                for rule in RULES
            ],
        ),
    ]
    cross = cross_verdict(found)
    if cross is not None:
        parts += [f"{cross.rule.statement}: {_cell(cross)}."]
    parts += ["## Distances"]
    for one in found:
        rows = [(name, c, one.of(c)) for name, c in NAMED.items()]
        rows += [(f"best {place}", *row) for place, row in enumerate(one.ranking[:BEST], 1)]
        parts += [f"**{one.name}**", markdown.table(("", "cell", one.metric), rows)]
    parts += [
        "## Effects",
        "The distance over that of the first level of an axis (hand-off own, fresh noise, last "
        "noise kept, no read-out, eta .2), all else equal: the geometric mean over everything "
        "else.",
    ]
    by_target = [effects(one.main) for one in found]
    parts += [
        markdown.table(
            ("axis", "level", *(one.name for one in found)),
            [
                (axis, level, *(of.get(axis, {}).get(str(level), "not run") for of in by_target))
                for axis, (levels, _) in AXES.items()
                for level in levels[1:]
            ],
        )
    ]
    return "\n\n".join(parts) + "\n"


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not run"
    within = "" if verdict.margin is None else f", margin {verdict.margin.value:.2g}"
    return f"{verdict.said}; {verdict.difference}{within}"


# ---- the picture --------------------------------------------------------------------------------


def draw(found: Sequence[Found], figure: Any) -> None:
    """The distance against the read-out, the last noise kept: a row for each target, a column for
    a step size, a colour for each hand-off; averaged noise is dashed."""
    figure.set_size_inches(5 * len(SHOWN), 2.6 * len(found) + 0.6)
    panels = figure.subplots(len(found), len(SHOWN), squeeze=False, sharey="row", sharex=True)
    for one, row in zip(found, panels, strict=True):
        for eta, panel in zip(SHOWN, row, strict=True):
            for number, hand_off in enumerate(HAND_OFFS):
                for noise, line in (("fresh", "-"), ("averaged", "--")):
                    cells = [cell(hand_off, noise, "kept", r, eta) for r in READOUTS]
                    if cells[0] not in one.main[0]:
                        continue
                    values = [one.of(c) for c in cells]
                    middle = np.array([value.value for value in values])
                    spread = np.array([value.high - value.value for value in values])
                    panel.errorbar(
                        range(len(READOUTS)),
                        middle,
                        yerr=None if one.is_exact else spread,
                        linestyle=line,
                        markersize=3,
                        linewidth=1,
                        capsize=2,
                        label=f"{hand_off}, {noise}",
                        **style(number),
                    )
            panel.set_title(rf"{one.name}, $\eta$ = {eta:g}", fontsize=8)
            panel.set_xticks(range(len(READOUTS)), [spelled(r) for r in READOUTS], fontsize=7)
            panel.set_yscale("log")
        row[0].set_ylabel(one.metric)
    for panel in panels[-1]:
        panel.set_xlabel(r"read-out $\lambda$")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
