"""Prints where the bundled pipeline is: ``hdzoo sample "$(python -m hdzoo_binary)"``."""

from hdzoo_binary import BINARY_MNIST

if __name__ == "__main__":
    print(BINARY_MNIST)  # noqa: T201
