"""The factorial of annealed Langevin dynamics: hand-off, noise, last noise, read-out, step size."""
