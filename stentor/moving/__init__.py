"""Moving in and out: readers of what other servers keep, and XEP-0227 both ways. Readers do no I/O but to read."""
