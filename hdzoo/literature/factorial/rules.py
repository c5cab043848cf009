r"""What was asked before anything was run: decision rules, and what theory predicts of them.

A rule is a statement on the distances of cells, the same on every target: that one contrast is
below 0, or that two cells are as good as equal. It holds where the whole confidence interval says
so, does not hold where the whole interval says the opposite, and cannot be told in between.
Predictions are by the theory and by what was measured before: the report's account of its
Algorithm 3, the exact laws on Gaussians, and runs of single settings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hdzoo.literature.factorial.cells import (
    CELLS,
    CHAINS,
    LAST_NOISES,
    MATCHED,
    READOUTS,
    Cell,
    Chain,
)
from hdzoo.literature.factorial.intervals import Interval, contrast

Table = Mapping[Cell, float]
# Kinds of targets: in all directions smooth; half of the directions singular; digits of 8 x 8
# pixels; a network of MNIST; one of MNIST with noise within a grey level.
SMOOTH, SINGULAR, DIGITS, MNIST, DEQUANTISED = (
    "smooth",
    "half singular",
    "digits",
    "mnist",
    "dequantised",
)
# Cells are as good as equal within this part of what is at stake between two others.
MARGIN = 0.1

READ = READOUTS[1:]


def cell(
    hand_off: str = "half",
    noise: str = "fresh",
    last: str = "kept",
    readout: float | str = 1.0,
    eta: float = 0.2,
) -> Cell:
    """A cell; by default annealed Langevin with the half hand-off and denoising in full."""
    return Cell(Chain(hand_off, noise, eta), last, readout)


ALG_1 = cell("own", readout=0.0)
ALG_3 = cell("next", last="dropped", readout=0.0)
ALG_2 = cell("next", last="dropped", readout=0.0, eta=0.5)
ONLY_DROPPED = cell("own", last="dropped", readout=0.0)
ONLY_HANDED_ON = cell("next", readout=0.0)


@dataclass(frozen=True)
class Rule:
    """One statement, and what is predicted of it.

    Args:
        name: short.
        statement: what it says, for people.
        difference: of a table; the statement is that it is below 0, or within the margin.
        at_stake: of a table, for statements of equality: they allow `MARGIN` of it.
        predicted: by kind of target, whether it will hold; no prediction where it is missing.
        why: the prediction, in a few words.
    """

    name: str
    statement: str
    difference: Callable[[Table], float]
    at_stake: Callable[[Table], float] | None = None
    predicted: Mapping[str, bool] = field(default_factory=dict)
    why: str = ""

    @property
    def asks(self) -> set[Cell]:
        """The cells that it is about."""
        table = _Asked()
        for of in (self.difference, self.at_stake):
            if of is not None:
                of(table)
        return set(table)


class _Asked(dict[Cell, float]):
    """A table that has whatever it is asked for."""

    def __missing__(self, one: Cell) -> float:
        return self.setdefault(one, 1.0)


def better(one: Cell, other: Cell) -> Callable[[Table], float]:
    """That the one has the smaller distance."""
    return lambda table: table[one] - table[other]


def best(table: Table, cells: Sequence[Cell]) -> float:
    """The smallest distance of some cells."""
    return min(table[one] for one in cells)


RULES = (
    Rule(
        "alpha-half is better",
        "Algorithm 3 is better than Algorithm 1",
        better(ALG_3, ALG_1),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="the report's FIDs",
    ),
    Rule(
        "the last step alone",
        "Algorithm 3 is Algorithm 1 with the last noise dropped, within a tenth of its gain",
        better(ALG_3, ONLY_DROPPED),
        at_stake=better(ALG_3, ALG_1),
        predicted={SMOOTH: False, SINGULAR: False, DIGITS: False},
        why="a hand-off with less noise is worth something everywhere",
    ),
    Rule(
        "the hand-off alone",
        "Algorithm 3 is Algorithm 1 with the next rung's noise handed on, within a tenth of its "
        "gain",
        better(ALG_3, ONLY_HANDED_ON),
        at_stake=better(ALG_3, ALG_1),
        predicted={SMOOTH: True, SINGULAR: False, DIGITS: True, MNIST: False},
        why="smooth data hide the last noise; singular data show it",
    ),
    Rule(
        "mostly the hand-off",
        "The hand-off alone gains more on Algorithm 1 than the dropped noise alone",
        better(ONLY_HANDED_ON, ONLY_DROPPED),
        predicted={SMOOTH: True, SINGULAR: False, DIGITS: True},
        why="as before; of features nothing was known",
    ),
    Rule(
        "denoising beats alpha-half",
        "Algorithm 1 denoised in full is better than Algorithm 3",
        better(cell("own"), ALG_3),
        predicted={SMOOTH: False, SINGULAR: True, DIGITS: False, MNIST: True},
        why="singular data want all of the noise away, slow directions want the hand-off",
    ),
    Rule(
        "both together are best",
        "The half hand-off with the best read-out is better than Algorithm 3, and than Algorithm 1 "
        "with the best read-out",
        lambda table: (
            best(table, [cell(readout=r) for r in READ])
            - min(table[ALG_3], best(table, [cell("own", readout=r) for r in READ]))
        ),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="best in every control",
    ),
    Rule(
        "half is handed on better than next",
        "The half hand-off is better than the next rung's noise, both denoised in full",
        better(cell(), cell("next")),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="it maps one noisy law to the next to second order",
    ),
    Rule(
        "matching the variance adds nothing",
        "The variance-matched hand-off is as good as half, within a tenth of half's gain on none",
        better(cell("variance-matched"), cell()),
        at_stake=better(cell(), cell("own")),
        predicted={SMOOTH: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="they tied on the digits and on ncsn-mnist",
    ),
    Rule(
        "averaged noise bears long steps",
        "At eta = 1.1 averaged noise is better than fresh, with the half hand-off and denoising in "
        "full",
        better(cell(noise="averaged", eta=1.1), cell(eta=1.1)),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="its walk has no bias of first order",
    ),
    Rule(
        "averaged noise needs the hand-off",
        "Without a hand-off averaged noise is as good as fresh, within a tenth of what half gains",
        better(cell("own", noise="averaged"), cell("own")),
        at_stake=better(cell(), cell("own")),
        predicted={SMOOTH: True, DIGITS: True},
        why="slow directions dominate there",
    ),
    Rule(
        "half is read out better than full",
        "The read-out 1/2 is better than 1, after averaged noise and the half hand-off",
        better(cell(noise="averaged", readout=0.5), cell(noise="averaged")),
        predicted={SMOOTH: True, SINGULAR: False, DIGITS: False, MNIST: False, DEQUANTISED: False},
        why="half-denoising's own claim, for regular densities",
    ),
    Rule(
        "lambda* is better than full",
        "The variance-matched read-out is better than 1, after averaged noise and the half "
        "hand-off",
        better(cell(noise="averaged", readout=MATCHED), cell(noise="averaged")),
        predicted={SMOOTH: True, SINGULAR: False, MNIST: False},
        why="right where all directions are alike",
    ),
    Rule(
        "half corrected is better than half",
        "1/2 + eta/4 = .55 is better than 1/2, after fresh noise and the half hand-off",
        better(cell(readout=0.55), cell(readout=0.5)),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: True, MNIST: True},
        why="it takes off what the walk inflates; elsewhere it is nearer to full",
    ),
    Rule(
        "some read-out is worth its evaluation",
        "The best read-out above 0 is better than none, after fresh noise and the half hand-off",
        lambda table: (
            best(table, [cell(readout=r) for r in READ])
            - min(table[cell(last=last, readout=0.0)] for last in LAST_NOISES)
        ),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="an evaluation of a walk adds as much noise as it takes away",
    ),
    Rule(
        "Algorithm 2 is better than 3",
        "Algorithm 2 is better than Algorithm 3: eta = .5 against .2",
        better(ALG_2, ALG_3),
        predicted={SMOOTH: True, SINGULAR: True, DIGITS: False},
        why="it was discarded as unstable; on the digits its mode weights are off",
    ),
    Rule(
        "the best has averaged noise",
        "The best cell with averaged noise is better than the best with fresh noise",
        lambda table: best(table, _with("averaged")) - best(table, _with("fresh")),
        predicted={SMOOTH: True, DIGITS: True, MNIST: True, DEQUANTISED: True},
        why="by the step that it bears",
    ),
)


def _with(noise: str) -> list[Cell]:
    return [one for one in CELLS if one.chain.noise == noise]


def chains_asked_for() -> tuple[Chain, ...]:
    """The chains without which a rule on single settings could not be judged; not those that only
    a best of all is looked for among."""
    asked = {one.chain for rule in RULES if len(rule.asks) < len(CELLS) for one in rule.asks}
    return tuple(chain for chain in CHAINS if chain in asked)


# Between the two networks: a contrast of the one less that of the other.
CROSS_RULE = Rule(
    "dequantised data want less denoising",
    "The read-out .8 does worse against 1 on the network of MNIST than on that of dequantised "
    "MNIST",
    lambda table: table[cell(noise="averaged", readout=0.8)] / table[cell(noise="averaged")],
    predicted={DEQUANTISED: True},
    why="noise within a grey level makes the density regular, if only at that scale",
)


@dataclass(frozen=True)
class Verdict:
    """What comes of a rule on a target.

    Args:
        rule: it.
        difference: with its interval.
        margin: on which equality is judged, with its interval; None for other statements.
        holds: None where the data cannot tell.
        predicted: None where nothing was.
    """

    rule: Rule
    difference: Interval
    margin: Interval | None
    holds: bool | None
    predicted: bool | None

    @property
    def said(self) -> str:
        """The outcome beside the prediction, in words."""
        if self.holds is None:
            return "cannot tell"
        if self.predicted is None:
            return "holds, not predicted" if self.holds else "does not hold, not predicted"
        outcome = "holds" if self.holds else "does not hold"
        return f"{outcome}, {'as predicted' if self.holds == self.predicted else 'AGAINST'}"


def judge(rule: Rule, tables: Sequence[Table], kind: str) -> Verdict:
    """Whether a rule holds on a target.

    Args:
        rule: it.
        tables: distances of all cells: of all seeds, and of all but each; or the exact ones.
        kind: of the target.
    """
    difference, predicted = contrast(rule.difference, tables), rule.predicted.get(kind)
    if rule.at_stake is None:
        return Verdict(rule, difference, None, below_zero(difference), predicted)
    at_stake = rule.at_stake

    def margin(table: Table) -> float:
        return MARGIN * abs(at_stake(table))

    # Two one-sided statements: neither is above the other by more than the margin.
    sides = [
        below_zero(contrast(lambda table: rule.difference(table) - margin(table), tables)),
        below_zero(contrast(lambda table: -rule.difference(table) - margin(table), tables)),
    ]
    holds = False if False in sides else None if None in sides else True
    return Verdict(rule, difference, contrast(margin, tables), holds, predicted)


def below_zero(found: Interval) -> bool | None:
    """Whether a number is below 0; None where its interval has both signs."""
    if found.high < 0:
        return True
    return False if found.low > 0 or found.low == found.high else None
