//! What a handler says of a delivery.

use std::error::Error;
use std::time::Duration;

use crate::core::dispatch::Trouble;

/// The verdict of one delivery.
pub type Verdict = Result<(), Failure>;

const CONNECTION_LOST: &str = "connection lost";
const TIMEOUT: &str = "timeout";

/// What the ladder shall do with a failed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Try again later, at the earliest after the given time where there is one.
    Retry {
        /// What the handler asked for (`Retry-After`); capped by the ladder's `max_not_before`.
        after: Option<Duration>,
    },
    /// Dead-letter at once, reason `rejected`.
    Reject,
}

/// A failed delivery: what shall follow, and why it failed.
///
/// Any error becomes a retry by `?`. It therefore does not implement [`Error`] itself.
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

/// Why a delivery failed, as the headers tell it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorInfo {
    /// What kind of error, for grouping: a type name, an exception class, `HTTP 503`.
    pub class: String,
    /// The message, cut at 1 KiB in the headers.
    pub message: Option<String>,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// A stack trace, cut at 8 KiB in the headers.
    pub stack: Option<String>,
}

impl ErrorInfo {
    /// What an error that was noted before said of the handler.
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
    /// A failure that is tried again.
    #[must_use]
    pub fn retry(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            disposition: Disposition::Retry { after: None },
            error: ErrorInfo { class: class.into(), message: Some(message.into()), ..ErrorInfo::default() },
            reach: Reach::Answered,
            repeats: 0,
        }
    }

    /// A failure with all that is known of it.
    #[must_use]
    pub fn new(disposition: Disposition, error: ErrorInfo) -> Self {
        Self { disposition, error, reach: Reach::Answered, repeats: 0 }
    }

    /// The handler was never reached (refused, DNS, TLS): tried again in place, and no attempt is burned.
    #[must_use]
    pub fn unsent(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reach: Reach::Unsent, ..Self::retry(class, message) }
    }

    /// The connection was lost after the delivery was sent: it may have been handled or not. It is delivered once more on its own;
    /// lost again, an attempt is burned, except while the worker is draining.
    #[must_use]
    pub fn connection_lost(message: impl Into<String>) -> Self {
        Self { reach: Reach::Lost, ..Self::retry(CONNECTION_LOST, message) }
    }

    /// The same where the connection was reset before anything of an answer: the handler may have been gone already, and never have read
    /// the delivery.
    #[must_use]
    pub fn connection_reset(message: impl Into<String>) -> Self {
        Self { reach: Reach::Reset, ..Self::retry(CONNECTION_LOST, message) }
    }

    /// There was no complete answer in time.
    #[must_use]
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self { reach: Reach::TimedOut, ..Self::retry(TIMEOUT, message) }
    }

    /// The same failure, but dead-lettered at once.
    #[must_use]
    pub fn reject(mut self) -> Self {
        self.disposition = Disposition::Reject;
        self
    }

    /// The same failure, tried again at the earliest after `delay`.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.disposition = Disposition::Retry { after: Some(delay) };
        self
    }

    /// The same failure under another class.
    #[must_use]
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.error.class = class.into();
        self
    }

    /// The same failure, of an attempt that was repeated in place so often before it counts.
    #[must_use]
    pub(crate) fn repeated(mut self, times: u32) -> Self {
        self.repeats = times;
        self
    }

    /// How often the attempt was repeated in place before it counted as failed.
    #[must_use]
    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    /// What shall follow.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.disposition
    }

    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> &ErrorInfo {
        &self.error
    }

    /// What it says of the handler rather than of the record: it was not reached, hung up, took too long, or answered 5xx (unless it
    /// rejects the record by that), 401 or 403. `None` where it works.
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

    /// Whether it says that the handler is in trouble rather than the record: see [`Failure::trouble`]. Enough of that holds deliveries.
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

    /// Whether the connection was reset before anything of an answer.
    #[must_use]
    pub fn is_connection_reset(&self) -> bool {
        self.reach == Reach::Reset
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let path = std::any::type_name::<E>();
        // `my::api::Timeout<T>` groups as `Timeout`; what stands in angle brackets is not part of the name.
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

/// What the handler said, as metrics tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    /// The record is done with.
    Done,
    /// Try again later.
    Retry,
    /// Try again, at the earliest after a time that the handler named.
    RetryAfter,
    /// Dead-letter at once.
    Reject,
    /// The handler was never reached.
    Unsent,
}

impl VerdictKind {
    /// All of them, in the order of their numbers.
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

    /// As the label has it.
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

/// Turns an error into a rejection where `?` would make it a retry.
pub trait OrReject<T> {
    /// Dead-letters at once instead of trying again.
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

/// An error type that knows what shall follow from it.
///
/// By `?` every error is tried again, and classified by the name of its type. One that implements this says for itself:
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
    /// What shall follow, and why it failed.
    fn classify(&self) -> Failure;
}

/// Turns an error that classifies itself into what it says, where `?` would make it a plain retry.
pub trait OrClassified<T> {
    /// Asks the error what shall follow.
    ///
    /// # Errors
    /// What [`Classify::classify`] says of it.
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
