//! The filter language: each field, each mistake, and that printed filters can be parsed.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_written_as_in_other_languages_is_told_instead_of_found_nowhere() {
    for (slip, meant) in [
        ("reason=rejected", "`reason:rejected`"),
        ("Reason==rejected", "`reason:rejected`"),
        ("status>=500", "`status:>=500`"),
        ("age>1h", "`age:>1h`"),
        ("class~Timeout", "`class:~Timeout`"),
        ("state!=open", "`-state:open`"),
        ("-class=Timeout", "`class:Timeout`"),
        ("(status<500 OR topic=orders)", "`status:<500`"),
        ("header.region=eu", "`header.region:eu`"),
        ("header.region=\"eu\"", "FIELD:VALUE"),
        ("reason = rejected", "FIELD:VALUE"),
        ("reason =rejected", "FIELD:VALUE"),
        ("class:=Timeout", "FIELD:VALUE"),
        ("status:=500", "FIELD:VALUE"),
        ("status:==500", "FIELD:VALUE"),
    ] {
        let told = Filter::parse(slip).unwrap_err().to_string();
        assert!(told.contains(meant), "{slip}: {told}");
    }
    for text in ["amount=5", "\"reason=rejected\"", "a->b", "x!", "class:a=b", "class:\"=a\"", "class:~=a", "status:>=500"] {
        Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}
use crate::core::dead_letter::LetterState;

fn facts(headers: &[(Vec<u8>, Option<Vec<u8>>)]) -> LetterFields<'_> {
    LetterFields {
        reason: Some("exhausted"),
        class: Some("java.net.SocketTimeoutException"),
        message: Some("no answer from Bank 17, connection refused"),
        topic: Some("orders"),
        key: Some(b"42"),
        group: "ab12",
        job: None,
        headers,
        state: LetterState::Open,
        partition: 3,
        offset: 1_042,
        attempts: Some(4),
        redrives: 0,
        status: Some(503),
        tier: None,
        origin_partition: Some(1),
        origin_offset: Some(7),
        appended: Timestamp::from_millis(1_000_000),
    }
}

fn holds(filter: &str) -> bool {
    let headers =
        [(b"region".to_vec(), Some(b"eu".to_vec())), (b"x y".to_vec(), None), (b"region".to_vec(), Some(b"us".to_vec()))];
    let parsed = Filter::parse(filter).unwrap_or_else(|error| panic!("{error}"));
    parsed.matches(&facts(&headers), Timestamp::from_millis(1_000_000 + 7_200_000))
}

#[test]
fn each_field_is_compared_as_it_is_documented() {
    for filter in [
        "",
        "reason:exhausted",
        "reason:rejected,exhausted",
        "class:~timeout",
        "class:~\"Socket(Time|Write)\"",
        "message:~^no.answer",
        "topic:orders",
        "key:42",
        "key:~^4",
        "header.region:eu",
        "header.region:us",
        "header.\"region\":~U",
        "header.nothing:-",
        "text:\"bank 17\"",
        "refused",
        "\"connection refused\"",
        "java net",
        "42",
        "state:open",
        "state:open,parked",
        "group:ab12",
        "job:-",
        "age:>1h",
        "age:<=2h",
        "since:1970-01-01T00:16:40Z",
        "before:1970-01-02",
        "id:3/1042",
        "id:0/1,3/1042",
        "partition:3 offset:>1000",
        "attempts:4 attempts:>=4 attempts:<=4 attempts:>3 attempts:<5",
        "redrives:0",
        "status:>=500",
        "origin.partition:1 origin.offset:7",
        "reason:rejected OR topic:orders",
        "NOT reason:rejected",
        "-reason:rejected",
        "(reason:rejected OR status:503) topic:orders",
        "NOT (reason:rejected topic:orders)",
        "reason:exhausted AND topic:orders",
        "reason:rejected OR topic:orders AND key:42",
        "NOT NOT key:42",
        "class:~(socket|pipe)timeout",
        "(class:~java\\.net (message:~bank))",
        "message:~bank.{1,3}7",
        "class:~a|timeout",
        "-tier:>=0",
    ] {
        assert!(holds(filter), "{filter}");
    }
    for filter in [
        "reason:rejected",
        "class:SocketTimeoutException",
        "class:-",
        "topic:~^rders",
        "key:-",
        "header.region:EU",
        "header.region:-",
        "header.\"x y\":1",
        "text:\"17 bank\"",
        "text:\"bank connection\"",
        "state:discarded",
        "job:x",
        "age:>3h",
        "age:<1h",
        "tier:1",
        "tier:<5",
        "before:1970-01-01",
        "id:3/1043",
        "reason:exhausted topic:other",
        "reason:rejected OR topic:other",
        "NOT topic:orders",
        "reason:exhausted AND topic:other",
        "(message:~\\()",
        "class:\"-\"",
    ] {
        assert!(!holds(filter), "{filter}");
    }
}

