"""What all samplers share: a chain of network evaluations, as a diffusers scheduler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from hdzoo.checks import Flag, floating_dtype
from hdzoo.errors import HDZooError
from hdzoo.generators import check_generator
from hdzoo.samplers.chain import Move as Move  # with the rest of the contract
from hdzoo.samplers.configurations import Configured
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.indexing import Indexing
from hdzoo.samplers.noise import Generator, Noise
from hdzoo.samplers.planning import Planned
from hdzoo.text import counted


class Limit(NamedTuple):
    """What a sampler converges to, and along which of its options.

    `hdzoo verify` follows the exact law there, on Gaussian data, and it must arrive. Of samplers on
    signs it follows samples, on independent signs, and the knob is ``"num_inference_steps"`` or
    ``"step_size"``.

    Attributes:
        law: ``"data"``, or ``"noisy data"``: :math:`p_\\sigma` at the last noise level.
        knob: what is refined, all else at the defaults but for a short ladder:
            ``"num_inference_steps"`` (more of them), or, with as many evaluations each time as it
            takes, ``"step_size"``, or the last noise level, ``"sigma"`` or ``"sigma_min"``
            (smaller).
    """

    law: str
    knob: str


@dataclass
class SamplerOutput(BaseOutput):
    """What `Sampler.step` returns.

    Attributes:
        prev_sample: the next state of the chain, in the shape and dtype of the one given.
        pred_original_sample: the denoised state, ``x + sigma^2 s(x, sigma)``.
        score: ``s(x, sigma)`` at the state that was given, in VE coordinates.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor
    score: torch.Tensor


