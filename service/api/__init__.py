"""One HTTP resource a file; thin: parameters in, two calls to the runtime, an answer out."""
