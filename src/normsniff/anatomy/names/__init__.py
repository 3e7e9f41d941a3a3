"""Norms, and what reads and writes around them, by the names and shapes of tensors."""
