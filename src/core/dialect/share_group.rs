//! The dead-letter queue of a share group (KIP-1191). The record itself is copied only if the group is configured to.

use crate::core::dialect::{Foreign, ForeignHeaders};

pub(super) fn read(headers: &Foreign<'_>) -> ForeignHeaders {
    ForeignHeaders {
        place: headers.decimal_place("__dlq.errors."),
        attempts: headers.text("__dlq.errors.delivery.count").and_then(|text| text.parse().ok()),
        // It gives the reason only in words, and not always.
        class: None,
        message: headers.text("__dlq.errors.message"),
        stack: None,
    }
}
