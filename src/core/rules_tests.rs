//! Which rule matches which failure, and how rules are printed.

use super::*;

fn error(class: &str, message: &str, status: Option<u16>) -> ErrorInfo {
    ErrorInfo { class: class.into(), message: Some(message.into()), status, stack: None }
}

fn holds(when: &When, error: &ErrorInfo) -> bool {
    let header = |name: &str| (name == "kind").then(|| "refund".to_owned());
    when.holds(&Failed { error, topic: "orders", header: &header })
}

#[test]
fn statuses_are_written_alone_by_their_hundred_or_from_one_to_another() {
    for (text, within, without) in [("404", 404, 405), ("5xx", 599, 499), ("500-504", 502, 505), ("1XX", 101, 200)] {
        let range: StatusRange = text.parse().unwrap();
        assert!(range.contains(within) && !range.contains(without), "{text}");
        assert_eq!(range.to_string(), text.to_lowercase());
    }
    for (text, wrong) in [
        ("", StatusError::Form),
        ("4x", StatusError::Form),
        ("x4xx", StatusError::Form),
        ("4040", StatusError::Form),
        ("-404", StatusError::Form),
        ("0xx", StatusError::Range),
        ("6xx", StatusError::Range),
        ("504-500", StatusError::Range),
        ("204", StatusError::Success),
        ("2xx", StatusError::Success),
        ("100-599", StatusError::Success),
    ] {
        assert_eq!(text.parse::<StatusRange>(), Err(wrong), "{text}");
    }
}

#[test]
fn all_that_is_named_must_hold() {
    let failed = error("com.acme.Timeout", "no answer from bank 7", Some(503));
    let whole = When {
        status: vec!["404".parse().unwrap(), "5xx".parse().unwrap()],
        error_class: Some(Pattern::Prefix("com.acme.".into())),
        message: Some("bank [0-9]+$".parse().unwrap()),
        headers: vec![("kind".into(), Pattern::Exact("refund".into()))],
        topic: Some(Pattern::Regex("^ord".parse().unwrap())),
    };
    assert!(holds(&whole, &failed));
    for part in [
        When { status: vec!["404".parse().unwrap()], ..whole.clone() },
        When { error_class: Some(Pattern::Exact("com.acme".into())), ..whole.clone() },
        When { message: Some("^bank".parse().unwrap()), ..whole.clone() },
        When { headers: vec![("kind".into(), Pattern::Exact("order".into()))], ..whole.clone() },
        When { headers: vec![("other".into(), Pattern::Regex("".parse().unwrap()))], ..whole.clone() },
        When { topic: Some(Pattern::Exact("payments".into())), ..whole.clone() },
    ] {
        assert!(!holds(&part, &failed), "{part}");
    }
    assert!(!holds(&whole, &error("com.acme.Timeout", "no answer from bank 7", None)), "a rule on statuses needs one");
}

#[test]
fn a_rule_is_told_as_it_is_meant() {
    let when = When {
        status: vec!["404".parse().unwrap(), "500-504".parse().unwrap()],
        error_class: Some(Pattern::Prefix("com.acme.".into())),
        message: Some("bank".parse().unwrap()),
        headers: vec![("kind".into(), Pattern::Exact("refund".into()))],
        topic: None,
    };
    let told = "status 404 or 500-504 and error class \"com.acme.…\" and message like /bank/ and header kind \"refund\"";
    assert_eq!(when.to_string(), told);
}
