//! Every metric, the events that move them, and their export.
