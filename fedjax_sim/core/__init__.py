"""What everything else is written in terms of; imports nothing else of this package."""
