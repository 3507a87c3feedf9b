"""The loop that advances many starts at once, the protocol of its methods, and the statuses with which starts stop."""
