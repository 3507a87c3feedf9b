"""What every command shares: cells, the store of results, the command line, workers."""
