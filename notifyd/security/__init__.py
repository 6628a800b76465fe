"""Secrets, keys, signatures, sealed links and tokens, redaction, and the names of actors.

In: secrets and keys of the configuration, texts to protect, proofs of who is calling. Out: signed, sealed or
redacted texts, and whom a proof names.
"""
