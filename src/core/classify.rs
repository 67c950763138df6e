//! The meaning of HTTP answers: the default classification for every handler.

use std::time::Duration;

use crate::core::failure::{Disposition, ErrorInfo, Failure, Verdict};

/// A handler's answer over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Kladder-Verdict`.
    pub verdict: Option<String>,
    /// The value of `Kladder-Error-Class`.
    pub error_class: Option<String>,
    /// The value of `Retry-After`, resolved to a time from now.
    pub retry_after: Option<Duration>,
    /// The beginning of the body, as the error message.
    pub message: Option<String>,
}

/// The verdict of an answer, and whether it was unexpected (1xx, 3xx, an unknown `Kladder-Verdict`).
pub fn classify_answer(answer: &HttpAnswer) -> (Verdict, Oddity) {
    let retry = Disposition::Retry { after: answer.retry_after };
    let told = answer.verdict.as_deref().map(|v| v.trim().to_ascii_lowercase());
    let (disposition, oddity) = match told.as_deref() {
        Some("done") => return (Ok(()), Oddity::None),
        Some("retry") => (Some(retry), Oddity::None),
        Some("reject") => (Some(Disposition::Reject), Oddity::None),
        Some(_) => (by_status(answer.status, retry), Oddity::UnknownVerdict),
        None if matches!(answer.status, 100..=199 | 300..=399 | 600..) => (Some(retry), Oddity::Status),
        None => (by_status(answer.status, retry), Oddity::None),
    };
    let Some(disposition) = disposition else { return (Ok(()), oddity) };
    let class = answer.error_class.clone().unwrap_or_else(|| format!("HTTP {}", answer.status));
    let error = ErrorInfo { class, message: answer.message.clone(), status: Some(answer.status), stack: None };
    (Err(Failure::new(disposition, error)), oddity)
}

/// What was unexpected about an answer; each case is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// Nothing.
    None,
    /// A status that a handler should not answer with.
    Status,
    /// A `Kladder-Verdict` other than done, retry, reject; the status decides.
    UnknownVerdict,
}

/// `None` means done. 401 and 403 are retried: they mean that the handler cannot work now, not that the record is
/// bad.
fn by_status(status: u16, retry: Disposition) -> Option<Disposition> {
    match status {
        200..=299 => None,
        401 | 403 | 404 | 408 | 409 | 425 | 429 => Some(retry),
        400..=499 => Some(Disposition::Reject),
        _ => Some(retry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(status: u16, verdict: Option<&str>) -> &'static str {
        let answer = HttpAnswer { status, verdict: verdict.map(str::to_owned), ..HttpAnswer::default() };
        match classify_answer(&answer).0 {
            Ok(()) => "done",
            Err(f) if f.disposition() == Disposition::Reject => "reject",
            Err(_) => "retry",
        }
    }

    #[test]
    fn the_table() {
        for (status, expected) in [
            (200, "done"),
            (204, "done"),
            (101, "retry"),
            (302, "retry"),
            (400, "reject"),
            (401, "retry"),
            (403, "retry"),
            (404, "retry"),
            (408, "retry"),
            (409, "retry"),
            (410, "reject"),
            (422, "reject"),
            (425, "retry"),
            (429, "retry"),
            (500, "retry"),
            (503, "retry"),
            (999, "retry"),
        ] {
            assert_eq!(says(status, None), expected, "{status}");
        }
    }

    #[test]
    fn the_verdict_header_counts_on_any_status() {
        assert_eq!(says(500, Some("done")), "done");
        assert_eq!(says(200, Some("Retry")), "retry");
        assert_eq!(says(200, Some("reject")), "reject");
        assert_eq!(says(200, Some("perhaps")), "done");
    }

    #[test]
    fn the_class_is_refined_by_its_header() {
        let answer = HttpAnswer { status: 503, error_class: Some("Overload".into()), ..HttpAnswer::default() };
        assert_eq!(classify_answer(&answer).0.unwrap_err().error().class, "Overload");
    }
}
