"""What protects against files and names from elsewhere: limits, checked reading, escaped printing."""
