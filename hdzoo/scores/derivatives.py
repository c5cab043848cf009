"""Products of a denoiser's Jacobian with vectors, forwards and backwards, checked."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch.autograd import forward_ad

from hdzoo.errors import HDZooError
from hdzoo.scores.kernels import forward_mode, plain_attention

Function = Callable[[torch.Tensor], torch.Tensor]

# In units of the noise: how much a denoiser may differ from itself, above what half precision
# rounds in another batch; and how far it is moved to see whether it changes.
SAME, STEP = 0.1, 1e-2
# How far v . J v and v . J^T v may be apart, as a share: half precision rounds by 0.01.
APART, ROUNDING = 0.05, 0.02
# Steps of the differences that a first product is compared with, in units of the noise; how near
# they are to one another where they tell what the derivative is; and how far that may be from it.
DIFFERENCES, AGREE, FAR = (0.05, 0.02), 0.05, 0.2


class Jacobian:
    """The Jacobian ``J`` of a denoiser of states that are independent of one another.

    ``J v`` is by forward-mode differentiation, one evaluation in the memory of two. Where a part of
    the denoiser has none, it is by reverse mode twice: ``J^T u`` is linear in ``u``, and ``J v`` is
    its derivative. ``J^T v`` is by reverse mode. Attention takes PyTorch's plain kernel, for the
    fused ones have no second derivative. Dual tensors serve where `torch.func.jvp` does not:
    denoisers of others that look at the values of their noise levels.

    Every method takes the states ``x``, shape (batch, ...), what the denoiser gave for them before,
    and vectors ``v``, both of that shape, and raises an `HDZooError` if the denoiser cannot be
    differentiated, or if its derivative is not that of what it computes.

    Args:
        function: of a tensor of shape (batch, ...), to one of the same shape.
        sigma: the noise level of the states.
        uncounted: the same function, for the four values that the first product is compared with.

    Attributes:
        mode: how ``J v`` is made, ``"forward"`` or ``"double-reverse"``, once the first is.
    """

    def __init__(self, function: Function, sigma: float, uncounted: Function) -> None:
        self.function, self.sigma, self.uncounted = function, sigma, uncounted
        self.mode = "forward"
        self._compared = False

    def times(self, x: torch.Tensor, value: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """``J v``."""
        if self.mode == "forward":
            try:
                found = self._forward(x, v)
            except torch.OutOfMemoryError as error:
                _refuse(error)
            # What has no forward mode says so by either.
            except (NotImplementedError, RuntimeError):
                self.mode = "double-reverse"
        if self.mode != "forward":
            try:
                found = self._double_reverse(x, v)
            except (NotImplementedError, RuntimeError) as error:
                _refuse(error)
        product = self._checked(x, value, v, *found)
        if not self._compared:
            self._compared = True
            self._compare(x[:1], v[:1], product[:1])
        return product

    def transposed_times(
        self, x: torch.Tensor, value: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """``J^T v``."""
        with torch.enable_grad(), plain_attention():
            x = x.detach().clone().requires_grad_()
            y = self.function(x)
            try:
                (product,) = torch.autograd.grad(y, x, v, materialize_grads=True)
            except (NotImplementedError, RuntimeError) as error:
                _refuse(error)
        return self._checked(x.detach(), value, v, y.detach(), product)

    def symmetric_times(
        self, x: torch.Tensor, value: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """``(J v + J^T v) / 2``."""
        ahead, back = self.times(x, value, v), self.transposed_times(x, value, v)
        # v . J v is v . J^T v whatever J is.
        apart = (v * (ahead - back)).flatten(1).sum(1).abs()
        vector, *products = (part.flatten(1).norm(dim=1) for part in (v, ahead, back))
        # J is of order 1; of a far smaller one roundings are left.
        if (apart > APART * vector * (products[0] + products[1] + ROUNDING * vector)).any():
            raise HDZooError(
                "the derivatives of the denoiser forwards and backwards are not of one function: a "
                "part of it is computed without its gradient; take torch.no_grad and detach out of "
                "the denoiser"
            )
        return (ahead + back) / 2

    def _forward(self, x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), forward_mode(), forward_ad.dual_level():
            dual = self.function(forward_ad.make_dual(x.detach().clone(), v))
            y, product = forward_ad.unpack_dual(dual)
            return y, torch.zeros_like(y) if product is None else product

    def _double_reverse(
        self, x: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad(), plain_attention():
            x = x.detach().clone().requires_grad_()
            y = self.function(x)
            u = torch.zeros_like(y, requires_grad=True)
            (transposed,) = torch.autograd.grad(y, x, u, create_graph=True, materialize_grads=True)
            (product,) = torch.autograd.grad(transposed, u, v, materialize_grads=True)
        return y.detach(), product

    def _checked(
        self,
        x: torch.Tensor,
        value: torch.Tensor,
        v: torch.Tensor,
        y: torch.Tensor,
        product: torch.Tensor,
    ) -> torch.Tensor:
        if ((y - value).abs() > SAME * self.sigma).any():
            raise HDZooError(
                "the denoiser gives another result for the same state: it draws random numbers; "
                "put the network in eval mode (network.eval()), so that it has no dropout"
            )
        if not product.isfinite().all():
            raise HDZooError(
                "the derivative of the denoiser is not finite; give states at the noise level "
                "sigma, or a network with float32 weights"
            )
        if v.any() and not product.any():
            step = STEP * self.sigma
            with torch.no_grad():
                moved = self.function(x + step * v / v.abs().max())
            if ((moved - y).abs() > STEP * step).any():
                raise HDZooError(
                    "the derivative of the denoiser is zero, and its result does change with x: it "
                    "is computed without its gradient; take detach and NumPy out of the denoiser"
                )
        return product

    def _compare(self, x: torch.Tensor, v: torch.Tensor, product: torch.Tensor) -> None:
        """Refuses a product that is not that of differences, where these tell what it is.

        They do not in half precision, nor where the denoiser bends within a small part of the
        noise: then they differ from one another.
        """
        largest = v.abs().max()
        if not largest > 0:
            return
        steps = [self.sigma * step / largest for step in DIFFERENCES]
        with torch.no_grad():
            wide, narrow = (
                (self.uncounted(x + h * v) - self.uncounted(x - h * v)) / (2 * h) for h in steps
            )
        size = product.norm() + narrow.norm()
        agree = (wide - narrow).norm() <= AGREE * size
        if agree and (product - narrow).norm() > FAR * size + ROUNDING * v.norm():
            raise HDZooError(
                "the derivative of the denoiser is not that of what it computes: a part of it is "
                "computed without its gradient; take torch.no_grad and detach out of the denoiser"
            )


def _refuse(error: Exception) -> NoReturn:
    if isinstance(error, torch.OutOfMemoryError):
        raise HDZooError(
            f"the derivatives do not fit into the memory: {error}; give a smaller batch_size"
        ) from error
    raise HDZooError(
        f"the denoiser cannot be differentiated: {error}. It must be made of PyTorch's operations "
        "on its input, without torch.no_grad, detach, or NumPy; or of a custom function with a jvp"
    ) from error
