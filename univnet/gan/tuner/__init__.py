"""Find learning rates and the batch size before training."""
