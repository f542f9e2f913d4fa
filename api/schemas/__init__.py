"""What goes in and what comes out, a file for each noun. Defaults come from shared.params; unknown fields are refused."""
