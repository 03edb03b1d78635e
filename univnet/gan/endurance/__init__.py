"""What lets a run be stopped at any moment without a loss. Import from the modules."""
