//! A handler that breaks the rules of HTTP: it answers with any bytes, at any speed, and closes the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::clock;

/// One request, with what the tests need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub partition: i32,
    pub offset: i64,
    pub attempt: u32,
    /// The tier that it names; 0 if none.
    pub tier: u32,
}

/// The response before the connection is closed: pieces, each after a pause.
#[derive(Debug, Clone, Default)]
pub struct Pieces(Vec<(Duration, Vec<u8>)>);

impl Pieces {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    pub fn whole(text: &str) -> Self {
        Self(vec![(Duration::ZERO, text.as_bytes().to_vec())])
    }

    /// One byte at a time.
    pub fn trickle(text: &str, each: Duration) -> Self {
        Self(text.bytes().map(|byte| (each, vec![byte])).collect())
    }

    /// A complete response without a body that announces the end of the connection.
    pub fn answer(status: &str, headers: &str) -> Self {
        Self::whole(&format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"))
    }
}

type Plan = Box<dyn Fn(&Asked) -> Pieces + Send + Sync>;

/// The handler; its threads end with the test's process.
pub struct RudeHandler {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl RudeHandler {
    pub fn start(plan: impl Fn(&Asked) -> Pieces + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let url = format!("http://{}/handle", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, plan): (_, Arc<Plan>) = (Arc::clone(&asked), Arc::new(Box::new(plan)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, plan) = (Arc::clone(&seen), Arc::clone(&plan));
                // An error means that the client closed the connection first, which it may.
                std::thread::spawn(move || serve(stream, &seen, &plan));
            }
        });
        Self { url, asked }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// All requests, in the order of arrival.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic while locked").clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Asked>>, plan: &Plan) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut asked = Asked { partition: -1, offset: -1, attempt: 0, tier: 0 };
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "kladder-partition" => asked.partition = value.parse().unwrap_or(-1),
            "kladder-offset" => asked.offset = value.parse().unwrap_or(-1),
            "kladder-attempt" => asked.attempt = value.parse().unwrap_or(0),
            "kladder-tier" => asked.tier = value.parse().unwrap_or(0),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    seen.lock().expect("no panic while locked").push(asked.clone());
    let mut stream = stream;
    for (pause, bytes) in plan(&asked).0 {
        clock::pause(pause);
        stream.write_all(&bytes)?;
    }
    Ok(())
}
