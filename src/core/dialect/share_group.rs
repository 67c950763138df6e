//! The dead-letter queue of a share group (KIP-1191). The record itself is copied only where the group is configured so.

use crate::core::dialect::{Foreign, Told};

pub(super) fn read(headers: &Foreign<'_>) -> Told {
    Told {
        place: headers.decimal_place("__dlq.errors."),
        attempts: headers.text("__dlq.errors.delivery.count").and_then(|text| text.parse().ok()),
        // It says why in words alone, and not always.
        class: None,
        message: headers.text("__dlq.errors.message"),
        stack: None,
    }
}
