//! Steps of a record that its origin refuses.

use crate::core::envelope::Trim;

/// What was dropped from a record that its origin refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DroppedParts {
    /// Diagnostics: it was too large.
    Diagnostics(Trim),
    /// The way back to the origin: it was too large even without diagnostics.
    Origin,
    /// The way back to the origin: the broker refused it permanently, with this message.
    Refused(&'static str),
}

impl DroppedParts {
    pub(super) const NOTHING: Self = Self::Diagnostics(Trim::Nothing);

    /// The next step, or `None` if there is none.
    pub(super) fn more(self) -> Option<Self> {
        match self {
            Self::Diagnostics(trim) => Some(trim.next().map_or(Self::Origin, Self::Diagnostics)),
            Self::Origin | Self::Refused(_) => None,
        }
    }
}
