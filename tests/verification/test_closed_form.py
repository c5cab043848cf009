"""Exact laws against closed forms: what is wrong in a chain, its ladder or its clock is seen."""

from typing import Any

import numpy as np
import pytest
import zoo

from hdzoo import HDZooError, get_sampler
from hdzoo.samplers import families
from hdzoo.samplers.base import Sampler
from hdzoo.samplers.gaussian import numbered_levels, trained_at
from hdzoo.scores import clocks
from hdzoo.verification import closed_form
from hdzoo.verification.checks import CheckFailed, NotApplicable
from hdzoo.verification.closed_form import check_exact_law
from hdzoo.verification.configurations import (
    configuration,
    random_sampler,
    takes_vp,
)

Annealed, Langevin = get_sampler("annealed-langevin"), get_sampler("langevin")
NAMES = [name for name in zoo.SAMPLERS if issubclass(get_sampler(name), Sampler)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 15)


def test_enough_configurations() -> None:
    assert closed_form.CONFIGURATIONS >= 200
    assert closed_form.LAW_TOLERANCE <= 1e-10


# ---- what closed forms share with no sampler ------------------------------------------------


def test_a_wrong_technique_4(monkeypatch: pytest.MonkeyPatch, few: None) -> None:
    right = families.ncsnv2_step_size
    monkeypatch.setattr(
        families, "ncsnv2_step_size", lambda sigmas, steps: right(sigmas, 2 * steps)
    )
    with pytest.raises(CheckFailed, match=r"a relative deviation of .* \[.*step_size='ncsnv2'"):
        check_exact_law(Annealed)


WRONG_CLOCKS: dict[str, tuple[type[Any], str, Any]] = {
    "a level too low": (
        clocks.DiscreteClock,
        "known",
        lambda right: (
            lambda self, sigmas: [
                float(self.sigmas[max(0, i - 1)])
                for i in np.searchsorted(self.sigmas, right(self, sigmas))
            ]
        ),
    ),
    "the number of the next level": (
        clocks.DiscreteClock,
        "timesteps",
        lambda right: lambda self, sigmas: np.maximum(0.0, right(self, sigmas) - 1),
    ),
    "the variance for the deviation": (
        clocks.DiscreteClock,
        "__init__",
        lambda right: lambda self, kept: right(self, [k / (2 - k) for k in kept]),
    ),
    "time in other units": (
        clocks.TimeClock,
        "timesteps",
        lambda right: lambda self, sigmas: 1000 / 999 * right(self, sigmas),
    ),
}


@pytest.mark.parametrize("name", WRONG_CLOCKS)
def test_a_wrong_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, change = WRONG_CLOCKS[name]
    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 60)
    clocks._discrete_clock.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, change(getattr(owner, method)))
        with pytest.raises(CheckFailed, match=r"coordinates='vp'|were refused"):
            check_exact_law(Annealed)
    clocks._discrete_clock.cache_clear()


def test_levels_that_a_network_was_trained_at() -> None:
    """The nearest on the scale of the logarithm, none twice, counted from the smallest."""
    # sqrt((1 - a) / a) of cumulative signals 0.9, 0.72, 0.504.
    config = {"timestep_type": "discrete", "trained_betas": [0.1, 0.2, 0.3, 0.4, 0.5]}
    known = numbered_levels(config)
    np.testing.assert_allclose(known[:3], [1 / 3, (28 / 72) ** 0.5, (496 / 504) ** 0.5], rtol=1e-6)
    middle = (known[1] * known[2]) ** 0.5
    for levels, places in [
        ([1.01 * middle], [2]),
        ([0.99 * middle], [1]),
        (known[[4, 2, 0]], [4, 2, 0]),
        # Three near to the smallest: those above it.
        ([known[4], 1.02 * known[0], 1.01 * known[0], known[0]], [4, 2, 1, 0]),
        # And as many as there are, however they lie.
        ([known[3], 0.99 * known[3], 0.98 * known[3], known[0]], [3, 2, 1, 0]),
    ]:
        np.testing.assert_array_equal(trained_at(config, np.asarray(levels)), known[places])
    # It has not so many.
    many = np.geomspace(known[2], known[0], 4)
    np.testing.assert_array_equal(trained_at(config, many), many)
    np.testing.assert_array_equal(trained_at({}, many), many)


