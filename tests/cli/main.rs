//! The command line as a user meets it: what it prints, where, and with which exit code.

#![expect(clippy::unwrap_used, reason = "a test that cannot begin fails where it stands")]

mod check;
mod explain;
mod generate;
mod init;
mod support;
