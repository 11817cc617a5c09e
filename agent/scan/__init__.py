"""The file-scanning core: walk, hash, match. It knows neither actions nor the platform."""
