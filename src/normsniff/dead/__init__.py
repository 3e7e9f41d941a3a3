"""What follows from the dead direction: its export, its readout in activations, the removal of what cannot matter."""
