"""`python -m tests.contract` writes the contract's files anew."""

from tests.contract.files import write

write()
