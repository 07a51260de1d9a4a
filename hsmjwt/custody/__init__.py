"""What the custodian of keys does with them, each a call that the command line and programs share."""
