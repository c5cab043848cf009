"""The matrix read-out: what it makes of a state, what it costs, and what it refuses."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from hdzoo import GaussianMixtureScore, HDInpaintPipeline, HDPipeline, get_sampler
from hdzoo.errors import HDZooError
from hdzoo.samplers.read_out import STEP
from hdzoo.scores.derivatives import Jacobian
from hdzoo.verification import small
from hdzoo.verification.contract import CONTRACT
from hdzoo.verification.laws import network_output

ANNEALED, CONSISTENT = "annealed-langevin", "consistent-annealed-sampling"
WITH_READOUT = (
    ANNEALED,
    CONSISTENT,
    "averaged-noise-annealed-langevin",
    "underdamped-annealed-langevin",
)
# Differences have roundings of 1e-16 times the state over the step, 1e-13 here, a few times over.
EXACT = 1e-11

Score = Callable[[torch.Tensor, float], torch.Tensor]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def linear(matrix: np.ndarray) -> Score:
    """The score of a denoiser ``D(y) = A y``."""
    a = torch.from_numpy(matrix)
    return lambda x, sigma: (x @ a.T.to(x.dtype) - x) / sigma**2


def read(score: Score, y: torch.Tensor, sigma: float, **options: Any) -> list[torch.Tensor]:
    """Where the network is asked, one read-out at one level, and the sample at the end."""
    options = {"readout": "matrix"} | options
    sampler = get_sampler(ANNEALED)(sigmas=[sigma], **options)
    sampler.set_timesteps(1 + sampler.probes)
    states = [y]
    for t in sampler.timesteps:
        output = network_output(sampler, score, states[-1], sigma)
        states.append(sampler.step(output, t, states[-1]).prev_sample)
    return states


def projected(matrix: np.ndarray, y: np.ndarray, sigma: float, steps: int) -> np.ndarray:
    """The read-out of one state by dense matrices, on the space of s, R s, R R s and so on."""
    s = (matrix @ y - y) / sigma**2
    powers = [s]
    for _ in range(steps - 1):
        powers.append(matrix @ powers[-1])
    basis = np.linalg.qr(np.stack([p / np.linalg.norm(p) for p in powers], 1))[0]
    values, axes = np.linalg.eigh(basis.T @ (matrix + matrix.T) / 2 @ basis)
    share = 1 / (1 + np.sqrt(np.where(values > 1e-12, values, 0)))
    return y + sigma**2 * basis @ (axes * share) @ axes.T @ basis.T @ s


# ---- what it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(("readout", "known"), [("half", 0.748), ("full", 0.0549), ("matrix", 0.0)])
def test_it_is_exact_on_normal_data_in_a_subspace(readout: str, known: float) -> None:
    """The Wasserstein distances in 64 dimensions, of which the data have 8, at sigma = 0.2."""
    sigma, variances = 0.2, torch.zeros(64).double()
    variances[:8] = 1.0
    widths = (variances + sigma**2).sqrt()
    y = widths * normal(50, 64)
    x = read(linear(np.diag((variances / widths**2).numpy())), y, sigma, readout=readout)[-1]
    # One map of all states, although the vectors are others for each.
    factors = x / y
    assert (factors.std(0) < EXACT).all()
    distance = float((factors.mean(0) * widths - variances.sqrt()).norm())
    assert distance == pytest.approx(known, abs=EXACT if readout == "matrix" else 5e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 9])
def test_it_is_lanczos_method(steps: int) -> None:
    """In 7 dimensions; from 7 products on f(R) itself, and what is asked beyond changes nothing."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    values, sigma, y = np.array([0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.6]), 0.3, normal(5, 7)
    matrix = axes * values @ axes.T
    found = read(linear(matrix), y, sigma, readout_steps=steps)[-1]
    expected = np.stack([projected(matrix, one, sigma, min(steps, 7)) for one in y.numpy()])
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)
    if steps >= 7:
        whole = axes / (1 + np.sqrt(values)) @ axes.T
        exact = y.numpy() + (y.numpy() @ matrix - y.numpy()) @ whole
        np.testing.assert_allclose(found.numpy(), exact, rtol=0, atol=1e-9)


