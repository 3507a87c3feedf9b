"""Methods of descent: what one step does, and when it stops."""
