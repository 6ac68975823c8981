"""When things happen: threads that wait and wake, and the children that do the dangerous work."""
