"""The HTML page of each sweep."""
