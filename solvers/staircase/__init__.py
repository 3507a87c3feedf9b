"""The Riemannian staircase: descend, lift out of spurious stationary points, descend again."""
