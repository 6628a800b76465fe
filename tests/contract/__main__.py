"""`python -m tests.contract` writes the contract's files anew, and the pages of the channels."""

from notifyd.registry.discovery import discover
from tests import channel_pages
from tests.contract.files import write

write()
channel_pages.write(discover())
