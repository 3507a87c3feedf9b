"""What the cells of each sweep compute."""
