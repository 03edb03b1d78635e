"""How fast, and against what: each benchmark times its contestants side by side in one process."""
