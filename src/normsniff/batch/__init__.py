"""Many models: in worker processes, resumable, on a cluster."""
