"""`python -m wirechamber`."""

from wirechamber.cli import main

main()
