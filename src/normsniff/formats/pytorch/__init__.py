"""PyTorch files; a pickle is read as data."""
