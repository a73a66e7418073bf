"""What happens with an event that triggers integrations: dispatch, lanes, courier, settling."""
