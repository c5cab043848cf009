"""A sampler arrives at what it says that it converges to, and one with an error that stays not."""

from typing import Any, ClassVar

import numpy as np
import pytest
import zoo
from toy_samplers import LessNoiseSigns, OneStageSigns, TwoStageSigns

from hdzoo import HDZooError, get_sampler
from hdzoo.samplers.base import Limit, Sampler
from hdzoo.verification import closed_form, signs_limit
from hdzoo.verification.checks import CheckFailed, NotApplicable
from hdzoo.verification.limit import TOLERANCE, arrives, check_limit, remainder

Langevin, Annealed = get_sampler("langevin"), get_sampler("annealed-langevin")
NAMES = [name for name in zoo.SAMPLERS if issubclass(get_sampler(name), Sampler)]


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_of_ours_says_what_it_converges_to(name: str) -> None:
    assert get_sampler(name).limit is not None


# ---- an error that stays --------------------------------------------------------------------


def louder(base: type[Any], factor: float) -> type[Any]:
    """Noise of another size, in the chain and in its closed form alike."""

    class Louder(base):
        # A read-out may be more than its moves say.
        option_choices: ClassVar[dict[str, Any]] = {}

        def plan(self, *args):
            return [m._replace(noise=factor * m.noise) for m in super().plan(*args)]

        def closed_form(self, start):
            for move in self.moves:
                start = start.gradient(move.alpha, move.sigma).noise(move.noise**2)
            return start

    return Louder


