"""Pooling operators: region systems say which cells, statistics say what is done with them."""