# ---- configurations -------------------------------------------------------------------------


@pytest.mark.parametrize("vp", [False, True])
def test_random_configurations_differ(vp: bool) -> None:
    rng = np.random.default_rng(0)
    drawn = [configuration(random_sampler(Annealed, rng, vp)) for _ in range(60)]
    kinds = {options["timestep_type"] for options in drawn}
    assert kinds == ({"discrete", "time"} if vp else {"sigma", "log_sigma"})
    assert len({options["prediction_type"] for options in drawn}) == 5
    assert {str(options.get("beta_schedule")) for options in drawn} == (
        {"linear", "scaled_linear", "squaredcos_cap_v2", "None"} if vp else {"None"}
    )
    assert len({options["num_inference_steps"] for options in drawn}) > 10
    assert {"ncsnv2", "None"} <= {str(options["step_size"]) for options in drawn}


@pytest.mark.parametrize("name", NAMES)
def test_which_samplers_are_compared_in_vp(name: str) -> None:
    assert takes_vp(get_sampler(name))


def test_samplers_of_ve_alone(few: None) -> None:
    class OwnStep(Annealed):
        def step(self, *args, **kwargs):
            return super().step(*args, **kwargs)

    assert not takes_vp(OwnStep)
    finding = check_exact_law(OwnStep)
    assert finding.numbers["coordinates"] == ["VE"]
    assert "15 configurations in VE, largest" in finding.message


# ---- exceptions and refusals ----------------------------------------------------------------


class Breaks(Annealed):
    """It breaks with some options."""

    kind: type[Exception] = RuntimeError
    where = "step"

    def fault(self, where: str) -> None:
        if self.where == where and self.config.hand_off == "next":
            raise self.kind("boom")

    def set_timesteps(self, *args, **kwargs):
        self.fault("set_timesteps")
        super().set_timesteps(*args, **kwargs)

    def step(self, *args, **kwargs):
        self.fault("step")
        return super().step(*args, **kwargs)

    def closed_form(self, start):
        self.fault("closed_form")
        return super().closed_form(start)


@pytest.mark.parametrize("kind", [RuntimeError, HDZooError, ZeroDivisionError])
@pytest.mark.parametrize("where", ["step", "closed_form", "set_timesteps"])
def test_what_a_sampler_raises_names_its_options(
    kind: type[Exception], where: str, few: None
) -> None:
    broken = type("Broken", (Breaks,), {"kind": kind, "where": where})
    if kind is HDZooError and where == "set_timesteps":
        # A refusal, of which another is drawn.
        check_exact_law(broken)
        return
    said = "boom" if kind is HDZooError else f"{kind.__name__}: boom"
    with pytest.raises(CheckFailed, match=rf"^{said} \[.*hand_off='next'.*num_inference_steps="):
        check_exact_law(broken)


def test_a_sampler_that_refuses_everything() -> None:
    class Refuses(Langevin):
        def rungs(self, num_inference_steps):
            raise HDZooError("not today")

    with pytest.raises(CheckFailed, match=r"refused, the last with: not today \[sigma=.*num_inf"):
        check_exact_law(Refuses)


def test_no_closed_form() -> None:
    undeclared = type("Undeclared", (Annealed,), {"closed_form": lambda self, start: None})
    with pytest.raises(NotApplicable, match="no closed form is declared"):
        check_exact_law(undeclared)


def test_a_sampler_that_is_not_affine_is_not_compared(few: None) -> None:
    class Clamped(Langevin):
        def update(self, k, x, score, noise):
            return super().update(k, x, score, noise).clamp(-1.5, 1.5)

    with pytest.raises(NotApplicable, match="is not affine on Gaussian data"):
        check_exact_law(Clamped)
