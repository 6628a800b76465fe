"""The steps of the way, one module each, joined in `app.py` only."""
