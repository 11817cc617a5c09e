"""The resident agent: relay link, gate, journal, supervisor, heartbeat, identity."""
