"""Pictures too large to be decoded at once, cut into bands of rows, a module for each format; each is as `images` has it whole."""
