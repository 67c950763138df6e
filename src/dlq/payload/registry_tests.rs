//! The client with servers that misbehave: their answers are written byte by byte. The real registry is in the broker tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::config::RegistryCredentials;

/// A server that gives the same answer to each request, and records the requests.
pub(in crate::dlq::payload) fn server(answer: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            heard.lock().unwrap().push(String::from_utf8(head).unwrap());
            // The client may close the connection before the end.
            let _ = stream.write_all(&answer);
        }
    });
    (address, asked)
}

pub(in crate::dlq::payload) fn registry(address: SocketAddr) -> Registry {
    Registry::new(&RegistryConfig { url: format!("http://{address}/base/"), credentials: None }).unwrap()
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn refusal(answer: Vec<u8>) -> RegistryError {
    let (address, _) = server(answer);
    registry(address).schema(SchemaName::Id(7)).unwrap_err()
}

#[test]
fn user_and_password_go_along_below_the_base_path() {
    let (address, asked) = server(answer("404 Not Found", "{}"));
    let credentials = Some(RegistryCredentials { username: "me".into(), password: "p:w".into() });
    let registry = Registry::new(&RegistryConfig { url: format!("http://{address}/base/"), credentials }).unwrap();
    assert!(matches!(registry.schema(SchemaName::Id(7)), Err(RegistryError::Unknown)));
    let asked = asked.lock().unwrap().join("").to_ascii_lowercase();
    assert!(asked.starts_with("get /base/schemas/ids/7 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: basic bwu6cdp3\r\n"), "{asked}");
    assert!(!format!("{registry:?}").contains("p:w"));
}

#[test]
fn what_is_no_schema_is_told_apart() {
    assert!(matches!(refusal(answer("404 Not Found", "")), RegistryError::Unknown));
    assert!(matches!(refusal(answer("401 Unauthorized", "")), RegistryError::Refused(_)));
    let moved = b"HTTP/1.1 301 Moved\r\nlocation: https://u:pw@r.example/base/?token=x\r\ncontent-length: 0\r\n\r\n".to_vec();
    let moved = refusal(moved);
    assert!(matches!(moved, RegistryError::Redirected { .. }));
    assert!(moved.to_string().contains("redirects to https://***@r.example/base/ (301"), "{moved}");
    assert!(matches!(refusal(answer("503 Service Unavailable", "")), RegistryError::Status(_)));
    assert!(matches!(refusal(answer("200 OK", "<html>")), RegistryError::Unreadable(_)));
    assert!(matches!(refusal(answer("200 OK", r#"{"schema":"x","schemaType":"XML"}"#)), RegistryError::Unreadable(_)));
    assert!(matches!(refusal(b"HTTP/1.1 ".to_vec()), RegistryError::Away(_)));
    assert!(matches!(refusal(answer("200 OK", &" ".repeat(LARGEST_ANSWER + 1))), RegistryError::Unreadable(_)));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = registry(free).schema(SchemaName::Id(7)).unwrap_err();
    assert!(away.is_away() && away.to_string().contains("refused"), "{away}");
}

#[test]
fn references_that_lead_in_a_circle_end() {
    let loops = r#"{"schema":"\"int\"","references":[{"name":"a","subject":"s/ ä","version":1}]}"#;
    let (address, asked) = server(answer("200 OK", loops));
    let schema = registry(address).schema(SchemaName::Id(7)).unwrap();
    let referred = Referred { name: "a".into(), text: "\"int\"".into() };
    assert_eq!((schema.references, schema.subject_version), (vec![referred], None));
    assert!(asked.lock().unwrap()[1].starts_with("GET /base/subjects/s%2F%20%C3%A4/versions/1 "));
}

#[test]
fn a_schema_named_by_its_guid_is_asked_for_by_that_alone() {
    let (address, asked) = server(answer("200 OK", "{\"schema\":\"\\\"int\\\"\",\"schemaType\":\"AVRO\"}"));
    let guid: [u8; 16] = std::array::from_fn(|i| u8::try_from(i * 16 + 1).unwrap());
    let schema = registry(address).schema(SchemaName::Guid(guid)).unwrap();
    assert_eq!((schema.text.as_str(), schema.subject_version), ("\"int\"", None));
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("GET /base/schemas/guids/01112131-4151-6171-8191-a1b1c1d1e1f1 "), "{asked:?}");
}
