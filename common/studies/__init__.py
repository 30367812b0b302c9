"""Settings of inferers on cases, and the tables and pages that compare them."""
