"""`hdzoo verify`: every check of a sampler, whoever wrote it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.verification.bias import check_bias
from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, quiet_diffusers
from hdzoo.verification.closed_form import check_exact_law
from hdzoo.verification.contract import CONTRACT
from hdzoo.verification.limit import check_limit
from hdzoo.verification.monte_carlo import check_monte_carlo
from hdzoo.verification.stationary import check_stationary_law


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check of one sampler.

    Attributes:
        sampler: registered name.
        check: one of `CHECKS`.
        outcome: ``"pass"``, ``"fail"``, or ``"not applicable"``, which the message explains.
        message: what was measured, or what is wrong.
        numbers: the same for machines.
        seconds: what it took.
    """

    sampler: str
    check: str
    outcome: str
    message: str
    numbers: dict[str, Any]
    seconds: float


def verify(
    names: Sequence[str] | None = None, on_verdict: Callable[[Verdict], None] | None = None
) -> list[Verdict]:
    """Runs every check of every sampler.

    Args:
        names: registered names; all by default.
        on_verdict: called with each verdict as it comes.

    Raises:
        HDZooError: a name is unknown.
    """
    chosen = list(names) if names else plugins.list_samplers()
    for name in chosen:
        plugins.provider("samplers", name)
    verdicts = []
    for name in chosen:
        for check in CHECKS:
            verdicts.append(run_check(name, check))
            if on_verdict is not None:
                on_verdict(verdicts[-1])
    return verdicts


def run_check(name: str, check: str) -> Verdict:
    """Runs one check of one registered sampler; a failure is a verdict, not an exception."""
    begin = time.perf_counter()
    numbers: dict[str, Any] = {}
    try:
        with quiet_diffusers():
            finding = CHECKS[check](plugins.get_sampler(name))
        outcome, message, numbers = "pass", finding.message, finding.numbers
    except NotApplicable as reason:
        outcome, message = "not applicable", str(reason)
    except (CheckFailed, HDZooError) as failure:
        outcome, message = "fail", str(failure)
    except Exception as error:
        # A sampler may raise anything; the others are to be checked nevertheless.
        outcome, message = "fail", f"{type(error).__name__}: {error}"
    return Verdict(name, check, outcome, message, numbers, time.perf_counter() - begin)


def _contract(clause: Callable[[type[Any]], str]) -> Callable[[type[Any]], Finding]:
    return lambda sampler_class: Finding(clause(sampler_class))


CHECKS: dict[str, Callable[[type[Any]], Finding]] = {
    **{name: _contract(clause) for name, clause in CONTRACT.items()},
    "exact-law": check_exact_law,
    "limit": check_limit,
    "stationary-law": check_stationary_law,
    "bias": check_bias,
    "monte-carlo": check_monte_carlo,
}
# Where one of them passes, the law was compared with one that is not the sampler's own: a closed
# form may have the same fault as the chain.
TRUTHS = ("limit", "stationary-law")


def conclusions(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """What the verdicts come to for each sampler.

    Returns:
        From registered name to ``"fail"``, where a check fails; ``"pass"``, where its law was
        compared with what it converges to (``limit``) or with what it stays in
        (``stationary-law``); or ``"contract only"``, where nothing but its own formulas was there
        to compare its law with.
    """
    outcomes: dict[str, dict[str, str]] = {}
    for verdict in verdicts:
        outcomes.setdefault(verdict.sampler, {})[verdict.check] = verdict.outcome
    return {
        name: "fail"
        if "fail" in own.values()
        else "pass"
        if any(own.get(check) == "pass" for check in TRUTHS)
        else "contract only"
        for name, own in outcomes.items()
    }


# ---- for people -----------------------------------------------------------------------------


def summary_rows(verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
    """One row for each sampler: the contract's clauses in one cell, then the laws."""
    rows = []
    for name, conclusion in conclusions(verdicts).items():
        own = {verdict.check: verdict for verdict in verdicts if verdict.sampler == name}
        passed = sum(own[clause].outcome == "pass" for clause in CONTRACT)
        cells = {
            check: own[check].numbers.get("summary", own[check].outcome)
            for check in CHECKS
            if check not in CONTRACT
        }
        applicable = [cells[check] for check in TRUTHS if own[check].outcome != "not applicable"]
        rows.append(
            {
                "sampler": name,
                "contract": f"{passed} of {len(CONTRACT)}",
                "law, relative error": cells["exact-law"],
                "converges to, error": "\n".join(applicable) or "not applicable",
                "bias, W2 (NFE)": cells["bias"],
                "samples": cells["monte-carlo"],
                "verdict": conclusion,
                "s": f"{sum(verdict.seconds for verdict in own.values()):.1f}",
            }
        )
    return rows


def bias_rows(verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
    """One row for each curve of `hdzoo.verification.bias.bias_curves`."""
    return [
        {
            "sampler": verdict.sampler,
            "against": option,
            "W2 to the data": "  ".join(f"{value:g}: {w2:.3g}" for value, w2 in curve.items()),
        }
        for verdict in verdicts
        for option, curve in verdict.numbers.get("wasserstein2", {}).items()
    ]
