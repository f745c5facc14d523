"""What gpu_check.sh measures on a GPU lent for minutes: one module per step."""
