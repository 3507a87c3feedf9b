"""What theory proves of minimisers, batches and rates."""
