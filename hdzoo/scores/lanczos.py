"""Leading eigenpairs of a symmetric matrix that is known by its products alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from hdzoo.errors import HDZooError

# Vectors of the search space, as ARPACK advises, and how often the search begins anew.
LEAST_BASIS, RESTARTS = 20, 50

Array = npt.NDArray[np.float64]


def basis_size(k: int) -> int:
    """How many vectors the search for ``k`` eigenpairs holds."""
    return max(2 * k + 1, LEAST_BASIS)


def most_products(k: int) -> int:
    """How many products it takes at most."""
    return basis_size(k) + RESTARTS * (basis_size(k) - k)


def leading_eigenpairs(
    multiply: Callable[[Array], Array], start: Array, k: int, tolerance: float
) -> tuple[Array, Array]:
    """Lanczos' method with full orthogonalisation and implicit restarts: ARPACK's, through SciPy.

    Source: Lehoucq, Sorensen and Yang, "ARPACK Users' Guide" (1998).

    Args:
        multiply: the product with a vector of shape (d,).
        start: where the search begins, shape (d,), ``d`` above `basis_size`.
        k: how many.
        tolerance: relative error of an eigenvalue.

    Returns:
        The largest eigenvalues, descending, shape (k,), and their vectors of length 1, (k, d).

    Raises:
        HDZooError: the search does not converge.
    """

    def column(vector: Any) -> Array:
        return multiply(np.array(vector, dtype=np.float64).ravel())

    operator = LinearOperator((len(start),) * 2, matvec=column, dtype=np.float64)
    options = {"ncv": basis_size(k), "maxiter": RESTARTS, "tol": tolerance}
    try:
        values, vectors = eigsh(operator, k, which="LA", v0=start, **options)
    except ArpackNoConvergence as error:
        raise HDZooError(
            f"the search for {k} directions has not converged after {most_products(k):,} products: "
            f"{len(error.eigenvalues)} are found; ask for fewer, or give a network with float32 "
            "weights"
        ) from error
    order = np.argsort(-values)
    return values[order], vectors.T[order]
