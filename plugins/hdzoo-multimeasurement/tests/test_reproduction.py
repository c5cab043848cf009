"""The curvatures are those of the score that the samplers walk on."""

import math

import pytest
import torch
from hdzoo_multimeasurement.reproduction import curvature, modes, threshold, worst_curvature


@pytest.mark.parametrize("count", [1, 3, 16])
def test_the_curvature_is_that_of_the_score(count: int) -> None:
    target, sigma = modes(2), threshold(2)
    level, past = sigma / math.sqrt(count), torch.tensor([0.4, -0.3], dtype=torch.float64)

    def score(y: torch.Tensor) -> torch.Tensor:
        mean = past + (y - past) / count
        return (mean - y) / sigma**2 + target.score(mean[None], level)[0] / count

    y = torch.tensor([1.0, -2.0], dtype=torch.float64)
    hessian = torch.autograd.functional.jacobian(score, y)
    expected = -(sigma**2) * torch.linalg.eigvalsh(hessian)[-1]
    mean = past + (y - past) / count
    found = curvature(target, mean[None], sigma, count)
    # Roundings of 1e-16 on numbers of order 1.
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("count", [1, 5])
def test_the_worst_curvature(count: int) -> None:
    """No point of a fine line through the modes has a smaller one, and one comes near."""
    target, sigma = modes(3), threshold(3)
    line = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None].expand(-1, 3)
    least = curvature(target, line, sigma, count).min().item()
    assert least == pytest.approx(worst_curvature(3, sigma, count), abs=1e-4)
    assert least >= worst_curvature(3, sigma, count) - 1e-12


def test_one_measurement_is_just_log_concave() -> None:
    for dimension in (2, 64):
        assert worst_curvature(dimension, threshold(dimension), 1) == pytest.approx(0, abs=1e-12)
