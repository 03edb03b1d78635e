"""Averages of weights. Import from the modules: a vocoder reads averages without Lightning."""
