"""What surrounds a training run of the command line. Import from the modules."""
