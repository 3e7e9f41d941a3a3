"""Mutated files of every format, answered in this process: ``python -m fuzz``; docs/security.md has the figures."""
