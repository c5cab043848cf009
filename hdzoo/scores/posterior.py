r"""The covariance of the clean data given the noisy ones, from any denoiser.

Of :math:`x = x_0 + \sigma z` the posterior has the mean :math:`D(x, \sigma)` (Tweedie), and by
second-order Tweedie the covariance

.. math::
    C = Cov[x_0 | x] = \sigma^2 I + \sigma^4 \nabla^2 \log p_\sigma(x)
      = \sigma^2 \frac{\partial D}{\partial x}

(Efron 2011; Meng et al., arXiv 2111.04726, theorem 1). So a product of :math:`C` with a vector is a
product of the denoiser's Jacobian :math:`J`, and costs an evaluation of the network.

:math:`J` is symmetric and positive semidefinite where the denoiser is exact; that of a trained
network need not be. Each product says which it is:

==============  =========================================================
``forward``     :math:`\sigma^2 J v`
``transposed``  :math:`\sigma^2 J^T v`
``symmetric``   :math:`\sigma^2 (J v + J^T v) / 2`; two evaluations
==============  =========================================================
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from diffusers.utils.torch_utils import randn_tensor

from hdzoo.checks import IMAGES, NOISE_LEVEL, OneOf, Whole, floating, refuse
from hdzoo.errors import HDZooError
from hdzoo.generators import check_generator
from hdzoo.scores.derivatives import Jacobian
from hdzoo.scores.lanczos import basis_size, leading_eigenpairs, most_products

PRODUCTS = ("forward", "transposed", "symmetric")
# Numbers of the matrices that are held: 1 GB in float32.
MOST_NUMBERS = 2**28

Generator = torch.Generator | list[torch.Generator] | None


class Diagonal(NamedTuple):
    """The diagonal of the covariance, and its sum.

    Attributes:
        variances: of each number of each sample, the shape of ``x``. An estimate may be negative,
            and so may be what a trained network says.
        standard_error: of these, same shape; 0 where they are exact.
        trace: the sum of the variances, shape (batch,): the expected squared error of the denoised
            sample, if the denoiser is exact.
        trace_standard_error: of that, shape (batch,).
    """

    variances: torch.Tensor
    standard_error: torch.Tensor
    trace: torch.Tensor
    trace_standard_error: torch.Tensor


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of the covariance, descending.

    Attributes:
        values: shape (batch, k).
        vectors: of length 1, shape (batch, k, ...). The largest of each one's numbers is positive.
    """

    values: torch.Tensor
    vectors: torch.Tensor


