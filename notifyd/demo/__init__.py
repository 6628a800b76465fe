"""`notifyd demo`: the real daemon, with made-up neighbours, plays one approval from event to resume."""
