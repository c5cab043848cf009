"""``python -m hdzoo``."""

from hdzoo.cli import main

main()