class PosteriorCovariance:
    r"""The covariance :math:`Cov[x_0 | x]` of some states, by its products with vectors.

    .. code-block:: python

        posterior = PosteriorCovariance(pipe.denoise, x, sigma=0.5)
        posterior.mean, posterior.diagonal(num_probes=64).variances, posterior.eigenpairs(3)

    No matrix is formed but by `matrix`, and by what is said to be exact. Nothing of one sample
    depends on the others.

    Args:
        denoise: the denoiser, called as ``denoise(x, sigma)``: the method of a network of hdzoo's,
            an exact target's or one made by `hdzoo.wrap`; `HDPipeline.denoise` for every network,
            in VE or VP coordinates, whatever it predicts; or a function that PyTorch can
            differentiate. A network must be in eval mode. A function that is computed without its
            gradient, or of which a large part is, is refused: the first product is compared with
            differences of the first sample's denoised states, by four evaluations.
        x: noisy states :math:`x_0 + \sigma z` in VE coordinates, shape (batch, ...). In half
            precision they are widened to float32; in float64 everything is computed in it that the
            network does not round.
        sigma: the noise level of all.
        batch_size: states that the denoiser is given at a time: products with several vectors are
            made together.
        on_evaluation: called with `num_evaluations` after each call of the denoiser.

    Attributes:
        mean: the denoised states :math:`E[x_0 | x]`, the shape of ``x``.
        num_evaluations: how many states the denoiser was evaluated at, all samples together, with
            derivatives or without, but for the four with which the first product is compared.

    Raises:
        HDZooError: an argument is out of its range, the denoiser does not know the noise level,
            does not return such states, draws random numbers, or cannot be differentiated.
    """

    def __init__(
        self,
        denoise: Callable[[torch.Tensor, float], torch.Tensor],
        x: torch.Tensor,
        sigma: float,
        *,
        batch_size: int = 64,
        on_evaluation: Callable[[int], Any] | None = None,
    ) -> None:
        if not callable(denoise):
            refuse("denoise", denoise, "a function, called as denoise(x, sigma)")
        if not (on_evaluation is None or callable(on_evaluation)):
            refuse("on_evaluation", on_evaluation, "a function, or None")
        floating("x", x, "noisy states, of shape (batch, ...)")
        if x.ndim < 2 or not x.numel() or not x.isfinite().all():
            refuse("x", x, "finite states of shape (batch, ...), one or more")
        self.sigma: float = NOISE_LEVEL("sigma", sigma)
        self.batch_size: int = IMAGES("batch_size", batch_size)
        self.x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        self.num_evaluations = 0
        self._denoise, self._on_evaluation = denoise, on_evaluation
        self._jacobian = Jacobian(self._denoised, self.sigma, lambda x: denoise(x, self.sigma))
        self._matrix: torch.Tensor | None = None
        with torch.no_grad():
            self.mean = torch.cat([self._denoised(part) for part in self.x.split(self.batch_size)])
        if not self.mean.isfinite().all():
            raise HDZooError(
                "the denoised states are not finite; give states at the noise level sigma, or a "
                "network with float32 weights"
            )

    @property
    def dimension(self) -> int:
        """How many numbers a sample has."""
        return self.x[0].numel()

    @property
    def mode(self) -> str:
        """How the last :math:`J v` was differentiated: ``"forward"`` or ``"double-reverse"``."""
        return self._jacobian.mode

    def product(self, v: torch.Tensor, kind: str = "symmetric") -> torch.Tensor:
        """The covariance of each sample times a vector of its own.

        Args:
            v: the shape of ``x``.
            kind: one of `PRODUCTS`.

        Returns:
            The shape of ``x``.

        Raises:
            HDZooError: the vectors do not fit, or the denoiser cannot be differentiated.
        """
        kind = OneOf(PRODUCTS)("kind", kind)
        floating("v", v, f"of the shape of x, {tuple(self.x.shape)}")
        if v.shape != self.x.shape:
            refuse("v", v, f"a tensor of the shape of x, {tuple(self.x.shape)}")
        everyone = slice(0, len(self.x))
        return self._products(v.to(self.x)[None], kind, everyone)[0]

    def matrix(self) -> torch.Tensor:
        r"""The matrix :math:`\sigma^2 J` itself, not made symmetric; d evaluations for each sample.

        Returns:
            Shape (batch, d, d), a row for each number of the denoised state.

        Raises:
            HDZooError: it would have too many numbers.
        """
        if self._matrix is None:
            count, d = len(self.x), self.dimension
            if count * d * d > MOST_NUMBERS:
                raise HDZooError(
                    f"the covariances of {count} samples of {d:,} numbers would have "
                    f"{count * d * d:.2g}, and at most {MOST_NUMBERS:.2g} are held; give "
                    "num_probes for an estimate, or fewer samples"
                )
            axes = torch.eye(d, dtype=self.x.dtype, device=self.x.device)
            probes = (axis.view(1, *self.x.shape[1:]).expand_as(self.x) for axis in axes)
            columns = [found for _, found in self._probed(probes, d, "forward")]
            self._matrix = torch.stack(columns, -1).view(count, d, d)
        return self._matrix

    def diagonal(self, num_probes: int | None = None, generator: Generator = None) -> Diagonal:
        r"""The posterior variances.

        With ``num_probes`` they are Hutchinson's estimate: the mean of :math:`v \odot C v` over
        vectors of independent signs :math:`v`, unbiased, with the variance

        .. math:: \frac1n \sum_{j \ne i} C_{ij}^2 \quad \text{of the i-th,} \qquad
            \frac1{2n} \sum_{i \ne j} (C_{ij} + C_{ji})^2 \quad \text{of their sum.}

        (Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007.) Products are ``forward``; the diagonal
        is the same for all.

        Args:
            num_probes: how many, at least 2; None for the exact ones by `matrix`.
            generator: one, or a list of one for each sample; torch's global one by default.

        Raises:
            HDZooError: an argument is out of its range.
        """
        if num_probes is None:
            variances = self.matrix().diagonal(dim1=1, dim2=2).reshape(self.x.shape)
            trace = variances.flatten(1).sum(1)
            zeros = torch.zeros_like(variances), torch.zeros_like(trace)
            return Diagonal(variances, zeros[0], trace, zeros[1])
        count = _probes(num_probes)
        # Welford's sums: a variance may be small beside the mean.
        mean, squares = (torch.zeros_like(self.x, dtype=self._wide) for _ in range(2))
        sums = []
        for n, (probe, found) in enumerate(self._probed(self._signs(count, generator), count), 1):
            one = (probe * found).to(self._wide)
            sums.append(one.flatten(1).sum(1))
            before = one - mean
            mean += before / n
            squares += before * (one - mean)
        traces = torch.stack(sums)
        root = math.sqrt(count)
        result = mean, (squares / (count - 1)).sqrt() / root, traces.mean(0), traces.std(0) / root
        return Diagonal(*(part.to(self.x.dtype) for part in result))

    def asymmetry(self, num_probes: int | None = None, generator: Generator = None) -> torch.Tensor:
        r"""How far the Jacobian is from a symmetric one, :math:`|J - J^T|_F / |J + J^T|_F`.

        0 where the denoiser is exact, but for roundings; a trained network's own error above.

        Args:
            num_probes: as in `diagonal`, for an estimate of both norms by the same vectors; two
                evaluations for each.
            generator: as in `diagonal`.

        Returns:
            Shape (batch,). NaN of a Jacobian of zero.
        """
        if num_probes is None:
            matrix = self.matrix()
            odd, even = matrix - matrix.mT, matrix + matrix.mT
            return odd.flatten(1).norm(dim=1) / even.flatten(1).norm(dim=1)
        count = _probes(num_probes)
        sums = torch.zeros(2, len(self.x), dtype=self._wide, device=self.x.device)
        probes = list(self._signs(count, generator))
        pairs = zip(
            self._probed(iter(probes), count),
            self._probed(iter(probes), count, "transposed"),
            strict=True,
        )
        for (_, forward), (_, transposed) in pairs:
            for i, part in enumerate((forward - transposed, forward + transposed)):
                sums[i] += part.to(self._wide).flatten(1).square().sum(1)
        return (sums[0] / sums[1]).sqrt().to(self.x.dtype)

    def eigenpairs(self, k: int, generator: Generator = None) -> Eigenpairs:
        r"""The ``k`` leading eigenpairs of the symmetrised covariance, sample by sample.

        By Lanczos' method (`hdzoo.scores.lanczos`) with ``symmetric`` products. Its vectors are on
        the host in float64, and products where the network is. In few dimensions, or once `matrix`
        has been formed, all eigenpairs of that are computed instead.

        Args:
            k: how many, at most d.
            generator: where the first vector of the search comes from, as in `diagonal`.

        Raises:
            HDZooError: ``k`` is out of its range, or the search does not converge, as it may not
                with a network in half precision.
        """
        k = self._directions(k)
        if self._is_dense(k):
            matrix = self.matrix()
            values, vectors = torch.linalg.eigh((matrix + matrix.mT).to(self._wide) / 2)
            values, vectors = values.flip(1)[:, :k], vectors.flip(2)[:, :, :k].mT
        else:
            starts = self._normal(generator, self._wide)
            found = [self._leading(i, k, starts[i]) for i in range(len(self.x))]
            values, vectors = (torch.stack(part) for part in zip(*found, strict=True))
        largest = vectors.gather(2, vectors.abs().argmax(2, keepdim=True))
        vectors = (vectors * largest.sign()).reshape(len(self.x), k, *self.x.shape[1:])
        return Eigenpairs(values.to(self.x), vectors.to(self.x))

    def most_evaluations(self, k: int) -> int:
        """How many evaluations `eigenpairs` needs at most, all samples together.

        Args:
            k: as there.
        """
        k = self._directions(k)
        if self._is_dense(k):
            return 0 if self._matrix is not None else len(self.x) * self.dimension
        return 2 * len(self.x) * most_products(k)

    # ---- the parts --------------------------------------------------------------------------

    @property
    def _wide(self) -> torch.dtype:
        """Of sums over many numbers; MPS has no float64."""
        return torch.float32 if self.x.device.type == "mps" else torch.float64

    def _directions(self, k: Any) -> int:
        k, d = Whole(1)("k", k), self.dimension
        if k > d:
            raise HDZooError(
                f"k is {k}, and a sample has {d} numbers: there are no more directions than that"
            )
        return int(k)

    def _is_dense(self, k: int) -> bool:
        return self._matrix is not None or self.dimension <= 2 * basis_size(k)

    def _denoised(self, x: torch.Tensor) -> torch.Tensor:
        y: Any = self._denoise(x, self.sigma)
        if not isinstance(y, torch.Tensor) or y.shape != x.shape:
            refuse("what denoise returns", y, f"a tensor of the shape of x, {tuple(x.shape)}")
        self.num_evaluations += len(x)
        if self._on_evaluation is not None:
            self._on_evaluation(self.num_evaluations)
        return y

    def _probed(
        self, probes: Iterator[torch.Tensor], count: int, kind: str = "forward"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Vectors for all samples, and their products; made several together."""
        together = max(1, self.batch_size // len(self.x))
        for begin in range(0, count, together):
            some = torch.stack([next(probes) for _ in range(min(together, count - begin))])
            yield from zip(some, self._products(some, kind, slice(0, len(self.x))), strict=True)

    def _products(self, v: torch.Tensor, kind: str, which: slice) -> torch.Tensor:
        """Products of the samples of a slice with vectors of shape (m, samples, ...)."""
        product = {
            "forward": self._jacobian.times,
            "transposed": self._jacobian.transposed_times,
            "symmetric": self._jacobian.symmetric_times,
        }[kind]
        parts = [part[which].expand_as(v).flatten(0, 1) for part in (self.x, self.mean)]
        chunks = (part.split(self.batch_size) for part in (*parts, v.flatten(0, 1)))
        found = torch.cat([product(*chunk) for chunk in zip(*chunks, strict=True)])
        return self.sigma**2 * found.to(self.x.dtype).view(v.shape)

    def _leading(
        self, sample: int, k: int, start: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The eigenpairs of one sample: values (k,), vectors (k, d)."""
        which, shape = slice(sample, sample + 1), (1, 1, *self.x.shape[1:])

        def multiply(vector: Any) -> Any:
            v = torch.from_numpy(vector).to(self.x).view(shape)
            return _host(self._products(v, "symmetric", which))

        # As exact as a product of d roundings is.
        tolerance = math.sqrt(self.dimension) * torch.finfo(self.x.dtype).eps
        values, vectors = leading_eigenpairs(multiply, _host(start), k, tolerance)
        return torch.from_numpy(values.copy()), torch.from_numpy(vectors.copy())

    def _signs(self, count: int, generator: Generator) -> Iterator[torch.Tensor]:
        """Vectors of independent signs, from each sample's own generator."""
        for _ in range(count):
            yield torch.where(self._normal(generator, self.x.dtype) < 0, -1, 1).to(self.x)

    def _normal(self, generator: Generator, dtype: torch.dtype) -> torch.Tensor:
        check_generator(generator, len(self.x))
        return randn_tensor(self.x.shape, generator, device=self.x.device, dtype=dtype)


def _host(x: torch.Tensor) -> Any:
    return x.flatten().cpu().double().numpy()


def _probes(num_probes: Any) -> int:
    return int(Whole(2, 10**7)("num_probes", num_probes))
