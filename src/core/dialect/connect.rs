//! Kafka Connect, the dead-letter queue of a sink with `errors.deadletterqueue.context.headers.enable` (KIP-298).

use crate::core::dialect::{Foreign, ForeignHeaders};

pub(super) fn read(headers: &Foreign<'_>) -> ForeignHeaders {
    ForeignHeaders {
        place: headers.decimal_place("__connect.errors."),
        attempts: None,
        class: headers.text("__connect.errors.exception.class.name"),
        message: headers.text("__connect.errors.exception.message"),
        stack: headers.text("__connect.errors.exception.stacktrace"),
    }
}
