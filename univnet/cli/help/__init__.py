"""What ``--help`` and shell completion say of each verb, made of the options' own texts and defaults."""