def test_of_a_network_it_takes_the_symmetric_part_and_nothing_negative() -> None:
    rng = np.random.default_rng(1)
    matrix = np.diag([-0.3, 0.1, 0.4, 0.9, 1.1]) + 0.15 * rng.standard_normal((5, 5))
    y, sigma = normal(4, 5), 0.5
    for steps in (1, 2, 3):
        found = read(linear(matrix), y, sigma, readout_steps=steps)[-1]
        expected = [projected(matrix, one, sigma, steps) for one in y.numpy()]
        np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=0, atol=1e-9)


def test_on_a_uniform_law_it_beats_half_and_full() -> None:
    """The Wasserstein distances to U[-1, 1] from 0.1 of noise, of which the score is known."""
    sigma, shares = 0.1, (np.arange(4000) + 0.5) / 4000

    def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
        high, low = (1 - x.numpy()) / sigma, (-1 - x.numpy()) / sigma
        edges = np.exp(-(high**2) / 2) - np.exp(-(low**2) / 2)
        inside = ndtr(high) - ndtr(low)
        return torch.from_numpy(-edges / inside / sigma / math.sqrt(2 * math.pi))

    def integral(t: np.ndarray) -> np.ndarray:
        return np.asarray(t * ndtr(t) + np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi))

    grid = np.linspace(-1.7, 1.7, 100_001)
    below = sigma / 2 * (integral((grid + 1) / sigma) - integral((grid - 1) / sigma))
    y = torch.from_numpy(np.interp(shares, below, grid))[:, None]
    for readout, known in (("matrix", 0.0034), ("half", 0.0061), ("full", 0.0123)):
        x = read(score, y, sigma, readout=readout, readout_steps=1)[-1].numpy()[:, 0]
        distance = math.sqrt(np.mean((np.sort(x) - (2 * shares - 1)) ** 2))
        assert distance == pytest.approx(known, abs=6e-5)


# ---- what it costs --------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_READOUT)
@pytest.mark.parametrize("steps", [1, 3])
def test_products_are_the_last_evaluations_of_a_chain_that_is_otherwise_the_same(
    name: str, steps: int
) -> None:
    sigmas, y = [2.0, 1.0, 0.5], 2 * normal(4, 2, 3)
    score: Score = lambda x, sigma: torch.tanh(1 - x) / sigma**2  # noqa: E731
    chains = {}
    for readout, count in (("full", 10), ("matrix", 10 + steps)):
        sampler = get_sampler(name)(sigmas=sigmas, readout=readout, readout_steps=steps)
        fewer = sampler.default_num_inference_steps
        sampler.set_timesteps(count)
        assert sampler.num_inference_steps == len(sampler.moves) == count
        states, generator = [y], torch.Generator().manual_seed(0)
        for k, t in enumerate(sampler.timesteps):
            s = score(states[-1], sampler.levels[k])
            states.append(sampler.step(s, t, states[-1], generator).prev_sample)
        chains[readout] = states, sampler, fewer
    (full, plain, plain_cost), (matrix, sampler, cost) = chains.values()
    assert cost == plain_cost + steps
    assert all(torch.equal(*pair) for pair in zip(full[:-1], matrix, strict=False))
    last = sampler.levels[-2]
    assert list(sampler.levels) == [*plain.levels[:-1], *[last] * steps, 0.0]
    assert all(move.noise == 0 for move in sampler.moves[-1 - steps :])
    # Beside the last state, in directions at right angles.
    ways = torch.stack([x - full[-2] for x in matrix[-1 - steps : -1]], 1).flatten(2)
    reach = STEP * last * math.sqrt(6)
    gram = ways @ ways.mT / reach**2
    torch.testing.assert_close(gram, torch.eye(steps).double().expand(4, -1, -1))
    torch.testing.assert_close(
        ways[:, 0] / reach, torch.nn.functional.normalize(score(full[-2], last).flatten(1))
    )


def test_a_network_is_asked_as_often_as_is_said() -> None:
    model = GaussianMixtureScore.from_components([0.0, 1.0], [1.0, 0.2])
    asked = []
    model.register_forward_hook(lambda *_: asked.append(1))
    pipe = HDPipeline(model, get_sampler(ANNEALED)(steps_per_level=2, readout="matrix"))
    pipe.set_progress_bar_config(disable=True)
    pipe(2, generator=torch.Generator().manual_seed(0))
    assert len(asked) == pipe.num_timesteps == 10 * 2 + 1 + 2


