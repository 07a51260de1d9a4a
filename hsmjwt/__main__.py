"""Run the command line: `python -m hsmjwt`."""

from hsmjwt.cli.main import entry

entry()
