//! Ports for servers that a test starts; the tests of the command line share it.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port below the kernel's ephemeral port range, so that no connection takes it before its use, and that no other test of this
/// process was given.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 5_000).expect("a small number");
    (0..5_000)
        .map(|_| 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 9_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
