"""Fresh students judge a synthetic set, always beside the controls."""
