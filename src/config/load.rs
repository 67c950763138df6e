//! Reads a configuration file and tells all mistakes at once.
