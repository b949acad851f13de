"""Language models behind one port; each file is one way to run them."""
