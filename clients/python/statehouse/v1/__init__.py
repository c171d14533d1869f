"""The messages of package statehouse.v1, generated from proto/statehouse/v1. Imported only when a call needs them."""
