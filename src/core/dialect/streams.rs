//! Kafka Streams, the dead-letter queue of its exception handlers (KIP-1034).

use crate::core::dialect::{Foreign, ForeignHeaders};

pub(super) fn read(headers: &Foreign<'_>) -> ForeignHeaders {
    ForeignHeaders {
        place: headers.decimal_place("__streams.errors."),
        attempts: None,
        class: headers.text("__streams.errors.exception"),
        message: headers.text("__streams.errors.message"),
        stack: headers.text("__streams.errors.stacktrace"),
    }
}
