"""A fresh Debian, brought to a running service by the commands of `docs/operations.md` and nothing else."""
