//! What a panic does to a worker process: it is logged like other errors and never leaves the process half alive.
//!
//! A worker's own thread (see [`crate::worker::supervisor`]) and the runtime's tasks are joined, and their end ends the process in
//! order. The other threads (the watch of holds, the index, the log) are not joined, so a panic there ends the process at once.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

use tokio::runtime::Handle;

use crate::cli::exit::Exit;
use crate::worker::supervisor;

/// Installs the panic hook.
pub fn watch() {
    panic::set_hook(Box::new(|info| {
        log_panic(info);
        let is_awaited = supervisor::is_supervised() || Handle::try_current().is_ok();
        if !is_awaited {
            Exit::Defect.at_once();
        }
    }));
}

/// Not on stderr, as by default: a write there would wait if nobody reads it.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let current = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    tracing::error!(
        thread = current.name().unwrap_or("-"),
        place,
        backtrace,
        "panicked, which is a bug in kladder; please report it: {}",
        said.unwrap_or("no message")
    );
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};
    use std::time::Duration;

    use super::*;
    use crate::telemetry::logging::{self, LogFormat};

    /// The place where this test panics when it runs again as a child process.
    const WHERE: &str = "KLADDER_TEST_PANICS";
    const TEST: &str = "a_panic_where_nobody_waits_ends_the_process_and_is_logged";

    fn again(place: &str) -> Output {
        let own = std::env::current_exe().unwrap();
        Command::new(own)
            .args(["--exact", "--nocapture", &format!("cli::panics::tests::{TEST}")])
            .env(WHERE, place)
            .output()
            .unwrap()
    }

    fn panic_in(place: &str) {
        logging::init(LogFormat::Text).unwrap();
        watch();
        let thread = thread::Builder::new().name("beside".to_owned());
        if place == "thread" {
            thread.spawn(|| panic!("beside the workers")).unwrap();
            // Without the hook, half a process would stay for good.
            thread::sleep(Duration::from_secs(600));
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(runtime.block_on(async { tokio::spawn(async { panic!("in a task") }).await }).is_err());
        Exit::Drift.at_once();
    }

    #[test]
    fn a_panic_where_nobody_waits_ends_the_process_and_is_logged() {
        if let Ok(place) = std::env::var(WHERE) {
            return panic_in(&place);
        }
        for (place, code, said) in [("thread", 101, "beside the workers"), ("task", 3, "in a task")] {
            let output = again(place);
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{log}");
            assert_eq!(log.matches(&format!("please report it: {said}")).count(), 1, "{log}");
            assert!(log.contains("panics.rs:") && !log.contains("panicked at"), "{log}");
        }
    }
}
