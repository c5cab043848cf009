"""Tensors: dtypes, layouts, devices, and noise added."""

from collections.abc import Callable
from typing import Any

import torch

from hdzoo.verification.chain import (
    beside,
    first_state,
    next_state,
    on_signs,
    run,
    seeded,
)
from hdzoo.verification.checks import CheckFailed, during, same_bits
from hdzoo.verification.small import fewest, option_names, watched


def dtype(sampler_class: type[Any]) -> str:
    """The state keeps its dtype, and is computed in float32 or better.

    A network in float16 or bfloat16 gives what its output in float32 would. A state in half
    precision is computed in float32, noise and all, and rounded once, after the step. A state in
    float64 is computed in float64.
    """
    signs = on_signs(sampler_class)
    steps = fewest(watched(sampler_class)) + 5
    chain = run(watched(sampler_class, steps), first_state(sampler_class, 4, 9), seeded(0)[0])
    half = (torch.float16, torch.bfloat16)
    pairs = [(low, torch.float32) for low in half]
    pairs += [(low, low) for low in half] + [(torch.float32, low) for low in half]
    for output_dtype, state_dtype in pairs:
        found, exact = watched(sampler_class, steps), watched(sampler_class, steps)
        generators = seeded(1, 1)
        for i, (t, output, state, _) in enumerate(chain):
            output, state = output.to(output_dtype), state.to(state_dtype)
            low = next_state(found, t, output, state, generators[0])
            high = next_state(exact, t, output.float(), state.float(), generators[1])
            same_bits(
                low,
                high.to(state_dtype),
                f"a {_name(state_dtype)} state with a {_name(output_dtype)} output at step {i}, "
                f"and the same computed in float32 and rounded to {_name(state_dtype)},",
            )
    sampler, (generator,) = watched(sampler_class, steps), seeded(1)
    for i, (t, output, state, _) in enumerate(chain):
        # Numbers that float32 does not have.
        output, state = output.double() / 3, state.double() / (1 if signs else 7)
        after = next_state(sampler, t, output, state, generator)
        if after.dtype != torch.float64:
            raise CheckFailed(f"step {i} turns a float64 state into {_name(after.dtype)}")
        if not signs and torch.equal(after, after.float().double()):
            raise CheckFailed(f"step {i} computes a float64 state in float32; keep its precision")
    return f"{len(pairs)} pairs of half and single precision, and float64, in {steps} steps"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def layout(sampler_class: type[Any]) -> str:
    """The shape of the samples and their layout in memory change nothing.

    Points (n, d) are as good as images (n, c, h, w), channels last or not contiguous. Neither the
    state nor the output is written to. With ``return_dict=False`` the step returns a tuple, whose
    first element is the state that is otherwise ``prev_sample``.
    """
    steps = fewest(watched(sampler_class)) + 5
    chain = run(watched(sampler_class, steps), first_state(sampler_class, 4, 3, 2, 5), seeded(0)[0])
    layouts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "as a tuple": lambda x: x.clone(),
        "flat, of shape (4, 30)": lambda x: x.flatten(1).clone(),
        "with channels last": lambda x: x.clone(memory_format=torch.channels_last),
        "not contiguous": lambda x: torch.stack([x, -x], -1)[..., 0],
    }
    for what, lay in layouts.items():
        sampler, (generator,) = watched(sampler_class, steps), seeded(0)
        more = {"return_dict": False} if what == "as a tuple" else {}
        for i, step in enumerate(chain):
            output, state = lay(step.output), lay(step.state)
            given = beside(sampler, step.state, step.timestep)
            found = sampler.step(
                output,
                step.timestep,
                state,
                generator=generator,
                **{name: lay(part) if part.ndim > 1 else part for name, part in given.items()},
                **more,
            )
            if more and not isinstance(found, tuple):
                raise CheckFailed(
                    f"step with return_dict=False returns a {type(found).__name__}; it must be a "
                    "tuple that begins with the state"
                )
            after, expected = found[0], lay(step.after)
            if after.shape != state.shape:
                raise CheckFailed(
                    f"step {i} makes a state of shape {tuple(after.shape)} of one of shape "
                    f"{tuple(state.shape)}"
                )
            # Processors may round a sum of products otherwise, where numbers lie apart.
            if not torch.allclose(after, expected, rtol=1e-5, atol=1e-5):
                gap = (after - expected).abs().max()
                raise CheckFailed(f"the state {what} is off by up to {gap:.3g} after step {i}")
            for name, now, before in (
                ("sample", state, step.state),
                ("model_output", output, step.output),
            ):
                if not torch.equal(now, lay(before)):
                    raise CheckFailed(
                        f"step {i} writes to its argument {name} (given {what}); make a new tensor"
                    )
    return f"{steps} steps with states " + ", ".join(layouts)


