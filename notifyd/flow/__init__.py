"""The steps of the way, one module each, joined in `service/app.py` only.

In: accepted events, due rows, decisions. Out: plans, deliveries, attempts, effects, all recorded in the store.
"""