#[test]
fn mistakes_are_told_with_their_column() {
    for (filter, column, message) in [
        ("reason:rejected claas:x", 17, "did you mean `class`?"),
        ("reason:rejectd", 8, "did you mean `rejected`?"),
        ("state:done", 7, "open, redriven"),
        ("(topic:a", 1, "not closed"),
        ("topic:a)", 8, "has no opening one"),
        ("topic:", 7, "a value is missing"),
        ("topic:\"a", 7, "quote is not closed"),
        ("class:~(", 8, "unclosed group"),
        ("class:~ab(c", 10, "unclosed group"),
        ("class:~\"a\\\"(\"", 8, "unclosed group"),
        ("class:~\\p{Nonsense}", 8, "invalid regular expression"),
        ("reason:rejected,exhaustd", 17, "did you mean `exhausted`?"),
        ("class:a,-", 9, "cannot be combined"),
        ("class:a,~b", 9, "cannot be combined"),
        ("class:a,", 9, "a value is missing"),
        ("text:~a", 6, "use expressions with message:"),
        ("text:a,b", 8, "text:a OR text:b"),
        ("status:>=400,500", 14, "one value"),
        ("since:>2026-01-31", 7, "no comparison sign"),
        ("a AND", 3, "next to AND"),
        ("AND a", 1, "next to AND"),
        ("a AND AND b", 7, "next to AND"),
        ("a AND OR b", 3, "next to AND"),
        ("(a OR)", 6, "next to OR"),
        ("NOT OR a", 5, "next to OR"),
        ("(a NOT)", 4, "after NOT"),
        ("attempts:many", 10, "whole number"),
        ("age:1h", 5, "age:<1h"),
        ("age:>soon", 6, "30m"),
        ("since:yesterday", 7, "2026-01-31"),
        ("id:17", 4, "PARTITION/OFFSET"),
        ("topic:>a", 7, "cannot be compared"),
        ("a OR", 5, "next to OR"),
        ("OR a", 1, "next to OR"),
        ("topic:a NOT", 9, "after NOT"),
        ("ü claas:x", 3, "did you mean"),
        ("()", 1, "nothing between"),
        ("header:x", 1, "header.NAME:VALUE"),
        ("!!", 1, "no word"),
    ] {
        let error = Filter::parse(filter).unwrap_err();
        assert_eq!(error.column, column, "{filter}: {error}");
        assert!(error.to_string().contains(message), "{filter}: {error}");
    }
}

#[test]
fn a_mistake_is_pointed_at() {
    let told = Filter::parse("reason:rejected claas:Timeout").unwrap_err().to_string();
    assert_eq!(told, "no field `claas`, did you mean `class`?\n  reason:rejected claas:Timeout\n                  ^");
}

#[test]
fn every_example_of_the_grammar_is_a_filter() {
    let examples: Vec<&str> = GRAMMAR.lines().rev().take(3).collect();
    for example in examples {
        assert!(Filter::parse(example.trim()).is_ok_and(|filter| filter != Filter::All), "{example}");
    }
}

