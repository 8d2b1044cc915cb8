"""Run one step on fake tensors and record its allocations; needs torch."""
