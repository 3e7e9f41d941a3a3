"""Norms, and what reads and writes around them, in a computation graph."""
