"""Training loops, one readable file each. The functions that a week is about come in as arguments."""
