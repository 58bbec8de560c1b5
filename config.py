"""pyinfra reads this before it loads the inventory: the command line and every setting are
checked here, so that a mistake ends the run before any host is connected to.
"""

from koprogo_deploy.command_line import check

check()