class Sampler(Planned, Indexing, Configured):
    r"""A Markov chain on a score, as a diffusers scheduler.

    A chain is a list of network evaluations, fixed when `set_timesteps` is called. What happens at
    one is said in one of two ways.

    *By a move.* Four choices, each a method that a subclass may override, make a list of `Move`:

    * `rungs`: the ladder of noise levels (how the evaluations are shared among them, `counts`, is
      evenly, and the smaller noise levels get the rest);
    * `step_sizes`: :math:`\alpha` on each rung; the walk on a rung is
      :math:`x + \alpha s + \sqrt{2 \alpha} z`;
    * `hand_off`: the last move on a rung, which leads to the next;
    * `read_out`: the very last move, which makes a sample of the noisy state.

    *By* `update`, for all that is no such move: it is given the number of the evaluation, the
    state, the score there and a source of noise, and returns the next state. What the chain has to
    remember besides (a velocity, an accepted point, the last denoised state) it keeps in `memory`.

    Either way `step` does the rest: indices, generators, coordinates, what the network predicts,
    dtypes. The state that a pipeline carries is the *noisy* variable, to which the network is
    applied next: a sampler whose published form adds noise first starts here right after that
    noise, and one that proposes a point carries the proposal. It starts at noise level
    ``sigmas[0]``. Whatever the network's precision, the state keeps its own (float32 or better).

    A sampler takes one generator, or one for each sample; with the latter, sample ``i`` depends on
    its own generator and on nothing else in the batch.

    A subclass names its options in an ``__init__`` decorated with `register_to_config`, and ends it
    with ``self.set_timesteps()``, which checks them. The options ``prediction_type`` (what the
    network predicts, one of `hdzoo.scores.conversions.PREDICTION_TYPES`), ``timestep_type`` (how it
    is told the noise level, one of `hdzoo.scores.clocks.TIMESTEP_TYPES`) and ``sigma_data`` (None,
    or the standard deviation of the data for a bare network that the sampler has to precondition as
    in Karras et al., arXiv 2206.00364) belong to every sampler.

    The chain is in VE coordinates whatever the network's. The option ``coordinates`` says where the
    state lives that `step` is given and returns: ``"ve"``, as for NCSN-type networks, or ``"vp"``,
    :math:`x / \sqrt{1 + \sigma^2}`, as in diffusers' own pipelines. It need not be named in an
    ``__init__``: `from_config` sets it, and what a VP network's timesteps stand for (diffusers'
    ``beta_schedule`` and so on), from the configuration of a diffusers scheduler. Then the ladder
    is moved to the noise levels that the network was trained at; only a schedule given to
    `set_timesteps` is kept as it is.

    Attributes:
        num_inference_steps: network evaluations, all told.
        timesteps: what the network is told at each, shape (num_inference_steps,).
        sigmas: the noise level at each, and 0 at the end, shape (num_inference_steps + 1,), on the
            CPU.
        levels: the same as plain numbers, for `update`.
        moves: the chain as a sequence of `Move`, each made when it is looked up; where `update` is
            the sampler's own, they say the noise levels, and of ``alpha`` and ``noise`` what `plan`
            puts there.
        memory: what the chain keeps besides its state, by names that the sampler chooses. It
            belongs to one chain: empty when one begins, copied with the sampler. Tensors have the
            batch as their first axis, and one sample's part depends on that sample alone.
        extras: what the network gave beside its prediction at this evaluation, for those names in
            `needs` and `uses`.
    """

    order = 1
    # The published algorithm, for the table of samplers.
    source = ""
    family = "Langevin"
    # Whether the chain may start from nothing but noise, or needs states at its noise level.
    starts_from_noise = True
    # What it converges to; None where nothing is claimed.
    limit: ClassVar[Limit | None] = None
    # The law that a chain which starts in it stays in, exactly, at any step size and after any
    # number of evaluations: "noisy data", or None.
    leaves_invariant: ClassVar[str | None] = None
    # "real": R^d, with Gaussian noise. "signs": {-1, 1}^d, with bit-flip noise; the first state and
    # the last are signs, and those on the way signs, or means of several.
    state_space = "real"
    # What the network must give beside its prediction ("energy", "variance"); without it, the
    # sampler is refused.
    needs: ClassVar[Sequence[str]] = ()
    # What the sampler uses of that where it is there.
    uses: ClassVar[Sequence[str]] = ()
    # Values to try of options that are this sampler's own, for `hdzoo verify`.
    option_choices: ClassVar[Mapping[str, Sequence[Any]]] = {}

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        r"""The state after evaluation ``k``; by default the `Move`,
        :math:`x + \alpha_k s + \beta_k z`.

        A sampler that overrides this method runs on VE and VP networks, with every prediction
        type, in every pipeline.

        Args:
            k: the number of the evaluation, from 0; its noise level is ``levels[k]``, and
                ``levels[k + 1]`` that of the next, 0 after the last.
            x: the state at which the network was asked, shape (batch, ...), in VE coordinates,
                float32 or better. Not to be written to.
            score: ``s(x, levels[k])``, of the same shape and dtype. Not to be written to.
            noise: the source of fresh noise, in the dtype and on the device of ``x``.

        Returns:
            The state at which the network is asked next, at noise level ``levels[k + 1]``; after
            the last evaluation, the sample.
        """
        move = self.moves[k]
        moved = x + move.alpha * score
        return moved + move.noise * noise.normal(x.shape) if move.noise > 0 else moved

    @property
    def probes(self) -> int:
        """How many of the last evaluations are made beside the chain's state, for derivatives
        there: where `probe` says, and nothing may change that. 0, if not overridden."""
        return 0

    def probe(self, made: int, x: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        """What `update` is for the last `probes` evaluations, and for the one before them.

        Args:
            made: how many of them there have been; 0 at the state itself.
            x: where the network was asked, as in `update`.
            score: likewise.

        Returns:
            Where it is asked next; after the last, the sample.
        """
        raise NotImplementedError

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: Generator = None,
        return_dict: bool = True,
        **other: Any,
    ) -> SamplerOutput | tuple[torch.Tensor]:
        """One network evaluation's `update`, in the coordinates of the network.

        Args:
            model_output: the network's output at ``sample``, same shape, any floating dtype; or of
                twice as many channels, the second half of which is a learned variance.
            timestep: the element of `timesteps` that the network was given. Only the first call
                after `set_timesteps` looks at it; the calls after that count on.
            sample: the state, shape (batch, ...), in its own coordinates. Computed in float32 at
                least.
            generator: one generator, or a list with one for each sample.
            return_dict: whether to return a `SamplerOutput` or the tuple ``(prev_sample,)``.
            **other: what the network gives beside its prediction, by the names in `needs` and
                `uses`. Nothing else: `DDIMPipeline` and others pass what is their own scheduler's.

        Returns:
            The next state, in the dtype of ``sample``.

        Raises:
            HDZooError: the chain has ended, or an argument does not fit.
        """
        begins = self._step_index is None
        k = self._first_index(timestep) if self._step_index is None else self._step_index
        if k >= len(self.moves):
            raise HDZooError(
                f"the chain of {counted(len(self.moves), 'step')} has ended; call set_timesteps to "
                "start anew"
            )
        given_dtype = floating_dtype("sample", sample, "the state of the chain")
        output_dtype = floating_dtype("model_output", model_output, "the network's output")
        # One by one at the start alone: a thousand of them cost what a step's arithmetic does.
        if begins or (isinstance(generator, list) and len(generator) != len(sample)):
            check_generator(generator, len(sample))
        if begins:
            self.check_precision(output_dtype, given_dtype)
            self._step_index, self.memory = k, {}
        return_dict = Flag()("return_dict", return_dict)
        edge, (keep, push, fresh) = self._edge_at(k)
        dtype = torch.float64 if given_dtype == torch.float64 else torch.float32
        # `Tensor.to` takes microseconds also where there is nothing to do.
        state = sample if dtype == given_dtype else sample.to(dtype)
        prediction, variance = self._parts(model_output, sample)
        if dtype != output_dtype:
            prediction = prediction.to(dtype)
        if other or self.needs or self.uses:
            given = other if variance is None else {"variance": variance} | other
            self._take_extras(given, len(sample))
        score, probes = None, self.probes
        made = k + 1 + probes - len(self.moves) if probes else -1
        if type(self).update is Sampler.update and made < 0:
            moved = state * keep
            moved.add_(prediction, alpha=push)
            if fresh > 0:
                z = randn_tensor(state.shape, generator, device=state.device, dtype=dtype)
                moved.add_(z, alpha=fresh)
            if dtype != given_dtype:
                moved = moved.to(given_dtype)
        else:
            x, score = edge.to_ve(state, prediction)
            if made >= 0:
                moved = self.probe(made, x, score)
            else:
                moved = self.update(k, x, score, Noise(generator, state.device, dtype))
            if moved.shape != state.shape:
                raise HDZooError(
                    f"{type(self).__name__}.update returns the shape {tuple(moved.shape)} for "
                    f"states of the shape {tuple(state.shape)}"
                )
            if edge.scale_after != 1:
                moved = moved / edge.scale_after
            if moved.dtype != given_dtype:
                moved = moved.to(given_dtype)
        self._step_index = k + 1
        if not return_dict:
            return (moved,)
        if score is None:
            score = edge.to_ve(state, prediction)[1]
        return SamplerOutput(
            prev_sample=moved,
            pred_original_sample=edge.denoised(state, prediction).to(given_dtype),
            score=score.to(given_dtype),
        )

    def check_precision(self, *dtypes: torch.dtype) -> None:
        """Refuses what is too coarse for `probes`, differences of which are roundings.

        Args:
            *dtypes: of the network's weights or output, or of the state.

        Raises:
            HDZooError: one is.
        """
        if self.probes and torch.bfloat16 in dtypes:
            raise HDZooError(
                f"{type(self).__name__} with these options takes differences of the network's "
                "outputs, which are roundings in bfloat16; take float32 or float16, or "
                "readout='full'"
            )

    @property
    def _step_is_own(self) -> bool:
        return type(self).step is not Sampler.step

    def _take_extras(self, given: dict[str, Any], batch_size: int) -> None:
        """Keeps what the network gives beside its prediction; refuses what is none of it."""
        known = (*self.needs, *self.uses)
        for name in given:
            if name not in (*known, "variance"):
                raise HDZooError(
                    f"step is given {name!r}, which {type(self).__name__} does not take; this "
                    "pipeline is for one scheduler of its own. Give its network and this sampler "
                    "to DDPMPipeline or HDPipeline"
                )
        for name in self.needs:
            if given.get(name) is None:
                raise HDZooError(
                    f"{type(self).__name__} needs the network's {name} beside its prediction, and "
                    "is given none; take HDPipeline, with a network that has it"
                )
        self.extras = {name: given[name] for name in known if given.get(name) is not None}
        energy = self.extras.get("energy")
        if energy is not None and tuple(energy.shape) != (batch_size,):
            raise HDZooError(
                f"the network's energy has the shape {tuple(energy.shape)} for {batch_size} "
                f"samples; it must be ({batch_size},), one for each"
            )

    def __copy__(self) -> Self:
        copied = type(self).__new__(type(self))
        # What one chain remembers is not the other's to change.
        copied.__dict__ = self.__dict__ | {"memory": dict(self.memory)}
        return copied

    def first_state(
        self,
        shape: Sequence[int],
        noise: Noise,
        centre: float = 0.0,
        data_range: tuple[float, float] | None = None,
        data_std: float | None = None,
    ) -> torch.Tensor:
        """Draws where the chain starts, from nothing but noise.

        By default a normal law about the data's centre at the first noise level,
        ``centre + sigmas[0] z``; in the space of signs, each sign with probability 1/2.

        Args:
            shape: (batch, ...).
            noise: what it is drawn from.
            centre: the mean of the data, in the network's units.
            data_range: the lowest and the highest value of a pixel, in the network's units; None
                where the samples are no images.
            data_std: the standard deviation of the data, in the network's units; None where the
                network does not record it.

        Returns:
            States in the sampler's coordinates, in the dtype and on the device of ``noise``.
        """
        z = noise.normal(shape)
        if self.state_space == "signs":
            return torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))
        centred = self.from_ve(torch.full_like(z, centre), self.levels[0])
        return centred + self.init_noise_sigma * z

    def closed_form(self, start: GaussianLaw) -> GaussianLaw | None:
        """The law of the chain's end on Gaussian data, by the formula of the source.

        `hdzoo verify` compares it with what `step` does. So it is written from the configuration
        and ``num_inference_steps`` alone, and not from `moves`, which it would then agree with
        whatever they are.

        Args:
            start: the data, and the law of the first state, in VE coordinates.

        Returns:
            The law of the last state; None where no formula is declared.
        """
        return None
