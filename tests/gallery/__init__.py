"""Every built-in message as every channel sends it, to be looked at: `make gallery`."""
