"""What to find out before training: learning rates and the batch size."""
