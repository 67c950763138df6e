//! The workers: mover, deliverer, handlers, and what keeps them running.
