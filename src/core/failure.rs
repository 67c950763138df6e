//! A handler's verdict on a delivery.

use std::error::Error;
use std::time::Duration;

use crate::core::dispatch::Trouble;

/// The verdict of one delivery.
pub type Verdict = Result<(), Failure>;

const CONNECTION_LOST: &str = "connection lost";
const TIMEOUT: &str = "timeout";

/// What the ladder does with a failed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Retry later, at the earliest after the given time if there is one.
    Retry {
        /// The delay asked for by the handler (`Retry-After`); capped by the ladder's
        /// `max_not_before`.
        after: Option<Duration>,
    },
    /// Dead-letter at once, reason `rejected`.
    Reject,
}

/// A failed delivery: what to do next, and why it failed.
///
/// Any error becomes a retry with `?`. Therefore it does not implement [`Error`] itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    disposition: Disposition,
    error: ErrorInfo,
    reach: Reach,
    repeats: u32,
}

/// How far a delivery got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Answered,
    Unsent,
    Lost,
    Reset,
    TimedOut,
}

/// Why a delivery failed, as stored in the headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorInfo {
    /// The kind of error, for grouping: a type name, an exception class, `HTTP 503`.
    pub class: String,
    /// The message, cut to 1 KiB in the headers.
    pub message: Option<String>,
    /// The HTTP status, if any.
    pub status: Option<u16>,
    /// A stack trace, cut to 8 KiB in the headers.
    pub stack: Option<String>,
}

impl ErrorInfo {
    /// What an earlier error said about the handler.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        match (self.status, self.class.as_str()) {
            (None, CONNECTION_LOST) => Some(Trouble::LostConnections),
            (None, TIMEOUT) => Some(Trouble::Timeouts),
            (status, _) => Trouble::of_status(status),
        }
    }
}

impl Failure {
    /// A failure to be retried.
    #[must_use]
    pub fn retry(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            disposition: Disposition::Retry { after: None },
            error: ErrorInfo { class: class.into(), message: Some(message.into()), ..ErrorInfo::default() },
            reach: Reach::Answered,
            repeats: 0,
        }
    }

    /// A failure with full error information.
    #[must_use]
    pub fn new(disposition: Disposition, error: ErrorInfo) -> Self {
        Self { disposition, error, reach: Reach::Answered, repeats: 0 }
    }

    /// The handler was never reached (refused, DNS, TLS): retried in place, without counting an attempt.
    #[must_use]
    pub fn unsent(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reach: Reach::Unsent, ..Self::retry(class, message) }
    }

    /// The connection was lost after the delivery was sent: it may have been handled or not. It is delivered once more on its own;
    /// if the connection is lost again, an attempt is counted, except while the worker is draining.
    #[must_use]
    pub fn connection_lost(message: impl Into<String>) -> Self {
        Self { reach: Reach::Lost, ..Self::retry(CONNECTION_LOST, message) }
    }

    /// The same if the connection was reset before any part of an answer: the handler may already have been gone, without having read
    /// the delivery.
    #[must_use]
    pub fn connection_reset(message: impl Into<String>) -> Self {
        Self { reach: Reach::Reset, ..Self::retry(CONNECTION_LOST, message) }
    }

    /// There was no complete answer within the timeout.
    #[must_use]
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self { reach: Reach::TimedOut, ..Self::retry(TIMEOUT, message) }
    }

    /// The same failure, dead-lettered at once.
    #[must_use]
    pub fn reject(mut self) -> Self {
        self.disposition = Disposition::Reject;
        self
    }

    /// The same failure, retried at the earliest after `delay`.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.disposition = Disposition::Retry { after: Some(delay) };
        self
    }

    /// The same failure with another class.
    #[must_use]
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.error.class = class.into();
        self
    }

    /// The same failure, of an attempt that was retried in place this often before it counted.
    #[must_use]
    pub(crate) fn repeated(mut self, times: u32) -> Self {
        self.repeats = times;
        self
    }

    /// How often the attempt was retried in place before it counted as failed.
    #[must_use]
    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    /// What to do next.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.disposition
    }

    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> &ErrorInfo {
        &self.error
    }

    /// Whether it indicates trouble with the handler rather than the record: not reached, connection lost, timeout, or status 5xx
    /// (unless that rejects the record), 401 or 403. `None` if the handler works.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        match self.reach {
            Reach::Unsent => Some(Trouble::Unreachable),
            Reach::Lost | Reach::Reset => Some(Trouble::LostConnections),
            Reach::TimedOut => Some(Trouble::Timeouts),
            Reach::Answered if self.disposition == Disposition::Reject => None,
            Reach::Answered => Trouble::of_status(self.error.status),
        }
    }

    /// Whether it indicates that the handler is in trouble rather than the record: see [`Failure::trouble`]. Enough such failures stop
    /// deliveries.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        self.trouble().is_some()
    }

    /// Whether the handler has answered.
    #[must_use]
    pub(crate) fn is_answered(&self) -> bool {
        self.reach == Reach::Answered
    }

    /// Whether the handler was never reached.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.reach == Reach::Unsent
    }

    /// Whether the connection was lost after the delivery was sent.
    #[must_use]
    pub fn is_connection_lost(&self) -> bool {
        matches!(self.reach, Reach::Lost | Reach::Reset)
    }

    /// Whether the connection was reset before any part of an answer.
    #[must_use]
    pub fn is_connection_reset(&self) -> bool {
        self.reach == Reach::Reset
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let path = std::any::type_name::<E>();
        // `my::api::Timeout<T>` is grouped as `Timeout`; the part in angle brackets is not part of the
        // name.
        let base = path.split('<').next().unwrap_or(path);
        let class = base.rsplit("::").next().unwrap_or(base);
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::retry(class, message)
    }
}

