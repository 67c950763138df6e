//! The roles of a process.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Moves due records from the tiers to redeliver.
    Mover,
    /// Consumes source and redeliver, and calls the handler (push).
    Deliverer,
    /// Consumes the inbox (relay).
    Router,
    /// Keeps the index of dead letters.
    Index,
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a role: write mover, deliverer, router or index")]
pub struct RoleError(String);

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mover, Self::Deliverer, Self::Router, Self::Index];

    /// Its name in the configuration, on the command line, and in metrics, logs and transactional ids.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mover => "mover",
            Self::Deliverer => "deliverer",
            Self::Router => "router",
            Self::Index => "index",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(name: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == name).ok_or_else(|| RoleError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!(
            "Mover".parse::<Role>().unwrap_err().to_string(),
            "`Mover` is not a role: write mover, deliverer, router or index"
        );
    }
}
