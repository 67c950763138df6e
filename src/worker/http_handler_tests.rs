//! With real sockets: the server's behaviour is written byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;

use super::*;
use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::failure::Disposition;
use crate::core::headers::Headers;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;

fn ladder() -> Ladder {
    Ladder::builder("billing", "g").source("orders").tiers(["5s"]).build().unwrap()
}

fn delivery(value: Option<&[u8]>) -> Delivery {
    let origin = Coordinates { topic: "orders".into(), partition: 0, offset: 1, timestamp: Timestamp::from_millis(7) };
    Delivery::new(&Envelope::fresh("billing", &origin), &ladder(), None, value.map(Bytes::copy_from_slice), Headers::new())
}

fn config(url: String, timeout: Duration) -> HandlerConfig {
    HandlerConfig { url, timeout, max_in_flight: 8, batch: None, max_unsettled: 500, redeliver_share: 0.5 }
}

fn handler(address: SocketAddr, timeout: Duration) -> HttpHandler {
    let clock = Clock::manual(LocalTime::from_micros(1_700_000_000_000_000));
    HttpHandler::with_clock(&config(format!("http://{address}/orders"), timeout), HttpMetrics::new(&ladder()), clock).unwrap()
}

/// A server that calls this for each connection, with its number from 0.
fn server(mut serve: impl FnMut(usize, TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            serve(number, stream.unwrap());
        }
    });
    address
}

/// Reads one request: its head, and as much body as it announces. `None` if the client has closed.
fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A server that gives every request this answer.
fn answering(answer: impl Into<String>) -> SocketAddr {
    let answer = answer.into();
    server(move |_, mut stream| {
        let answer = answer.clone();
        thread::spawn(move || while read_request(&mut stream).is_some() && stream.write_all(answer.as_bytes()).is_ok() {});
    })
}

const LONG: Duration = Duration::from_secs(20);

async fn verdict_of(answer: &str) -> Verdict {
    handler(answering(answer), LONG).handle(delivery(Some(b"v"))).await
}

#[tokio::test]
async fn answers_mean_what_the_table_says() {
    let retry = Some(Disposition::Retry { after: None });
    for (head, expected) in [
        ("200 OK", None),
        ("204 No Content", None),
        ("302 Found", retry),
        ("400 Bad Request", Some(Disposition::Reject)),
        ("401 Unauthorized", retry),
        ("404 Not Found", retry),
        ("500 No", retry),
        ("500 No\r\nkladder-verdict: done", None),
        ("200 OK\r\nKladder-Verdict: reject", Some(Disposition::Reject)),
        ("429 Slow\r\nretry-after: 7", Some(Disposition::Retry { after: Some(Duration::from_secs(7)) })),
    ] {
        let length = if head.starts_with("204") { "" } else { "content-length: 0\r\n" };
        let verdict = verdict_of(&format!("HTTP/1.1 {head}\r\n{length}\r\n")).await;
        assert_eq!(verdict.err().map(|f| f.disposition()), expected, "{head}");
    }
}

#[tokio::test]
async fn the_body_of_an_error_is_its_message() {
    let long = "é".repeat(5_000);
    let answer = format!("HTTP/1.1 503 No\r\nkladder-error-class: Overload\r\ncontent-length: {}\r\n\r\n{long}", long.len());
    let failure = verdict_of(&answer).await.unwrap_err();
    let error = failure.error();
    assert_eq!((error.class.as_str(), error.status), ("Overload", Some(503)));
    assert_eq!(error.message.as_ref().unwrap().len(), MESSAGE_BYTES);
    assert!(!failure.is_unsent());
}

