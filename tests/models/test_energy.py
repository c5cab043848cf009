"""Networks with an energy: the score is its gradient, whatever computes it."""

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hdzoo import (
    ConvEnergyModel,
    EnergyModel,
    HDPipeline,
    HDZooError,
    MALASampler,
    UNetScoreModel,
    get_sampler,
)
from hdzoo.pipelines.generators import sample_generators

MEAN, STD = 0.3, 0.4
SIGMAS = torch.tensor([0.02, 0.3, 2.0], dtype=torch.float64)


def small(**config):
    torch.manual_seed(0)
    config = {"sample_size": 8, "block_out_channels": (8, 8), "norm_num_groups": 4} | config
    return EnergyModel(**{"data_mean": MEAN, "data_std": STD} | config)


def conv(**config):
    torch.manual_seed(0)
    return ConvEnergyModel(**{"sample_size": 8, "hidden_channels": 4} | config)


def silent():
    """One whose inner network's output is 0."""
    network = small()
    for parameter in network.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    return network


def states(count=3, seed=1):
    x = torch.randn(
        count, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return MEAN + x * (STD**2 + SIGMAS[:count].view(-1, 1, 1, 1) ** 2).sqrt()


def levels_of(network):
    return SIGMAS if isinstance(network, EnergyModel) else torch.full((3,), 0.005)


def assert_close(found, expected):
    """Up to some hundred float64 roundings, of the largest number."""
    atol = 1e-13 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


NETWORKS = [pytest.param(small, id="unet"), pytest.param(conv, id="conv")]


def test_the_energy_is_that_of_the_residual_of_the_denoiser():
    """With the weights of a `UNetScoreModel`."""
    network, x = small().double(), states()
    denoiser = UNetScoreModel(**network.config).double()
    denoiser.load_state_dict(network.state_dict())
    residual = (x - denoiser(x, SIGMAS).sample) / SIGMAS.view(-1, 1, 1, 1)
    expected = residual.square().flatten(1).sum(1) / 2
    # Differences lose two digits at the smallest noise level.
    torch.testing.assert_close(network.energy(x, SIGMAS), expected, rtol=1e-11, atol=0)


def test_with_a_silent_network_it_is_a_parabola():
    network, x = silent().double(), states()
    output = network(x, SIGMAS, extras=("energy",))
    stiffness = (SIGMAS / (STD**2 + SIGMAS**2)).view(-1, 1, 1, 1) ** 2
    # float64 roundings, of sums of 64 terms.
    exact = (stiffness * (x - MEAN) ** 2).flatten(1).sum(1) / 2
    torch.testing.assert_close(output.energy, exact, rtol=1e-13, atol=0)
    torch.testing.assert_close(output.sample, -stiffness * (x - MEAN), rtol=1e-12, atol=1e-12)


def test_the_energy_of_the_convolutions_is_that_of_the_noise_beyond_the_data():
    """In their range it is f(x) / T."""
    network, x = conv(temperature=0.25, sigma=0.5).double(), states()
    inside = x.clamp(-1, 1)
    expected = 4 * network.layers(inside)[:, 0]
    torch.testing.assert_close(network.energy(inside, 0.5), expected, rtol=1e-14, atol=0)
    beyond = 2 * (x - inside).square().flatten(1).sum(1)
    assert (beyond[-1] > 1).all()
    torch.testing.assert_close(network.energy(x, 0.5), expected + beyond, rtol=1e-13, atol=0)


@pytest.mark.parametrize("make", NETWORKS)
def test_the_score_is_minus_the_slope_of_the_energy(make):
    network, x = make().double(), states()
    told = levels_of(network)
    score = network(x, told).sample
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        along = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        h = 1e-5
        ahead, behind = (network.energy(x + sign * h * along, told) for sign in (1, -1))
        slope = (ahead - behind) / (2 * h)
        expected = -(score * along).flatten(1).sum(1)
        # Terms of h^2 E''' / 6, and roundings of 1e-16 E / h: 1e-10 of the energy's own size. The
        # slope along one direction may be small by chance, the norm of the score is not.
        size = score.flatten(1).norm(dim=1)
        assert ((slope - expected).abs() <= 1e-6 * size).all()


@pytest.mark.parametrize("make", NETWORKS)
def test_the_score_is_the_same_with_gradients_and_without(make):
    network, x = make().double(), states()
    told = levels_of(network)
    inside = x.clone().requires_grad_()
    expected = -torch.autograd.grad(network.energy(inside, told).sum(), inside)[0]
    assert_close(network(x, told).sample, expected)
    with torch.no_grad():
        found = network(x, told, extras=("energy",))
    with torch.inference_mode():
        again = network(x, told).sample
    assert not found.sample.requires_grad
    assert not found.energy.requires_grad
    assert_close(found.sample, expected)
    assert_close(again, expected)
    assert network(x, told).energy is None
    assert len(network(x, told, return_dict=False)) == 1
    assert len(network(x, told, return_dict=False, extras=["energy"])) == 2


def attentive():
    return small(add_attention=True)


@pytest.mark.parametrize("make", [*NETWORKS, attentive])
def test_a_loss_of_the_score_has_the_gradients_of_autograd(make):
    network, x = make().double(), states()
    told = levels_of(network)
    network(x, told).sample.square().sum().backward()
    found = [parameter.grad for parameter in network.parameters()]
    inside = x.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        total = network.energy(inside, told).sum()
    slope = torch.autograd.grad(total, inside, create_graph=True)[0]
    expected = torch.autograd.grad(
        slope.square().sum(), list(network.parameters()), materialize_grads=True
    )
    largest = max(float(one.abs().max()) for one in expected)
    for one, other in zip(found, expected, strict=True):
        one = torch.zeros_like(other) if one is None else one
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12 * largest)