# ---- what may happen ------------------------------------------------------------------------


def test_where_the_vectors_are_exhausted_nothing_is_lost() -> None:
    """One eigenvalue, a score of zero, and a state without trouble, together and alone."""
    a = np.diag([0.25, 0.25, 0.25, 0.64])
    y = torch.tensor([[1, 2, -1, 0], [0, 0, 0, 0], [1, 0, 0, 2]], dtype=torch.float64)
    expected = y * torch.tensor([0.5, 0.5, 0.5, 0.8], dtype=torch.float64)
    for dtype, slack in ((torch.float64, EXACT), (torch.float32, 1e-4)):
        states = read(linear(a), y.to(dtype), 0.3, readout_steps=4)
        torch.testing.assert_close(states[-1].double(), expected, rtol=0, atol=slack)
        for i in range(3):
            alone = read(linear(a), y[i : i + 1].to(dtype), 0.3, readout_steps=4)
            assert all(torch.equal(x[i : i + 1], one) for x, one in zip(states, alone, strict=True))


def test_a_chain_that_begins_in_the_midst_makes_do_with_what_is_left() -> None:
    score, y = linear(np.diag([0.0, 0.2, 0.7])), normal(4, 3)
    for products, expected in ((2, read(score, y, 0.3)[-1]), (0, y + 0.3**2 * score(y, 0.3))):
        sampler = get_sampler(ANNEALED)(sigmas=[0.3], readout="matrix", readout_steps=5)
        sampler.set_timesteps(6)
        sampler.set_begin_index(5 - products)
        x = y
        for t in sampler.timesteps[5 - products :]:
            x = sampler.step(score(x, 0.3), t, x).prev_sample
        assert torch.equal(x, expected)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_not_finite_is_not_hidden(at: int) -> None:
    y, calls, good = normal(3, 5), iter(range(3)), linear(np.diag([0, 0.2, 0.4, 0.6, 0.8]))

    def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
        s = good(x, sigma)
        if next(calls) == at:
            s[1, 2] = math.inf if at == 1 else math.nan
        return s

    found = read(score, y, 0.5)[-1].isfinite()
    assert found[[0, 2]].all()
    assert not found[1].any()


def test_single_precision_is_enough() -> None:
    rng = np.random.default_rng(2)
    axes = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    values = np.where(np.arange(50) < 20, 0.9, 0.0)
    score, y = linear(axes * values @ axes.T), normal(4, 50)
    wide, narrow = (read(score, y.to(dtype), 0.1)[-1] for dtype in (torch.float64, torch.float32))
    # Roundings of 1e-7 of the state, over a step of .03 of its noise, are 3e-5 of R, and the root
    # of that .006 of the noise.
    assert float((narrow - wide).abs().max()) < 0.006 * 0.1 * math.sqrt(50)


def test_the_products_of_a_network_are_its_derivatives() -> None:
    pipe = HDPipeline.from_pretrained("ncsn-mnist")
    sigma, weights = 0.15, pipe.unet.dtype
    image = torch.full((1, 1, 28, 28), -1.0)
    image[..., 6:22, 12:16] = 1.0
    low, high = pipe.data_range
    y = low + (high - low) * (image + 1) / 2 + sigma * normal(1, 1, 28, 28).float()

    def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
        with torch.no_grad():
            return (pipe.denoise(x, sigma) - x) / sigma**2

    def denoise(x: torch.Tensor) -> torch.Tensor:
        return pipe.denoise(x, sigma)

    jacobian = Jacobian(denoise, sigma, denoise)
    before = pipe.denoise(y, sigma)
    for dtype, error in ((weights, 0.06), (torch.float16, 0.2)):
        pipe.unet.to(dtype)
        sampler = get_sampler(ANNEALED)(sigmas=[sigma], readout="matrix")
        sampler.set_timesteps(3)
        x = y
        for t in sampler.timesteps:
            x = sampler.step(score(x, sigma), t, x).prev_sample
        pipe.unet.to(weights)
        for j in range(2):
            v = sampler.memory["vectors"][:, j].view_as(y)
            product = jacobian.times(y, before, v).flatten(1)
            found = sampler.memory["products"][:, j]
            assert float((found - product).norm() / product.norm()) < error


