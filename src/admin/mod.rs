//! HTTP: probes and metrics.
