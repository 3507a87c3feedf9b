"""Starting points: random rows, and their collapse onto orbits."""
