//! How the client meets servers that do not behave: what they say is written out byte by byte. The real one stands in the broker
//! tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::config::RegistryCredentials;

/// A server that says the same to each request, and remembers what it was asked.
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
            // The client may have had enough before the end.
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
    registry(address).schema(7).unwrap_err()
}

#[test]
fn user_and_password_go_along_below_the_base_path() {
    let (address, asked) = server(answer("404 Not Found", "{}"));
    let credentials = Some(RegistryCredentials { username: "me".into(), password: "p:w".into() });
    let registry = Registry::new(&RegistryConfig { url: format!("http://{address}/base/"), credentials }).unwrap();
    assert!(matches!(registry.schema(7), Err(RegistryError::Unknown)));
    let asked = asked.lock().unwrap().join("").to_ascii_lowercase();
    assert!(asked.starts_with("get /base/schemas/ids/7 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: basic bwu6cdp3\r\n"), "{asked}");
    assert!(!format!("{registry:?}").contains("p:w"));
}

#[test]
fn what_is_no_schema_is_told_apart() {
    assert!(matches!(refusal(answer("404 Not Found", "")), RegistryError::Unknown));
    assert!(matches!(refusal(answer("401 Unauthorized", "")), RegistryError::Refused(_)));
    assert!(matches!(refusal(answer("302 Found", "")), RegistryError::Redirected(_)));
    assert!(matches!(refusal(answer("503 Service Unavailable", "")), RegistryError::Status(_)));
    assert!(matches!(refusal(answer("200 OK", "<html>")), RegistryError::Unreadable(_)));
    assert!(matches!(refusal(answer("200 OK", r#"{"schema":"x","schemaType":"XML"}"#)), RegistryError::Unreadable(_)));
    assert!(matches!(refusal(b"HTTP/1.1 ".to_vec()), RegistryError::Away(_)));
    assert!(matches!(refusal(answer("200 OK", &" ".repeat(LARGEST_ANSWER + 1))), RegistryError::Unreadable(_)));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = registry(free).schema(7).unwrap_err();
    assert!(away.is_away() && away.to_string().contains("refused"), "{away}");
}

#[test]
fn references_that_lead_in_a_circle_end() {
    let loops = r#"{"schema":"\"int\"","references":[{"name":"a","subject":"s/ ä","version":1}]}"#;
    let (address, asked) = server(answer("200 OK", loops));
    let schema = registry(address).schema(7).unwrap();
    let referred = Referred { name: "a".into(), text: "\"int\"".into() };
    assert_eq!((schema.references, schema.registered_as), (vec![referred], None));
    assert!(asked.lock().unwrap()[1].starts_with("GET /base/subjects/s%2F%20%C3%A4/versions/1 "));
}
