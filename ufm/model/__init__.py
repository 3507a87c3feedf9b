"""The model: problem, losses, feasible set, geometry."""
