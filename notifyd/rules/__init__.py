"""Rules: predicates in CEL, compiled once, and the routes that an event takes.

In: an event as the rules see it. Out: the rules that match, and a count of those that could not be evaluated.
"""
