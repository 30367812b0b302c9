"""From files to batches: finding cases, checking them, preparing data sets, writing results."""
