//! What a record gives up that is too large for its origin.

use crate::core::envelope::Trim;

/// What a record has given up that was too large for its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    Diagnostics(Trim),
    /// The way back itself.
    Origin,
}

impl GivenUp {
    pub(super) const NOTHING: Self = Self::Diagnostics(Trim::Nothing);

    /// The next step, or `None` when nothing is left.
    pub(super) fn more(self) -> Option<Self> {
        match self {
            Self::Diagnostics(trim) => Some(trim.next().map_or(Self::Origin, Self::Diagnostics)),
            Self::Origin => None,
        }
    }
}
