"""`python -m tests.contract` writes the contract's files, the channels' pages and the tables of options anew."""

from notifyd.registry.discovery import discover
from tests import channel_pages, option_pages
from tests.contract.files import write

write()
channel_pages.write(discover())
option_pages.write()