@pytest.mark.parametrize(
    "name",
    [
        "langevin",
        "noise-corrected-langevin",
        "alpha-half-denoising",
        "consistent-annealed-sampling",
    ],
)
def test_wrong_noise_with_a_closed_form_that_agrees(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise sqrt(alpha) for sqrt(2 alpha)."""
    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 3)
    wrong = louder(get_sampler(name), 0.5**0.5)
    assert closed_form.check_exact_law(wrong).numbers["largest_relative_deviation"] < 1e-10
    with pytest.raises(CheckFailed, match=r"does not converge to the .* along .* in the limit to"):
        check_limit(wrong)


def test_how_small_an_error_is_found() -> None:
    """1 % of the noise's variance stays as 1 % of the state's, at every step size."""
    with pytest.raises(CheckFailed, match=r"in the limit to 0\.0[01]"):
        check_limit(louder(Langevin, 1.01**0.5))
    found = check_limit(louder(Langevin, 1.0002**0.5)).numbers
    # Its own 0.02 %, and the square of the last alpha / 2V = 0.0125 or less.
    assert found["rest"] < 1.5e-3


def test_a_walk_that_does_not_walk() -> None:
    class Still(louder(Langevin, 0.0)):
        def plan(self, *args):
            return [m._replace(alpha=0.0, noise=0.0) for m in super().plan(*args)]

    with pytest.raises(CheckFailed, match="does not converge to the noisy data along step_size"):
        check_limit(Still)


def test_a_slow_right_sampler() -> None:
    """Its error goes as the square root of the knob."""

    class Slow(Langevin):
        def step_sizes(self, sigmas):
            (alpha,) = super().step_sizes(sigmas)
            return [0.4 * sigmas[0] * alpha**0.5]

    errors = list(check_limit(Slow).numbers["relative_errors"].values())
    assert errors[2] / errors[1] == pytest.approx(0.5**0.5, rel=0.1)


# ---- sequences ------------------------------------------------------------------------------


def sequence(*terms: tuple[float, float], rest: float = 0.0, count: int = 4) -> list[np.ndarray]:
    """Sums of geometric sequences, each in a direction of its own, on top of what stays."""
    halvings = np.arange(count)
    parts = [size * ratio**halvings for size, ratio in terms]
    return [np.array([*row, rest]) for row in zip(*parts, strict=True)]


def test_one_geometric_sequence_is_extrapolated_exactly() -> None:
    for ratio in (0.25, 0.5, 0.7):
        assert remainder(sequence((1.0, ratio))) == pytest.approx(0, abs=1e-15)
        found = remainder(sequence((1.0, ratio), rest=0.01))
        assert found == pytest.approx(0.01, rel=1e-9)
        assert not arrives(sequence((0.1, ratio), rest=2 * TOLERANCE, count=9))
    assert arrives(sequence((0.2, 0.5), (0.1, 0.25)))


def test_sequences_that_do_not_arrive() -> None:
    assert not arrives(sequence((1.0, 1.0)))
    assert not arrives(sequence((1.0, 0.95)))
    assert not arrives(sequence((0.1, 1.5)))
    assert not arrives(sequence((1.0, -0.9)))
    # Two errors that cancel on the way are told apart by their signs.
    halvings = np.arange(4)
    crossing = [np.array([0.4 * 0.5**h - 0.05]) for h in halvings]
    assert abs(crossing[-1][0]) < 1e-12
    assert not arrives(crossing)


def test_sequences_that_are_there_at_once() -> None:
    assert arrives([np.zeros(3)] * 4)
    # Faster than any power: the memory of a start.
    assert arrives([np.array([np.exp(-(2.0**k))]) for k in range(5)])


# ---- on signs -------------------------------------------------------------------------------


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these samplers do wrong shows in 4,000 chains and few evaluations."""
    monkeypatch.setattr(signs_limit, "NUM_SAMPLES", 4000)
    monkeypatch.setattr(signs_limit, "MOST_EVALUATIONS", 64)


def on_signs(base: type[Any], limit: Limit, **members: Any) -> type[Any]:
    return type("OnSigns", (base,), {"limit": limit, "starts_from_noise": True, **members})


def test_signs_that_arrive(fewer: None) -> None:
    """Clean and noisy in turn: the noisy ones are returned, or the clean ones."""

    def returns_clean(self, k, x, score, noise):
        noisy = TwoStageSigns.update(self, k, x, score, noise)
        clean = self.signs((1 + x + self.levels[k] ** 2 * score) / 2, noise)
        return noisy if self.levels[k + 1] else clean

    for law, members in (("noisy data", {}), ("data", {"update": returns_clean})):
        found = check_limit(on_signs(TwoStageSigns, Limit(law, "num_inference_steps"), **members))
        # By chance once in a hundred, with this seed not.
        assert found.numbers["p_value"] > 0.01
        assert found.numbers["law"] == law


@pytest.mark.parametrize(
    ("base", "law", "knob"),
    [
        (OneStageSigns, "noisy data", "num_inference_steps"),
        (OneStageSigns, "noisy data", "step_size"),
        (LessNoiseSigns, "noisy data", "num_inference_steps"),
        (TwoStageSigns, "data", "num_inference_steps"),
    ],
)
def test_signs_that_do_not(base: type[Any], law: str, knob: str, fewer: None) -> None:
    with pytest.raises(
        CheckFailed, match=rf"does not converge to the {law} along {knob}: the total variation goes"
    ):
        check_limit(on_signs(base, Limit(law, knob)))


def test_knob_on_signs() -> None:
    with pytest.raises(CheckFailed, match="limit names the knob sigma; on signs it is one of num_"):
        check_limit(on_signs(TwoStageSigns, Limit("data", "sigma")))


# ---- what is declared -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (Limit("noise", "step_size"), "its law is one of data, noisy data"),
        (Limit("data", "temperature"), "its knob one of num_inference_steps"),
        (Limit("data", "sigma_min"), "limit names the option sigma_min, which Declared has not"),
        # p_sigma it is, and not the data.
        (Limit("data", "step_size"), "does not converge to the data along step_size"),
    ],
)
def test_a_limit_that_is_none(limit: Limit, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        check_limit(type("Declared", (Langevin,), {"limit": limit}))


def test_nothing_declared() -> None:
    with pytest.raises(NotApplicable, match=r"nothing is said .* \(Sampler\.limit\)"):
        check_limit(type("Undeclared", (Langevin,), {"limit": None}))


def test_levels_of_its_own() -> None:
    class Far(Langevin):
        def rungs(self, num_inference_steps):
            if self.config.sigma < 5:
                raise HDZooError("sigma is at least 5")
            return super().rungs(num_inference_steps)

        def __init__(self, sigma: float = 30.0, step_size: float | None = None):
            super().__init__(sigma=sigma, step_size=step_size)

    assert check_limit(Far).numbers["rest"] < TOLERANCE


def test_an_exception_names_the_options() -> None:
    class Breaks(Annealed):
        def step_sizes(self, sigmas):
            if self.config.step_size is not None and self.config.step_size < 0.2:
                raise RuntimeError("boom")
            return super().step_sizes(sigmas)

    with pytest.raises(CheckFailed, match=r"RuntimeError: boom \[.*step_size=0\.1"):
        check_limit(Breaks)
