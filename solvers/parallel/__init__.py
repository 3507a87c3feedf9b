"""Problems padded to common shapes, and arrays sharded over devices."""