def test_its_jacobian_is_symmetric():
    network, x = small().double(), states(1)
    jacobian = torch.func.jacrev(lambda y: network(y, SIGMAS[:1]).sample)(x).view(64, 64)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", NETWORKS)
def test_autocast_and_half_weights_leave_the_dtype_of_the_state(make):
    network, x = make(), states().float()
    told = levels_of(network).float()
    exact = network(x, told, extras=("energy",))
    assert exact.sample.dtype == exact.energy.dtype == torch.float32
    size = exact.sample.flatten(1).norm(dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        # Evaluations without gradients leave nothing behind for those with them.
        with torch.no_grad():
            network(x, told)
        outputs = [network(x, told, extras=("energy",))]
        outputs[0].sample.square().mean().backward()
    outputs.append(copy.deepcopy(network).to(torch.bfloat16)(x, told, extras=("energy",)))
    for output in outputs:
        assert output.sample.dtype == output.energy.dtype == torch.float32
        # bfloat16 has 8 bits, and a score is the end of some 40 roundings.
        off = (output.sample - exact.sample).flatten(1).norm(dim=1)
        assert (off > 0).all()
        assert (off < 0.3 * size).all()


def test_mala_takes_the_energy_in_a_pipeline():
    """On the silent network, whose law is Gaussian; steps of a twentieth of its variance."""
    sigma = 0.3
    variance = ((STD**2 + sigma**2) / sigma) ** 2
    sampler = MALASampler(sigma=sigma, num_steps=20, step_size=0.05 * variance)
    pipe = HDPipeline(silent(), sampler)
    pipe.set_progress_bar_config(disable=True)
    count = 200
    start = MEAN + variance**0.5 * torch.randn(
        count, 1, 8, 8, generator=torch.Generator().manual_seed(3)
    )
    asked = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, args, kwargs: asked.append(kwargs.get("extras")), with_kwargs=True
    )
    ends = pipe(
        latents=start, generator=sample_generators(0, range(count)), output_type="latent"
    ).images
    hook.remove()
    assert asked == [("energy",)] * 20
    z = (ends - MEAN) / variance**0.5
    # 12,800 independent standard normal numbers.
    assert abs(z.mean()) < 5 / z.numel() ** 0.5
    assert abs(z.var() - 1) < 5 * (2 / z.numel()) ** 0.5
    assert (ends != start).flatten(1).any(1).float().mean() > 0.3


def test_the_published_step_is_a_langevin_step_at_its_temperature():
    r"""``x - 10 grad f + 0.005 z``."""
    network = conv(sample_size=8)
    sampler = get_sampler("annealed-langevin")(
        sigmas=[0.005], steps_per_level=1, step_size=0.005**2 / 2
    )
    x = torch.rand(4, 1, 8, 8) * 2 - 1
    pipe = HDPipeline(network, sampler)
    pipe.set_progress_bar_config(disable=True)
    end = pipe(latents=x, generator=sample_generators(0, range(4)), output_type="latent").images
    inside = x.clone().requires_grad_()
    slope = torch.autograd.grad(network.layers(inside).sum(), inside)[0]
    noise = torch.stack(
        [torch.randn(1, 8, 8, generator=one) for one in sample_generators(0, range(4))]
    )
    torch.testing.assert_close(end, x - 10 * slope + 0.005 * noise, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("make", "sigma"), [(small, 0.3), (conv, 0.005)])
def test_it_is_saved_and_loaded(make, sigma, tmp_path):
    network = make()
    x = states().float()
    HDPipeline(network, MALASampler(sigma=sigma)).save_pretrained(tmp_path)
    loaded = HDPipeline.from_pretrained(tmp_path).unet
    assert type(loaded) is type(network)
    told = levels_of(network).float()
    one, other = (net(x, told, extras=("energy",)) for net in (network.eval(), loaded))
    assert torch.equal(one.sample, other.sample)
    assert torch.equal(one.energy, other.energy)
    again = type(network).from_pretrained(tmp_path, subfolder="unet")
    assert torch.equal(again(x, told).sample, one.sample)


def test_errors_say_what_to_do():
    network, flat = small(), conv()
    x = states().float()
    with pytest.raises(HDZooError, match="asked for 'variance' beside its score; it gives energy"):
        network(x, 0.3, extras=("variance",))
    with pytest.raises(HDZooError, match="extras is 'energy'; it must be a list"):
        network(x, 0.3, extras="energy")
    for wrong in (x.long(), x.numpy(), None):
        with pytest.raises(HDZooError, match="sample is"):
            network(wrong, 0.3)
    with pytest.raises(HDZooError, match="needs \\(batch, 1, height, width\\)"):
        network(x[:, 0], 0.3)
    with pytest.raises(HDZooError, match=r"needs \(batch, 1, 8, 8\)"):
        flat(torch.zeros(2, 1, 12, 12), 0.005)
    with pytest.raises(HDZooError, match=r"asks for the noise level 0.01, .* knows only 0.005"):
        flat.check_sigmas([0.005, 0.01])
    flat.check_sigmas([0.005])
    with pytest.raises(HDZooError, match="hidden_channels is 5"):
        ConvEnergyModel(hidden_channels=5)
    with pytest.raises(HDZooError, match="temperature is 0"):
        ConvEnergyModel(temperature=0)
    with pytest.raises(HDZooError, match="the memory of this machine"):
        ConvEnergyModel(hidden_channels=10**7)
    with pytest.raises(HDZooError, match="timestep"):
        flat(x, -1.0)


@pytest.mark.parametrize("size", range(1, 40))
def test_every_size_of_image_has_its_convolutions(size):
    network = conv(sample_size=size)
    assert network.energy(torch.zeros(2, 1, size, size), 0.005).shape == (2,)
