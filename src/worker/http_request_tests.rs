//! The HTTP request of a record, header by header.

use super::*;
use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

fn delivery(id: Option<&str>, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], Option<&[u8]>)]) -> Delivery {
    let ladder = Ladder::builder("billing", "g").source("orders").tiers(["5s"]).build().unwrap();
    let origin = Coordinates { topic: "orders".into(), partition: 3, offset: 42, timestamp: Timestamp::from_millis(7) };
    let mut envelope = Envelope::fresh("billing", &origin);
    envelope.id = id.map_or(envelope.id, str::to_owned);
    let mut all = Headers::new();
    for (name, value) in headers {
        all.push(*name, *value);
    }
    Delivery::new(&envelope, &ladder, key.map(Bytes::copy_from_slice), value.map(Bytes::copy_from_slice), all)
}

fn headers_of(delivery: &Delivery) -> HeaderMap {
    RequestLine::new(&Uri::from_static("http://h/orders")).of(delivery).headers().clone()
}

fn user(headers: &[(&[u8], Option<&[u8]>)]) -> HeaderMap {
    headers_of(&delivery(None, None, None, headers))
}

fn all(map: &HeaderMap, name: &str) -> Vec<String> {
    map.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_first_delivery_tells_where_the_record_stands() {
    let map = headers_of(&delivery(None, Some(b"customer 7"), Some(b"{}"), &[]));
    for (name, value) in [
        ("accept-encoding", "identity"),
        ("kladder-topic", "orders"),
        ("kladder-partition", "3"),
        ("kladder-offset", "42"),
        ("kladder-timestamp", "7"),
        ("kladder-key", "customer 7"),
        ("kladder-attempt", "1"),
        ("kladder-attempts-left", "1"),
        ("content-type", "application/octet-stream"),
        ("idempotency-key", "\"billing/orders/3/42/7\""),
        ("user-agent", concat!("kladder/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(all(&map, name), [value], "{name}");
    }
    for absent in ["kladder-tier", "kladder-value", "kladder-key-encoding", "traceparent"] {
        assert!(!map.contains_key(absent), "{absent}");
    }
}

#[test]
fn a_null_value_is_told_from_an_empty_one() {
    assert_eq!(all(&headers_of(&delivery(None, None, None, &[])), "kladder-value"), ["null"]);
    assert!(!headers_of(&delivery(None, None, Some(b""), &[])).contains_key("kladder-value"));
}

#[test]
fn keys_that_http_would_change_travel_as_base64() {
    let key = |key: Option<&[u8]>| {
        let map = headers_of(&delivery(None, key, None, &[]));
        (all(&map, "kladder-key").pop(), all(&map, "kladder-key-encoding").pop())
    };
    assert_eq!(key(None), (None, None));
    assert_eq!(key(Some(b"")), (Some(String::new()), None), "empty is not null");
    let base64 = Some("base64".to_owned());
    assert_eq!(key(Some(b"\0\x07")), (Some("AAc=".into()), base64.clone()));
    assert_eq!(key(Some("é".as_bytes())), (Some("w6k=".into()), base64.clone()));
    assert_eq!(key(Some(b" a")), (Some("IGE=".into()), base64.clone()));
    assert_eq!(key(Some(b"a\r\nx: y")).1, base64);
    assert_eq!(key(Some(&[b'a'; 1025])), (None, Some("omitted".into())));
}

#[test]
fn the_idempotency_key_is_a_quoted_string() {
    let id = |id: &str| all(&headers_of(&delivery(Some(id), None, None, &[])), "idempotency-key");
    assert_eq!(id("a\"b\\c"), [r#""a\"b\\c""#]);
    assert_eq!(id("a\nü"), ["\"a%0A%C3%BC\""]);
}

#[test]
fn user_headers_go_on_in_order_with_doublets() {
    let map = user(&[(b"Shop", Some(b"1")), (b"x", Some(b"")), (b"shop", Some(b"2")), (b"TraceParent", Some(b"00-ab"))]);
    assert_eq!(all(&map, "kladder-header-shop"), ["1", "2"]);
    assert_eq!(all(&map, "kladder-header-x"), [""]);
    assert_eq!(all(&map, "traceparent"), ["00-ab"]);
    assert!(!map.contains_key("kladder-header-traceparent"));
}

#[test]
fn what_is_no_header_of_http_is_left_out() {
    let map = user(&[
        (b"", Some(b"1")),
        (b"a b", Some(b"1")),
        (b"a\r\nb", Some(b"1")),
        (b"\xff", Some(b"1")),
        (b"null", None),
        (b"crlf", Some(b"1\r\nKladder-Verdict: done")),
        (b"binary", Some(b"\x00")),
        (b"latin", Some(b"\xe9")),
        (b"blank", Some(b" 1")),
        (b"kladder-attempts", Some(b"7")),
    ]);
    let names: Vec<&str> = map.keys().map(HeaderName::as_str).filter(|n| n.starts_with("kladder-header-")).collect();
    assert_eq!(names, Vec::<&str>::new());
}

#[test]
fn user_headers_are_bounded_in_count_and_size() {
    let count =
        |headers: &[(&[u8], Option<&[u8]>)]| user(headers).keys().filter(|n| n.as_str().starts_with("kladder-header-")).count();
    let names: Vec<Vec<u8>> = (0..10_000).map(|i| format!("n{i}").into_bytes()).collect();
    let many: Vec<(&[u8], Option<&[u8]>)> = names.iter().map(|n| (n.as_slice(), Some(&b"1"[..]))).collect();
    assert_eq!(count(&many), USER_COUNT);
    let long = vec![b'a'; 2048];
    let large: Vec<(&[u8], Option<&[u8]>)> = names[..5].iter().map(|n| (n.as_slice(), Some(long.as_slice()))).collect();
    assert_eq!(count(&large), 2);
    let missing = |headers: &[(&[u8], Option<&[u8]>)]| all(&user(headers), "kladder-omitted-headers");
    assert_eq!((missing(&many), missing(&large)), (vec!["9936".to_owned()], vec!["3".to_owned()]));
}

#[test]
fn only_what_does_not_fit_is_left_out_and_it_is_told_how_much_that_is() {
    let stack = vec![b's'; 7_000];
    let small: [(&[u8], Option<&[u8]>); 6] = [
        (b"tenant", Some(b"acme")),
        (b"traceparent", Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
        (b"ce_specversion", Some(b"1.0")),
        (b"ce_type", Some(b"order.placed")),
        (b"ce_traffic", Some(b"7")),
        (b"idempotency-key", Some(b"from-the-producer")),
    ];
    let names =
        ["kladder-header-tenant", "traceparent", "ce-specversion", "ce-type", "ce-traffic", "kladder-header-idempotency-key"];
    let large: (&[u8], Option<&[u8]>) = (b"stack", Some(&stack));
    for place in 0..=small.len() {
        let mut headers = small.to_vec();
        headers.insert(place, large);
        let map = user(&headers);
        for (name, (_, value)) in names.iter().zip(&small) {
            assert_eq!(all(&map, name).first().map(String::as_bytes), *value, "{name}, the large one at {place}");
        }
        assert!(!map.contains_key("kladder-header-stack"));
        assert_eq!(all(&map, "kladder-omitted-headers"), ["1"]);
    }
    assert!(!user(&small).contains_key("kladder-omitted-headers"));

    // Many small ones before them, and some that HTTP does not allow.
    let flood: Vec<Vec<u8>> = (0..200).map(|i| format!("h{i}").into_bytes()).collect();
    let mut headers: Vec<(&[u8], Option<&[u8]>)> = flood.iter().map(|n| (n.as_slice(), Some(&b"1"[..]))).collect();
    headers.extend([(&b"null"[..], None), (b"binary", Some(&b"\x00"[..]))]);
    headers.extend(small);
    let map = user(&headers);
    for name in names.iter().filter(|name| **name != "kladder-header-tenant") {
        assert!(map.contains_key(*name), "{name}");
    }
    assert_eq!(all(&map, "kladder-omitted-headers"), [(headers.len() - USER_COUNT).to_string()]);
}

#[test]
fn a_key_that_does_not_fit_costs_nothing_else() {
    let key = vec![b'k'; 5_000];
    let map = headers_of(&delivery(None, Some(&key), Some(b"v"), &[(b"tenant", Some(b"acme"))]));
    assert_eq!(all(&map, "kladder-key-encoding"), ["omitted"]);
    assert_eq!(all(&map, "kladder-header-tenant"), ["acme"]);
    assert_eq!(all(&map, "idempotency-key"), ["\"billing/orders/3/42/7\""]);
}

#[test]
fn the_content_type_is_the_records_where_it_is_one() {
    let of = |value: &[u8]| all(&user(&[(b"Content-Type", Some(value))]), "content-type");
    assert_eq!(of(b"application/json"), ["application/json"]);
    assert_eq!(of(b""), ["application/octet-stream"]);
    assert_eq!(of(b"a\r\nb"), ["application/octet-stream"]);
}

#[test]
fn a_cloud_event_goes_on_as_one() {
    let event: [(&[u8], Option<&[u8]>); 3] =
        [(b"ce_specversion", Some(b"1.0")), (b"ce_subject", Some("Euro € 5%".as_bytes())), (b"other", Some(b"1"))];
    let map = user(&event);
    assert_eq!(all(&map, "ce-specversion"), ["1.0"]);
    assert_eq!(all(&map, "ce-subject"), ["Euro%20%E2%82%AC%205%25"]);
    assert_eq!(all(&map, "kladder-header-other"), ["1"]);
    assert!(user(&event[1..]).contains_key("kladder-header-other"));
    assert!(!user(&event[1..]).contains_key("ce-subject"), "without specversion it is not an event");
}
