"""What gpu_check.sh measures on a GPU that is there for minutes: a module per step."""
