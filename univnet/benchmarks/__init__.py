"""Speed comparisons: each benchmark times its contestants in turn, in one process."""
