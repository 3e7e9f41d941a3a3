"""``python -m normsniff``."""

from .cli import main

main()