#[tokio::test]
async fn the_value_arrives_as_it_is() {
    let (sender, receiver) = mpsc::channel();
    let address = server(move |_, mut stream| {
        while let Some(request) = read_request(&mut stream) {
            sender.send(request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let handler = handler(address, LONG);
    for value in [Some(&b"\0\xff\r\n"[..]), Some(b""), None] {
        handler.handle(delivery(value)).await.unwrap();
        let (head, body) = receiver.recv().unwrap();
        assert!(head.starts_with("post /orders http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
        assert!(head.contains("\r\ncontent-length: "), "{head}");
        assert_eq!(head.contains("\r\nkladder-value: null\r\n"), value.is_none(), "{head}");
        assert_eq!(body, value.unwrap_or_default());
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let followed = std::sync::Arc::new(AtomicUsize::new(0));
    let count = followed.clone();
    let other = server(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let answer = format!("HTTP/1.1 307 Go\r\nlocation: http://{other}/\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(verdict_of(&answer).await.unwrap_err().error().class, "HTTP 307");
    assert_eq!(followed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_connection_has_sent_nothing() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = handler(address, LONG).handle(delivery(None)).await.unwrap_err();
    assert!(failure.is_unsent(), "{failure:?}");
    assert_eq!(failure.error().class, "connection refused");
}

#[tokio::test]
async fn an_unknown_host_has_been_sent_nothing() {
    let config = config("http://no-such-host.invalid/".to_owned(), LONG);
    let handler = HttpHandler::new(&config, HttpMetrics::new(&ladder())).unwrap();
    let failure = handler.handle(delivery(None)).await.unwrap_err();
    assert!(failure.is_unsent(), "{failure:?}");
    assert!(matches!(failure.error().class.as_str(), "dns" | "connect timeout"), "{failure:?}");
}

#[cfg(feature = "tls-system")]
#[tokio::test]
async fn a_failed_tls_handshake_has_sent_nothing() {
    let plain = server(|_, mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 This is not TLS\r\n\r\n");
    });
    let config = config(format!("https://{plain}/"), LONG);
    let handler = HttpHandler::new(&config, HttpMetrics::new(&ladder())).unwrap();
    let failure = handler.handle(delivery(None)).await.unwrap_err();
    assert!(failure.is_unsent(), "{failure:?}");
    assert_eq!(failure.error().class, "tls", "{failure:?}");
}

#[tokio::test]
async fn a_connection_that_is_never_made_has_carried_nothing() {
    // Accepted by the kernel, but the TLS greeting is never answered; with plain HTTP only a full backlog would do the
    // same.
    if cfg!(not(feature = "tls-system")) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config(format!("https://{}/", listener.local_addr().unwrap()), Duration::from_millis(400));
    let handler = HttpHandler::new(&config, HttpMetrics::new(&ladder())).unwrap();
    let failure = handler.handle(delivery(None)).await.unwrap_err();
    assert!(failure.is_unsent(), "{failure:?}");
    assert_eq!(failure.error().class, "connect timeout");
}

#[tokio::test]
async fn a_slow_answer_is_a_timeout() {
    let address = server(|_, mut stream| {
        thread::spawn(move || {
            read_request(&mut stream);
            thread::sleep(LONG);
        });
    });
    let failure = handler(address, Duration::from_millis(200)).handle(delivery(None)).await.unwrap_err();
    assert_eq!(failure.error().class, "timeout");
    assert!(!failure.is_unsent());
}

#[tokio::test]
async fn an_answer_of_one_byte_a_second_is_a_timeout() {
    let address = server(|_, mut stream| {
        thread::spawn(move || {
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").unwrap();
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        });
    });
    let failure = handler(address, Duration::from_millis(1_200)).handle(delivery(None)).await.unwrap_err();
    assert_eq!(failure.error().class, "timeout");
}

#[tokio::test]
async fn a_connection_closed_half_way_is_lost() {
    for answer in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let address = server(move |_, mut stream| {
            read_request(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let failure = handler(address, LONG).handle(delivery(None)).await.unwrap_err();
        assert_eq!(failure.error().class, "connection lost", "{answer}: {failure:?}");
        assert!(!failure.is_unsent());
        assert_eq!(failure.disposition(), Disposition::Retry { after: None });
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_unreadable() {
    let failure = verdict_of("SSH-2.0-OpenSSH_9.6\r\n\r\n").await.unwrap_err();
    assert_eq!(failure.error().class, "unreadable answer", "{failure:?}");
}

#[tokio::test]
async fn a_connection_is_used_again_and_given_up_when_the_server_closed_it() {
    // The first connection serves two requests and is closed by the server while idle.
    let (sender, receiver) = mpsc::channel();
    let address = server(move |number, mut stream| {
        let sender = sender.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                if read_request(&mut stream).is_none() {
                    return;
                }
                sender.send(number).unwrap();
                let body = "x".repeat(60_000);
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n{body}").unwrap();
            }
        });
    });
    let handler = handler(address, LONG);
    for expected in [0, 0, 1, 1] {
        handler.handle(delivery(None)).await.unwrap();
        assert_eq!(receiver.recv().unwrap(), expected);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A server that answers the first request of each connection, reads the next one and closes the connection after this time. It returns
/// the connection number of each answered request.
fn hanging_up_after_each_answer(pause: Duration, most: usize) -> (SocketAddr, mpsc::Receiver<usize>) {
    let (sender, receiver) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().take(most).enumerate() {
            let mut stream = stream.unwrap();
            read_request(&mut stream);
            sender.send(number).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            // Too short for the client to notice the close.
            read_request(&mut stream);
            thread::sleep(pause);
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn a_connection_that_was_closed_between_two_answers_is_no_lost_call() {
    let (address, answered) = hanging_up_after_each_answer(Duration::ZERO, usize::MAX);
    let handler = handler(address, LONG);
    for _ in 0..10 {
        handler.handle(delivery(None)).await.unwrap();
    }
    assert_eq!(answered.try_iter().count(), 10);
}

#[tokio::test]
async fn a_connection_lost_after_a_while_is_a_lost_call() {
    let (address, answered) = hanging_up_after_each_answer(Duration::from_millis(300), usize::MAX);
    let config = config(format!("http://{address}/orders"), LONG);
    let handler = HttpHandler::new(&config, HttpMetrics::new(&ladder())).unwrap();
    handler.handle(delivery(None)).await.unwrap();
    let failure = handler.handle(delivery(None)).await.unwrap_err();
    assert_eq!(failure.error().class, "connection lost", "{failure:?}");
    assert_eq!(answered.try_iter().count(), 1);
}

#[tokio::test]
async fn a_connection_in_whose_place_no_other_comes_about_is_a_lost_call() {
    let (address, _answered) = hanging_up_after_each_answer(Duration::ZERO, 1);
    let handler = handler(address, LONG);
    handler.handle(delivery(None)).await.unwrap();
    let failure = handler.handle(delivery(None)).await.unwrap_err();
    assert_eq!(failure.error().class, "connection lost", "{failure:?}");
    assert!(!failure.is_unsent());
}

#[tokio::test]
async fn a_connection_reset_before_it_was_accepted_is_told_from_one_that_was_read() {
    // The kernel accepts for a process that ends without having accepted the connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unaccepted = handler(listener.local_addr().unwrap(), LONG);
    let (verdict, ()) = tokio::join!(unaccepted.handle(delivery(Some(b"order"))), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(listener);
    });
    let failure = verdict.unwrap_err();
    assert!(failure.is_connection_reset() && failure.is_connection_lost(), "{failure:?}");
    let address = server(|_, mut stream| {
        read_request(&mut stream);
    });
    let read = handler(address, LONG).handle(delivery(Some(b"order"))).await.unwrap_err();
    assert!(read.is_connection_lost() && !read.is_connection_reset(), "{read:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_counts_by_its_head() {
    let address = server(|_, mut stream| {
        thread::spawn(move || {
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").unwrap();
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
    });
    handler(address, LONG).handle(delivery(None)).await.unwrap();
}

/// The message for an answer with these head lines.
async fn message_of(head: &'static str) -> String {
    let address = server(move |_, mut stream| {
        thread::spawn(move || {
            read_request(&mut stream);
            stream.write_all(format!("HTTP/1.1 {head}\r\ncontent-length: 4\r\n\r\n\x1f\x08\x02\x03").as_bytes()).unwrap();
        });
    });
    let failure = handler(address, LONG).handle(delivery(None)).await.unwrap_err();
    failure.error().message.clone().unwrap_or_default()
}

#[tokio::test]
async fn where_a_redirect_leads_is_told_without_its_query_and_password() {
    for (head, leads) in [
        ("302 Found\r\nlocation: https://me:pw@login.example/start?token=secret#x", "https://***@login.example/start"),
        ("301 Moved\r\nlocation: /orders/", "/orders/"),
        ("307 Temporary Redirect\r\nlocation: http://h2/orders?a=b", "http://h2/orders"),
    ] {
        let told = message_of(head).await;
        assert!(told.starts_with(&format!("redirected to {leads}, which is not followed")), "{told}");
    }
}

#[tokio::test]
async fn an_answer_in_a_coding_that_was_not_asked_for_is_told_as_that() {
    let told = message_of("503 Busy\r\ncontent-encoding: gzip").await;
    assert!(told.contains("content-encoding is gzip"), "{told}");
    assert_eq!(message_of("503 Busy\r\ncontent-encoding: identity").await, "\x1f\x08\x02\x03".trim());
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let of = |value| retry_after(value, now).map(|d| d.as_secs());
    assert_eq!(of("120"), Some(120));
    assert_eq!(of("0"), Some(0));
    assert_eq!(of("99999999999999999999999"), Some(u64::MAX));
    assert_eq!(of("Tue, 14 Nov 2023 22:14:20 GMT"), Some(60));
    assert_eq!(of("Tue, 14 Nov 2023 22:00:00 GMT"), Some(0));
    assert_eq!(of("soon"), None);
    assert_eq!(of("-1"), None);
    assert_eq!(of(""), None);
}

#[test]
fn urls_that_cannot_be_used_are_refused_without_repeating_them() {
    let error = |url: &str| check(url).unwrap_err();
    assert_eq!(error("127.0.0.1:3000"), HandlerUrlError::NotAUrl);
    assert_eq!(error("/orders"), HandlerUrlError::NotAUrl);
    assert_eq!(error(""), HandlerUrlError::NotAUrl);
    assert_eq!(error("ftp://h/"), HandlerUrlError::Scheme("ftp".into()));
    assert_eq!(error("http://user:secret@h/"), HandlerUrlError::Credentials);
    assert!(check("http://[::1]:3000/a?b=c").is_ok());
    assert_eq!(check("https://h").is_ok(), cfg!(feature = "tls-system"));
}
