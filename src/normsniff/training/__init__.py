"""The shadows through a training run: saved snapshots, a monitor, a penalty."""
