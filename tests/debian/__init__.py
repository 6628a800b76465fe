"""The package for Debian: `python -m tests.debian`, which is `make deb` and `make man`."""
