"""The door of the workers: takes jobs, runs the code for them, stores what comes out."""
