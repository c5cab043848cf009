"""The cells: exact laws against the samplers' closed forms and formulas by hand, and simulation."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from hdzoo import GaussianMixtureScore, HDPipeline
from hdzoo.literature.factorial import cells
from hdzoo.literature.factorial.cells import CELLS, CHAINS, ENDS, MATCHED, Chain, Ladder
from hdzoo.samplers.gaussian import GaussianLaw

RECORD = {"sigmas": [0.1, 0.3, 1.0, 3.0], "loss": [0.5, 0.31, 0.12, 0.02]}
LADDER = Ladder(3.0, 0.3, 3, 13, RECORD)
VARIANCES = np.array([0.0, 0.05, 0.64, 4.0])
START = GaussianLaw(0 * VARIANCES + 1.3, VARIANCES, 0 * VARIANCES, 0 * VARIANCES + 9.0)
FEW = [Chain(h, n, e) for h, n, e in CHAINS if e in (0.2, 1.1)]


def test_the_whole_factorial() -> None:
    assert len(set(CHAINS)) == 4 * 2 * 4
    assert len(set(CELLS)) == 4 * 2 * 2 * 7 * 4
    # By hand: c(.3) = .31.
    assert LADDER.fraction(MATCHED) == pytest.approx(1 / (1 + math.sqrt(0.31)))


@pytest.mark.parametrize("chain", FEW, ids=str)
def test_laws_are_the_closed_forms_of_samplers_with_a_readout(chain: Chain) -> None:
    """Closed forms know nothing of the moves that the laws here follow."""
    found = cells.laws(LADDER, chain, START)
    options = {
        ("kept", 0.0): None,
        ("dropped", 0.0): "alpha",
        ("kept", 0.55): 0.55,
        ("kept", 1.0): "full",
        ("kept", MATCHED): "variance-matched",
    }
    for end, readout in options.items():
        sampler = LADDER.sampler(chain)
        if not (readout == "alpha" and chain.eta > 1):
            sampler = sampler.from_config(sampler.config, readout=readout)
            sampler.set_timesteps(LADDER.evaluations)
            expected = sampler.closed_form(START)
            np.testing.assert_allclose(found[end].mean, expected.mean, rtol=1e-10)
            np.testing.assert_allclose(found[end].variance, expected.variance, rtol=1e-10)


@pytest.mark.parametrize("eta", [0.2, 1.1])
@pytest.mark.parametrize("readout", [0.0, 0.2, 0.8, 1.0])
def test_dropped_noise_on_one_level(eta: float, readout: float) -> None:
    """Fresh noise: v <- A^2 v + 2 alpha, once or twice without the noise. Averaged noise begins
    with half a step, (1 - alpha / 2V)^2 V + alpha, and what that is above V falls as A^2."""
    sigma, steps = 0.5, 7
    ladder = Ladder(sigma, sigma, 1, steps, RECORD)
    total, alpha = VARIANCES + sigma**2, eta * sigma**2
    step, last = 1 - alpha / total, 1 - readout * sigma**2 / total
    start = GaussianLaw(0 * VARIANCES, VARIANCES, 0 * VARIANCES, 3 * total)
    variance = 3 * total
    noisy = steps - (1 if readout == 0 else 2)
    for _ in range(noisy):
        variance = step**2 * variance + 2 * alpha
    law = cells.laws(ladder, Chain("own", "fresh", eta), start)["dropped", readout]
    np.testing.assert_allclose(law.variance, step**2 * last**2 * variance, rtol=1e-12)
    start = start._replace(variance=total)
    law = cells.laws(ladder, Chain("own", "averaged", eta), start)["dropped", readout]
    variance = total + step ** (2 * noisy - 2) * alpha**2 / (4 * total)
    np.testing.assert_allclose(law.variance, step**2 * last**2 * variance, rtol=1e-12)


@pytest.mark.parametrize("noise", ["fresh", "averaged"])
@pytest.mark.parametrize("hand_off", ["next", "half"])
def test_simulated_cells_have_their_laws(hand_off: str, noise: str) -> None:
    """Means and variances of 20,000 chains, each within 4.5 standard errors: 112 numbers, one of
    which is beyond with probability 112 * 7e-6."""
    chain, count = Chain(hand_off, noise, 0.5), 20_000
    target = GaussianMixtureScore.from_components(1.3, 0.64)
    law = cells.laws(LADDER, chain, GaussianLaw(*map(np.array, (1.3, 0.64, 0.0, 9.0))))
    found = cells.ends(target, LADDER, chain, count, (3,))
    assert set(found) == set(ENDS) == set(law)
    for end, samples in found.items():
        x, exact = samples.double().flatten(), law[end]
        assert len(x) == count
        mean_error = math.sqrt(exact.variance / count)
        assert abs(float(x.mean()) - exact.mean) < 4.5 * mean_error, end
        variance_error = exact.variance * math.sqrt(2 / count)
        assert abs(float(x.var()) - exact.variance) < 4.5 * variance_error, end


@pytest.mark.parametrize("noise", ["fresh", "averaged"])
def test_samples_are_those_of_samplers_with_a_readout(noise: str) -> None:
    """With the same noise at each evaluation, to float32's rounding."""
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.36, 0.25])
    chain, stream = Chain("half", noise, 0.5), (7, 1)
    found = cells.ends(target, LADDER, chain, 50, stream)
    draws = torch.Generator()

    def reseed(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        draws.manual_seed(cells.seed_of(*stream, step + 1))
        return {}

    for end, readout in {
        ("kept", 0.8): 0.8,
        ("dropped", 0.0): "alpha",
        ("kept", 0.0): None,
    }.items():
        plain = LADDER.sampler(chain)
        pipe = HDPipeline(target, plain.from_config(plain.config, readout=readout))
        pipe.set_progress_bar_config(disable=True)
        draws.manual_seed(cells.seed_of(*stream, 0))
        (samples,) = pipe(
            50,
            LADDER.evaluations,
            generator=draws,
            output_type="latent",
            return_dict=False,
            callback_on_step_end=reseed,
        )
        torch.testing.assert_close(found[end], samples, rtol=1e-5, atol=1e-5)


def test_chains_of_a_stream_have_their_randomness_in_common() -> None:
    """Without a hand-off there is nothing to tell own from next; another stream is another."""
    target = GaussianMixtureScore.from_components(0.0, 1.0)
    ladder = LADDER._replace(num_levels=1, sigma_max=0.3)
    own, following, other = (
        cells.ends(target, ladder, Chain(hand_off, "fresh", 0.2), 4, stream)["kept", 1.0]
        for hand_off, stream in (("own", (0, 1)), ("next", (0, 1)), ("own", (1, 1)))
    )
    assert torch.equal(own, following)
    assert not torch.isclose(own, other).any()