/// The kind of verdict, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    /// The record is done.
    Done,
    /// Retry later.
    Retry,
    /// Retry, at the earliest after a delay given by the handler.
    RetryAfter,
    /// Dead-letter at once.
    Reject,
    /// The handler was never reached.
    Unsent,
}

impl VerdictKind {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Done, Self::Retry, Self::RetryAfter, Self::Reject, Self::Unsent];

    /// The kind of a verdict.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let Err(failure) = verdict else { return Self::Done };
        match failure.disposition() {
            _ if failure.is_unsent() => Self::Unsent,
            Disposition::Retry { after: None } => Self::Retry,
            Disposition::Retry { after: Some(_) } => Self::RetryAfter,
            Disposition::Reject => Self::Reject,
        }
    }

    /// The value of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::RetryAfter => "retry_after",
            Self::Reject => "reject",
            Self::Unsent => "unsent",
        }
    }
}

/// Turns an error into a rejection, while `?` would make it a retry.
pub trait OrReject<T> {
    /// Dead-letters at once instead of retrying.
    ///
    /// # Errors
    /// The same error as a rejecting [`Failure`].
    fn or_reject(self) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> OrReject<T> for Result<T, E> {
    fn or_reject(self) -> Result<T, Failure> {
        self.map_err(|error| error.into().reject())
    }
}

/// An error type that decides what happens next.
///
/// With `?` every error is retried, and classified by the name of its type. An error that implements this trait decides
/// for itself:
///
/// ```
/// use std::time::Duration;
///
/// use kladder::{Classify, Failure, OrClassified};
///
/// #[derive(Debug)]
/// enum BankError {
///     UnknownAccount,
///     Closed,
/// }
///
/// impl Classify for BankError {
///     fn classify(&self) -> Failure {
///         match self {
///             Self::UnknownAccount => Failure::retry("UnknownAccount", "no such account").reject(),
///             Self::Closed => Failure::retry("Closed", "the bank is closed").after(Duration::from_secs(60)),
///         }
///     }
/// }
///
/// fn book(account: u32) -> Result<(), BankError> {
///     if account == 0 { Err(BankError::UnknownAccount) } else { Err(BankError::Closed) }
/// }
///
/// fn handle(account: u32) -> Result<(), Failure> {
///     book(account).or_classified()?;
///     Ok(())
/// }
/// # assert!(handle(0).unwrap_err().disposition() == kladder::Disposition::Reject);
/// # assert_eq!(handle(1).unwrap_err().error().class, "Closed");
/// ```
pub trait Classify {
    /// What to do next, and why it failed.
    fn classify(&self) -> Failure;
}

/// Converts an error by its [`Classify`] implementation, while `?` would make it a plain retry.
pub trait OrClassified<T> {
    /// Classifies the error.
    ///
    /// # Errors
    /// The failure from [`Classify::classify`].
    fn or_classified(self) -> Result<T, Failure>;
}

impl<T, E: Classify> OrClassified<T> for Result<T, E> {
    fn or_classified(self) -> Result<T, Failure> {
        self.map_err(|error| error.classify())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<u32, Failure> {
        Ok(text.parse::<u32>()?)
    }

    #[test]
    fn trouble_is_told_from_what_is_the_record_s_own_fault() {
        let answered = |status: u16, disposition: Disposition| {
            Failure::new(disposition, ErrorInfo { status: Some(status), ..ErrorInfo::default() }).is_trouble()
        };
        let retry = Disposition::Retry { after: None };
        for (status, is_trouble) in [(401, true), (403, true), (404, false), (429, false), (500, true), (599, true), (302, false)]
        {
            assert_eq!(answered(status, retry), is_trouble, "{status}");
        }
        assert!(!answered(500, Disposition::Reject));
        assert!(Failure::unsent("c", "m").is_trouble() && Failure::connection_lost("m").is_trouble());
        assert!(Failure::timed_out("m").is_trouble() && !Failure::retry("c", "m").is_trouble());
    }

    #[test]
    fn any_error_becomes_a_retry_that_names_its_type() {
        let failure = parse("x").unwrap_err();
        assert_eq!(failure.disposition(), Disposition::Retry { after: None });
        assert_eq!(failure.error().class, "ParseIntError");
        assert_eq!("x".parse::<u32>().or_reject().unwrap_err().disposition(), Disposition::Reject);
    }

    #[test]
    fn verdicts_are_told_apart() {
        let kind = |verdict: Verdict| VerdictKind::of(&verdict).as_str();
        assert_eq!(kind(Ok(())), "done");
        assert_eq!(kind(Err(Failure::retry("c", "m"))), "retry");
        assert_eq!(kind(Err(Failure::retry("c", "m").after(Duration::from_secs(1)))), "retry_after");
        assert_eq!(kind(Err(Failure::retry("c", "m").reject())), "reject");
        assert_eq!(kind(Err(Failure::unsent("c", "m"))), "unsent");
    }
}
