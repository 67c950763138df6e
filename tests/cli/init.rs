//! `kladder init`

use crate::support::{kladder, kladder_with};

#[test]
fn what_it_prints_passes_check() {
    for args in [
        &["init"][..],
        &["init", "--mode", "relay"],
        &["init", "--source", "a.b,c", "--group", "My Group", "--tiers", "250ms,90s", "--url", "http://h:1/x?a=\"b\""],
        &["init", "--ladder", "pay", "--brokers", "${BROKERS:-b:9092}", "--group", "say \"hi\" \\ ü"],
    ] {
        if args.iter().any(|arg| arg.contains("a=\"b\"")) {
            // A quote is not part of a URL, and must not end the string either.
            assert_eq!(kladder(args).code, 2);
            continue;
        }
        let ran = kladder(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        let checked = kladder_with(&["check", "-c", "-"], &ran.stdout, &[]);
        assert_eq!(checked.code, 0, "{args:?}\n{}\n{}", ran.stdout, checked.stderr);
    }
}

#[test]
fn the_starting_file_is_commented() {
    insta::assert_snapshot!("push", kladder(&["init"]).stdout);
    insta::assert_snapshot!(
        "relay",
        kladder(&["init", "--mode", "relay", "--source", "shipments", "--group", "shipping"]).stdout
    );
}

#[test]
fn mistaken_options_are_told_before_anything_is_printed() {
    let ran = kladder(&["init", "--ladder", "My Ladder", "--tiers", "1m,5s", "--url", "localhost"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(ran.stderr);
}
