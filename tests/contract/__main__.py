"""`python -m tests.contract` writes anew the contract's files, and what is generated of the documentation."""

from notifyd.registry.discovery import discover
from tests import channel_pages, command_pages, option_pages
from tests.contract.files import write

write()
channel_pages.write(discover())
option_pages.write()
command_pages.write()