#[test]
fn hostile_depth_is_refused() {
    for text in ["(".repeat(100_000), "-".repeat(100_000) + "a", "NOT ".repeat(100_000) + "a"] {
        assert!(Filter::parse(&text).is_err());
    }
}

#[test]
fn the_deepest_filters_are_read_again() {
    for text in ["-".repeat(50) + "a", "NOT ".repeat(5) + &"(a OR b -".repeat(15) + "c" + &")".repeat(15)] {
        let filter = Filter::parse(&text).unwrap();
        assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter, "{filter}");
    }
}

#[test]
fn moments_are_shown_to_the_millisecond() {
    let shown = |text: &str| Filter::parse(text).unwrap().to_string();
    assert_eq!(shown("since:2026-01-31T12:00:00.25Z"), "since:2026-01-31T12:00:00.250Z");
    assert_eq!(shown("before:2026-01-31"), "before:2026-01-31T00:00:00Z");
}

#[test]
fn words_of_every_letter_are_read_again() {
    for c in (char::MIN..=char::MAX).filter(|c| c.is_alphanumeric()) {
        let filter = Filter::parse(&format!("text:\"{c} x{c}y\"")).unwrap();
        assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter, "{c}");
    }
}

fn a_match() -> impl Strategy<Value = Match> {
    prop_oneof![
        prop::collection::vec("[ -~üß\n]{1,8}|\\PC{0,8}", 1..3).prop_map(Match::Any),
        "[a-z(|)\" ]{1,8}|(\\(\\?i\\)){1,2}x\\\\[(.d]|"
            .prop_filter_map("no expression", |text| format!("(?i){text}").parse().ok().map(Match::Like)),
        Just(Match::Absent),
    ]
}

fn a_term() -> impl Strategy<Value = Term> {
    let compare = prop::sample::select(vec![Compare::Equal, Compare::Less, Compare::AtMost, Compare::More, Compare::AtLeast]);
    let fields: Vec<NumberField> = NumberField::NAMES.iter().map(|(_, field)| *field).collect();
    prop_oneof![
        a_match().prop_map(Term::Class),
        a_match().prop_map(Term::Key),
        ("[ -~]{0,8}|\\PC{0,4}", a_match()).prop_map(|(name, by)| Term::Header(name, by)),
        prop::collection::vec("[a-z0-9]{1,5}", 1..4).prop_map(Term::Text),
        prop::collection::vec(prop::sample::select(LetterState::ALL.to_vec()), 1..3).prop_map(Term::State),
        (prop::sample::select(fields), compare.clone(), any::<i64>()).prop_map(|(f, c, n)| Term::Number(f, c, n)),
        (compare, 0_u64..3_000_000_000).prop_map(|(c, millis)| {
            Term::Age(if c == Compare::Equal { Compare::More } else { c }, Duration::from_millis(millis))
        }),
        (0..END_OF_CALENDAR.as_millis()).prop_map(|millis| Term::Since(Timestamp::from_millis(millis))),
        (0_i64..4_000_000_000).prop_map(|seconds| Term::Before(Timestamp::from_millis(seconds * 1_000))),
        prop::collection::vec((0..i32::MAX, 0..i64::MAX), 1..3)
            .prop_map(|all| Term::Id(all.into_iter().map(|(partition, offset)| LetterPlace { partition, offset }).collect())),
    ]
}

fn a_filter() -> impl Strategy<Value = Filter> {
    let leaf = a_term().prop_map(Filter::Term);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_shown_is_read_again(filter in a_filter()) {
        let shown = filter.to_string();
        prop_assert_eq!(Filter::parse(&shown).map_err(|error| error.to_string()), Ok(filter), "{}", shown);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "[ -~ü\"\\\\():,~<>-]{0,40}|.{0,30}|((AND|OR|NOT|class:|text:~|\\(|\\)|-|a|\"| ){1,2} ?){0,12}") {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{}", error);
        }
    }
}
