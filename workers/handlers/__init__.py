"""One file for each kind of job: fetch the inputs, call pure code, store the outputs."""
