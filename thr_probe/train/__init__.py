"""The GRPO/THR trainer: configuration, batches, the loop, checkpoints."""
