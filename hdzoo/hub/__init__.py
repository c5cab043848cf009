"""The Hub, and the folders that come from it: finding, checking, fetching and sending models."""
