"""One micro-batch of the game: who plays, what losses may be, whose weights are whose, and the rows that are logged.

Also losses outside of a training step, and what they depend on.
"""
