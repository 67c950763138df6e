//! Replaces `transform` in a build without the feature `jq`: every program is refused, with the remedy.

use std::convert::Infallible;

use serde_json::Value;
use thiserror::Error;

/// A compiled program.
pub struct Transform(Infallible);

/// Why a value cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this kladder was built without support for jq programs: build it with `--features jq`")]
pub struct TransformError;

impl Transform {
    /// Reads a program.
    ///
    /// # Errors
    /// Always.
    pub fn compile(_program: &str) -> Result<Self, TransformError> {
        Err(TransformError)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        match self.0 {}
    }

    /// Changes a value.
    ///
    /// # Errors
    /// Never, since there is no program.
    pub fn apply(&self, _value: Option<&[u8]>, _letter: &Value) -> Result<Vec<u8>, TransformError> {
        match self.0 {}
    }
}
