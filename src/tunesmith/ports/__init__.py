"""What the system needs from the outside, as Protocols; each docstring is the contract its adapters are tested by."""
