"""Records become an immutable dataset: steps as generators, reasons as data. No torch here."""
