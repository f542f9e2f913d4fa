"""What goes in and what comes out, a file for each noun. Unknown fields are refused."""
