"""What lets a run be stopped at any moment without a loss: whole files, signals, lost ranks, logs that fit. No re-exports."""
