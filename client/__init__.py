"""The investigator's command line: signing, submitting, following, rendering."""
