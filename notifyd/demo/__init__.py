"""`notifyd demo`: the real daemon, with made-up neighbours, plays one approval from event to resume.

In: nothing but this machine. Out: a transcript of what happened, and exit code 0 if all went as it should.
"""
