"""diffusers' `UNet2DModel` computed by ONNX Runtime, on a CPU."""

import io
import warnings
from copy import deepcopy
from typing import Any, NoReturn

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from hdzoo.checks import refuse
from hdzoo.errors import HDZooError
from hdzoo.scores.energies import HasEnergy

# How far the two may be apart, as a share of the largest output. A U-Net's float32 roundings are
# 1e-6 of it; another graph would be of its order.
TOLERANCE = 1e-4
# Samples of the trace and of the check: another number, so that a graph for one alone is found out.
TRACED, CHECKED = 2, 3


def to_onnxruntime(network: Any) -> Any:
    """A network whose U-Net ONNX Runtime computes: on a CPU up to twice as fast as PyTorch does.

    .. code-block:: python

        pipe.unet = hdzoo.to_onnxruntime(pipe.unet)  # pip install 'hdzoo[onnx]'

    The results are PyTorch's up to float32 roundings, which is checked here on random states. What
    is around the U-Net, such as preconditioning, is as it was. The new network has no weights: it
    is not trained, differentiated, moved to another device or dtype, or saved, and refuses each.
    It uses as many threads as PyTorch (`torch.get_num_threads`) does at the time of a call.

    Args:
        network: a `UNet2DModel` of diffusers', or a network that has one as its ``unet``
            (`UNetScoreModel`, `NCSNUNetModel`); on the CPU, in float32 and in eval mode. It stays
            as it is; what becomes of its weights afterwards is not seen by the new one.

    Returns:
        A network of the same class, or an `OnnxUNet` for a bare `UNet2DModel`.

    Raises:
        HDZooError: it is no such network, the packages are missing, or the results are not
            PyTorch's.
    """
    check_packages()
    name = type(network).__name__
    unet: Any = network if isinstance(network, UNet2DModel) else getattr(network, "unet", None)
    if isinstance(network, HasEnergy):
        raise HDZooError(
            f"{name} is an energy, whose score is a gradient, and ONNX Runtime computes no "
            "gradients; leave it to PyTorch, or take a network that predicts the score itself"
        )
    if type(unet) is not UNet2DModel:
        raise HDZooError(
            f"{name} has no UNet2DModel of diffusers' as its unet, which is what ONNX Runtime can "
            "take over; leave it to PyTorch"
        )
    if unet.device.type != "cpu" or unet.dtype != torch.float32:
        raise HDZooError(
            f"ONNX Runtime computes in float32 on the CPU, and {name} is {_named(unet.dtype)} on "
            f"{unet.device}; load it in float32 and move it to the CPU, or leave it to PyTorch"
        )
    if any(module.training for module in unet.modules()):
        raise HDZooError(
            f"{name} is in train mode, and ONNX Runtime computes a network as it is evaluated; "
            "call network.eval() first"
        )
    # Wherever the U-Net is inside, the copy has the other in its place.
    return deepcopy(network, {id(unet): OnnxUNet(unet)})


