"""What a person does with a browser: `make browser`. Not among `make test`'s: it needs Chromium."""
