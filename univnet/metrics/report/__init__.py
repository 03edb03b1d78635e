"""Systems measured on the same recordings: who takes part, the measuring, the statistics, and the report."""