def check_packages() -> None:
    """Refuses where the packages are missing.

    Raises:
        HDZooError: one is.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise HDZooError(
            f"ONNX Runtime needs the package {error.name}: pip install 'hdzoo[onnx]'"
        ) from error


class OnnxUNet(ModelMixin, ConfigMixin):
    """A `UNet2DModel` without weights, called as one; made by `to_onnxruntime`.

    Args:
        unet: whose options, weights and results it has.
    """

    config_name = "config.json"

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        import onnxruntime

        self.register_to_config(**unet.config)
        self.backend = f"onnxruntime {onnxruntime.__version__}"
        # What is asked for the network's dtype and device finds it.
        self.register_buffer("place", torch.zeros(()), persistent=False)
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = unet.config.in_channels, height, width
        self._session: tuple[int, Any] | None = None
        try:
            self._graph = _traced(unet, self._inputs(TRACED))
            self._check(unet)
        except HDZooError:
            raise
        # Of the tracer, for an operation that it does not know, or of ONNX Runtime.
        except Exception as error:
            raise HDZooError(
                f"ONNX Runtime does not take this UNet2DModel over: {error}; leave it to PyTorch"
            ) from error
        self.eval()

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """What the `UNet2DModel` computes.

        Args:
            sample: shape (batch, *shape), float32, where ``shape`` is the one of its options.
            timestep: a number, a scalar tensor, or one for each sample.
            class_labels: of each sample; for a network that takes them.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Raises:
            HDZooError: an argument does not fit, or something was asked that takes PyTorch.
        """
        if self.training:
            raise HDZooError(
                "a network of ONNX Runtime has no train mode; call its eval(), or train the network"
                " that it was made of"
            )
        if torch.is_autocast_enabled("cpu"):
            raise HDZooError(
                "ONNX Runtime computes in float32, and torch.autocast is on; leave one of them out"
            )
        fits = isinstance(sample, Tensor) and tuple(sample.shape[1:]) == self.shape and len(sample)
        if not fits or sample.dtype != torch.float32 or sample.device.type != "cpu":
            shape = ", ".join(map(str, self.shape))
            refuse("sample", sample, f"a float32 tensor on the CPU, of shape (batch, {shape})")
        takes_labels = "class_labels" in self._names
        if takes_labels != (class_labels is not None):
            needs = "needs class_labels" if takes_labels else "takes no class_labels"
            raise HDZooError(f"this network {needs}, and they are {class_labels!r}")
        if not isinstance(timestep, Tensor):
            # As UNet2DModel takes it.
            timestep = torch.tensor(timestep, dtype=torch.long)
        inputs = [sample, _of_each("timestep", timestep, len(sample), self._timestep_dtype)]
        if class_labels is not None:
            inputs.append(_of_each("class_labels", class_labels, len(sample), torch.long))
        output: Tensor = _Run.apply(self._run, *inputs)
        return UNet2DOutput(sample=output) if return_dict else (output,)

    @property
    def _timestep_dtype(self) -> torch.dtype:
        # One that looks them up in a table.
        learned = self.config.time_embedding_type == "learned"
        return torch.long if learned else torch.float32

    @property
    def _names(self) -> tuple[str, ...]:
        takes_labels = self.config.num_class_embeds is not None
        return ("sample", "timestep") + (("class_labels",) if takes_labels else ())

    def _inputs(self, batch: int) -> list[Tensor]:
        """Random inputs, that no one's generator is asked for."""
        noise = torch.Generator().manual_seed(batch)
        steps = torch.arange(1, 1 + batch)
        inputs = [torch.randn(batch, *self.shape, generator=noise), steps.to(self._timestep_dtype)]
        if "class_labels" in self._names:
            inputs.append(steps % self.config.num_class_embeds)
        return inputs

    def _check(self, unet: UNet2DModel) -> None:
        """Refuses a graph that does not compute what the network does."""
        inputs = self._inputs(CHECKED)
        with torch.no_grad():
            expected = _answer(unet, *inputs)
        apart = (self._run(*inputs) - expected).abs().max()
        if not apart <= TOLERANCE * expected.abs().max():
            raise HDZooError(
                f"what ONNX Runtime computes differs from PyTorch's result by {apart:.2g}, where "
                f"the largest is {expected.abs().max():.2g}; leave the network to PyTorch"
            )

    def _run(self, *inputs: Tensor) -> Tensor:
        import onnxruntime

        threads = torch.get_num_threads()
        if self._session is None or self._session[0] != threads:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                self._graph, options, providers=["CPUExecutionProvider"]
            )
            self._session = threads, session
        arrays = [part.detach().contiguous().numpy() for part in inputs]
        (output,) = self._session[1].run(None, dict(zip(self._names, arrays, strict=True)))
        return torch.from_numpy(output)

    def __getstate__(self) -> dict[str, Any]:
        # A copy opens a session of its own.
        return self.__dict__ | {"_session": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = fn(self.place)
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            raise HDZooError(
                f"ONNX Runtime computes in float32 on the CPU, and its network is to be "
                f"{_named(moved.dtype)} on {moved.device}; move the network that it was made of"
            )
        return super()._apply(fn, recurse)

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses: there are no weights."""
        raise HDZooError(
            "a network of ONNX Runtime has no weights to save; save the one that it was made of"
        )


class _Run(torch.autograd.Function):
    """A computation that PyTorch does not see; whoever differentiates it is told so."""

    @staticmethod
    def forward(run: Any, *inputs: Tensor) -> Tensor:
        result: Tensor = run(*inputs)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> NoReturn:
        _refuse_gradients()

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        _refuse_gradients()

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> NoReturn:
        _refuse_gradients()


def _refuse_gradients() -> NoReturn:
    raise HDZooError(
        "ONNX Runtime computes no gradients, and what was asked differentiates or maps the "
        "network; leave it to PyTorch (backend torch)"
    )


def _of_each(name: str, value: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """One number for each sample, shape (batch,)."""
    if value.numel() not in (1, batch):
        refuse(name, value, f"one number, or one for each of {batch} samples")
    return value.to("cpu", dtype).reshape(-1).expand(batch)


def _answer(unet: UNet2DModel, sample: Tensor, timestep: Tensor, *labels: Tensor) -> Tensor:
    answer: Tensor = unet(sample, timestep, *labels, return_dict=False)[0]
    return answer


class _Traced(torch.nn.Module):
    """The network with positional arguments and one result, as the tracer wants it."""

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, *inputs: Tensor) -> Tensor:
        return _answer(self.unet, *inputs)


def _traced(unet: UNet2DModel, inputs: list[Tensor]) -> bytes:
    """The graph of a network, for any number of samples."""
    names = ["sample", "timestep", "class_labels"][: len(inputs)]
    file: Any = io.BytesIO()
    # PyTorch advises its newer exporter, which takes thirty times as long for a graph that is not
    # faster; and warns of decisions that a trace keeps, which is why the graph is checked.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Traced(unet).eval(),
            tuple(inputs),
            file,
            dynamo=False,
            input_names=names,
            output_names=["output"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "output"]},
        )
    return file.getvalue()


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