def no_host_sync(sampler_class: type[Any]) -> str:
    """No step waits for the device.

    ``set_timesteps(n, device)`` puts ``timesteps`` on the device, and after ``set_begin_index(0)``
    neither ``scale_model_input`` nor ``step`` asks for the value of a tensor that is there. Tried
    on the meta device, whose tensors have none.
    """
    sampler = watched(sampler_class)
    steps = fewest(sampler) + 3
    sampler.set_timesteps(steps, device="meta")
    sampler.set_begin_index(0)
    if not sampler.timesteps.is_meta:
        raise CheckFailed("set_timesteps(n, device) leaves timesteps on the CPU; put them there")
    state = torch.empty(2, 3, 4, 4, device="meta")
    cpu = watched(sampler_class, steps)
    given = beside(cpu, first_state(cpu, *state.shape), cpu.timesteps[0])
    on_meta = {name: part.to("meta") for name, part in given.items()}
    with during("on the meta device, where asking for a value raises"):
        for t in sampler.timesteps:
            output = torch.empty_like(sampler.scale_model_input(state, t))
            extras = {name: torch.empty_like(part) for name, part in on_meta.items()}
            state = sampler.step(output, t, state, **extras).prev_sample
            if not state.is_meta:
                raise CheckFailed("step takes the state off its device")
    return f"{steps} steps on the meta device"


def add_noise(sampler_class: type[Any]) -> str:
    """``add_noise(x0, z, timesteps)`` is ``x0 + sigma z``, with a timestep for each sample or one.

    In the dtype of ``x0``. In the space of signs, each is kept with probability
    ``1 / (1 + exp(-2 / sigma^2))`` and turned over otherwise.
    """
    signs, tried = on_signs(sampler_class), 0
    shape = (3, 100, 100) if signs else (3, 2, 2)
    for timestep_type in ("sigma", "log_sigma"):
        sampler = watched(sampler_class, timestep_type=timestep_type)
        sampler.set_timesteps(fewest(sampler) + 3)
        for dtype in (torch.float64, torch.float32):
            clean = first_state(sampler, *shape).to(dtype)
            noise = torch.randn(shape, generator=seeded(5)[0], dtype=dtype)
            for places in ([0], [-1], [0, len(sampler) // 2, -1]):
                noisy = sampler.add_noise(clean, noise, sampler.timesteps[places])
                sigma = sampler.sigmas[:-1][places].to(dtype).view(-1, 1, 1)
                if noisy.shape != clean.shape or noisy.dtype != dtype:
                    raise CheckFailed(
                        f"add_noise makes {_name(noisy.dtype)} {tuple(noisy.shape)} of "
                        f"{_name(dtype)} {tuple(clean.shape)}; it must keep both"
                    )
                (_check_turned if signs else _check_added)(noisy, clean, noise, sigma)
                tried += 1
        if "timestep_type" not in option_names(sampler_class):
            break
    return f"{'bit flips' if signs else 'x0 + sigma z'} at {tried} sets of timesteps"


def _check_added(
    noisy: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor
) -> None:
    # A timestep, or a noise level, may have been through float32.
    rounding = 1e-6 if noisy.dtype == torch.float64 else 1e-5
    expected = clean + sigma * noise
    if not torch.allclose(noisy, expected, rtol=rounding, atol=rounding):
        gap = (noisy - expected).abs().max()
        raise CheckFailed(
            f"add_noise at noise level(s) {sigma.flatten().tolist()} is off by up to {gap:.3g}; it "
            "must be x0 + sigma z"
        )


def _check_turned(
    noisy: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor
) -> None:
    if not (noisy.abs() == 1).all():
        raise CheckFailed("add_noise leaves {-1, 1}^d, the space of the states (state_space)")
    kept = (noisy == clean).double().mean((1, 2))
    expected = torch.sigmoid(2 / sigma.double().flatten() ** 2).expand(len(kept))
    # One in 2 million beyond by chance; where hardly any is turned over, one sign more or less.
    slack = 5 * (expected * (1 - expected) / clean[0].numel()).sqrt() + 2 / clean[0].numel()
    if not ((kept - expected).abs() <= slack).all():
        raise CheckFailed(
            f"add_noise at noise level(s) {sigma.flatten().tolist()} keeps the shares "
            f"{kept.tolist()} of the signs; it must keep each with probability "
            f"1 / (1 + exp(-2 / sigma^2)), {expected.tolist()}"
        )