# All but that bfloat16 is taken ("dtype"), and what is of options alone, which they share.
CLAUSES = sorted(set(CONTRACT) - {"dtype", "save-load", "add-noise", "extras"})


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_contract_of_a_sampler_holds(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(small.SMALL, "readout", "matrix")
    for name in WITH_READOUT[1:]:
        CONTRACT[clause](get_sampler(name))


def test_painting_leaves_what_is_asked_beside_the_state() -> None:
    model = GaussianMixtureScore.from_components([0.0, 0.0, 0.0], torch.tensor([1.0, 1.0, 0.0]))
    pipe = HDInpaintPipeline(model, get_sampler(ANNEALED)(sigmas=[1.0, 0.3], readout="matrix"))
    pipe.set_progress_bar_config(disable=True)
    states = []
    points, mask = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    (end,) = pipe(
        points,
        mask,
        num_samples_per_image=5,
        num_inference_steps=8,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=lambda _, __, ___, given: states.append(given["latents"]),
        return_dict=False,
    )
    y, *beside = states[-4:-1]
    for x in beside:
        lengths = (x - y).norm(dim=1) / (STEP * 0.3 * math.sqrt(3))
        # Float32 rounds by 1e-7 of the state, of which the step is 1e-2.
        torch.testing.assert_close(lengths, torch.ones(5), rtol=1e-4, atol=0)
    # Smooth, and singular.
    torch.testing.assert_close(end[:, 1], y[:, 1] / math.sqrt(1 + 0.3**2), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(end[:, 2], torch.zeros(5), rtol=0, atol=1e-3)
    assert torch.equal(end[:, 0], torch.full((5,), 2.0))


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 1.5, 101, True, "two", None])
def test_a_wrong_number_of_products_is_said(value: Any) -> None:
    for name in WITH_READOUT:
        with pytest.raises(HDZooError, match=r"readout_steps is .*whole number from 1 to 100"):
            get_sampler(name)(readout="matrix", readout_steps=value)


def test_a_chain_that_has_no_room_for_it_is_said() -> None:
    sampler = get_sampler(ANNEALED)(sigmas=[1.0, 0.5], readout="matrix", readout_steps=3)
    sampler.set_timesteps(5)
    with pytest.raises(HDZooError, match=r"num_inference_steps is 4.* at least 5.*readout_steps=3"):
        sampler.set_timesteps(4)
    with pytest.raises(HDZooError, match=r"0.5, has 3 evaluations, .*makes 4 there"):
        sampler.set_timesteps(sigmas=[1.0, 0.5, 0.5, 0.5])
    sampler.set_timesteps(sigmas=[1.0, 0.5, 0.5, 0.5, 0.5])
    sampler = get_sampler(CONSISTENT)(readout="matrix")
    sampler.set_timesteps(4)
    assert list(sampler.levels) == [1.0, 0.01, 0.01, 0.01, 0.0]
    with pytest.raises(HDZooError, match=r"num_inference_steps is 3.* at least 2, and readout_st"):
        sampler.set_timesteps(3)
    with pytest.raises(HDZooError, match="a noise level is repeated"):
        sampler.set_timesteps(sigmas=[1.0, 0.5, 0.5, 0.5, 0.5])


def test_roundings_are_refused_before_anything_is_drawn() -> None:
    message = r"roundings in bfloat16; take float32 or float16, or readout='full'"
    sampler = get_sampler(ANNEALED)(sigmas=[1.0, 0.5], readout="matrix")
    sampler.set_timesteps(5)
    x = torch.zeros(2, 3)
    for output, state in ((x.bfloat16(), x), (x, x.bfloat16())):
        with pytest.raises(HDZooError, match=message):
            sampler.step(output, sampler.timesteps[0], state)
    sampler.step(x.half(), sampler.timesteps[0], x.half())
    pipe = HDPipeline.from_pretrained("ncsn-mnist", dtype=torch.bfloat16)
    pipe.scheduler = get_sampler(ANNEALED).from_config(pipe.scheduler.config, readout="matrix")
    with pytest.raises(HDZooError, match=message):
        pipe.check_chain()
    pipe.scheduler = get_sampler(ANNEALED).from_config(pipe.scheduler.config, readout="full")
    pipe.check_chain()
