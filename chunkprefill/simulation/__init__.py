"""Price it: cost models, workloads, and the loop run on them instead of on a model."""
