//! A handler that misbehaves at the connection level: it drops connections, leaves calls unanswered, closes silently, dies and comes back.
//!
//! Also the mixes of healthy and failing records that the tests and the starvation benchmark share.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::clock;

/// Partitions of the source in each mix.
pub const PARTITIONS: i32 = 6;

/// The records written before the measurement, so that all partitions have some.
pub const FIRST: Range<usize> = 1..7;

/// From this number on, records belong to the failing run.
pub const OF_THE_RUN: usize = 1_000_000;

/// The partition of a record: all in turn, and a single one for those of the run.
pub fn partition_of(number: usize) -> i32 {
    if number >= OF_THE_RUN { 2 } else { i32::try_from(number).expect("few records") % PARTITIONS }
}

/// The handler's final action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It answers with this status.
    Answer(u16),
    /// It answers 200 and closes the connection without announcing it.
    AnswerAndClose,
    /// It closes the connection without an answer.
    Drop,
    /// It never answers.
    Hang,
    /// All its connections are closed, and nothing listens for this long.
    Die(Duration),
}

/// What the handler does, and its working time before.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    pub say: Say,
    pub after: Duration,
}

/// How the handler treats the record with this number.
type Plan = fn(usize) -> Reply;

/// A mix of records, and the expectations for its healthy ones.
pub struct Mix {
    pub name: &'static str,
    pub per_second: usize,
    pub plan: Plan,
    /// This many records, of one partition, are written at once after a third of the time.
    pub run: usize,
    /// After this many seconds the handler is down for this many.
    pub away: Option<(u64, u64)>,
    /// Whether it continues like that, after as many seconds again.
    pub over_and_over: bool,
    /// The longest time, in seconds, in which none arrives.
    pub longest_gap: f64,
    /// The smallest share of them that has arrived shortly after the last was written.
    pub least_share: f64,
}

const fn reply(say: Say, millis: u64) -> Reply {
    Reply { say, after: Duration::from_millis(millis) }
}

const NO_RUN: Mix = Mix {
    name: "",
    per_second: 50,
    plan: |_| reply(Say::Answer(200), 5),
    run: 0,
    away: None,
    over_and_over: false,
    longest_gap: 2.0,
    least_share: 0.95,
};

pub const MIXES: &[Mix] = &[
    Mix {
        name: "outage",
        per_second: 30,
        plan: |number| reply(Say::Answer(if number % 3 == 0 { 503 } else { 200 }), 5),
        away: Some((10, 10)),
        // The outage, `open_for`, and a second.
        longest_gap: 21.0,
        ..NO_RUN
    },
    Mix {
        name: "run-failing",
        plan: |number| reply(Say::Answer(if number >= OF_THE_RUN { 500 } else { 200 }), 5),
        run: 300,
        longest_gap: 1.0,
        ..NO_RUN
    },
    Mix {
        name: "run-hanging",
        plan: |number| if number >= OF_THE_RUN { reply(Say::Hang, 0) } else { reply(Say::Answer(200), 5) },
        run: 150,
        // The first timeout.
        longest_gap: 6.0,
        least_share: 0.9,
        ..NO_RUN
    },
    Mix {
        name: "run-dropping",
        plan: |number| if number >= OF_THE_RUN { reply(Say::Drop, 5) } else { reply(Say::Answer(200), 5) },
        run: 30,
        longest_gap: 1.0,
        ..NO_RUN
    },
    Mix {
        name: "dropping",
        per_second: 100,
        plan: |number| reply(if number % 100 == 7 { Say::Drop } else { Say::Answer(200) }, 5),
        ..NO_RUN
    },
    Mix {
        name: "dropping-slowly",
        per_second: 40,
        plan: |number| reply(if number % 100 == 7 { Say::Drop } else { Say::Answer(200) }, 1_000),
        longest_gap: 3.0,
        least_share: 0.9,
        ..NO_RUN
    },
    Mix {
        name: "dropping-hanging",
        per_second: 100,
        plan: |number| match number % 100 {
            7 => reply(Say::Drop, 5),
            57 => reply(Say::Hang, 0),
            _ => reply(Say::Answer(200), 5),
        },
        least_share: 0.8,
        ..NO_RUN
    },
    Mix {
        name: "hanging",
        plan: |number| if number % 100 == 7 { reply(Say::Hang, 0) } else { reply(Say::Answer(200), 5) },
        ..NO_RUN
    },
    Mix {
        name: "deadly",
        plan: |number| reply(if number % 500 == 250 { Say::Die(Duration::from_millis(500)) } else { Say::Answer(200) }, 200),
        longest_gap: 3.0,
        least_share: 0.8,
        ..NO_RUN
    },
    Mix {
        name: "restart",
        per_second: 20,
        plan: |_| reply(Say::Answer(200), 1_000),
        away: Some((10, 2)),
        longest_gap: 5.0,
        least_share: 0.9,
        ..NO_RUN
    },
    Mix {
        name: "restart-slow",
        per_second: 10,
        plan: |_| reply(Say::Answer(200), 3_000),
        away: Some((10, 2)),
        longest_gap: 7.0,
        least_share: 0.85,
        ..NO_RUN
    },
    Mix {
        name: "restarts",
        plan: |_| reply(Say::Answer(200), 500),
        away: Some((18, 2)),
        over_and_over: true,
        longest_gap: 4.5,
        least_share: 0.9,
        ..NO_RUN
    },
    Mix { name: "closing", per_second: 60, plan: |_| reply(Say::AnswerAndClose, 500), ..NO_RUN },
];

impl Mix {
    pub fn named(name: &str) -> &'static Self {
        MIXES.iter().find(|mix| mix.name == name).expect("a mix of that name")
    }

    /// Writes the records of the mix at their pace for this many seconds, after the first ones, with the handler down when planned;
    /// returns the number after the last one.
    pub fn play(&self, handler: &Misbehaving, seconds: usize, mut write: impl FnMut(Range<usize>)) -> usize {
        const TICKS_PER_SECOND: usize = 20;
        const TICK: Duration = Duration::from_millis(50);
        let began = clock::now();
        let mut written = FIRST.end;
        let mut next_away = self.away.map(|(after, _)| Duration::from_secs(after));
        let mut due = began;
        for tick in 0..seconds * TICKS_PER_SECOND {
            let upto = FIRST.end + self.per_second * (tick + 1) / TICKS_PER_SECOND;
            write(written..upto);
            written = upto;
            if self.run > 0 && tick == seconds * TICKS_PER_SECOND / 3 {
                write(OF_THE_RUN..OF_THE_RUN + self.run);
            }
            if let (Some(at), Some((after, time))) = (next_away, self.away)
                && began.elapsed() >= at
            {
                handler.die(Duration::from_secs(time));
                next_away = self.over_and_over.then(|| at + Duration::from_secs(after + time));
            }
            due += TICK;
            std::thread::sleep(due.saturating_duration_since(clock::now()));
        }
        written
    }

    /// Whether a record with this number is answered with success.
    pub fn is_healthy(&self, number: usize) -> bool {
        matches!((self.plan)(number).say, Say::Answer(200) | Say::AnswerAndClose)
    }
}

/// A call that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub at: Instant,
    pub number: usize,
    pub attempt: u32,
    pub partition: i32,
    pub is_good: bool,
}

struct Shared {
    plan: Plan,
    answered: Mutex<Vec<Answered>>,
    /// The handler's incarnation, or that it is dead.
    life: watch::Sender<Option<u64>>,
}

/// The handler; stopped when dropped.
pub struct Misbehaving {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    /// Reserves the port while nothing listens.
    _port: TcpSocket,
}

impl Misbehaving {
    pub fn start(plan: Plan) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let bound = |address: SocketAddr| {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option");
            socket.bind(address).expect("an address of its own");
            socket
        };
        let port = bound((Ipv4Addr::LOCALHOST, 0).into());
        let address = port.local_addr().expect("an address");
        let shared = Arc::new(Shared { plan, answered: Mutex::default(), life: watch::Sender::new(Some(1)) });
        let serving = shared.clone();
        runtime.spawn(async move {
            let mut life = serving.life.subscribe();
            loop {
                let Ok(alive) = life.wait_for(Option::is_some).await.map(|alive| *alive) else { return };
                let listener = bound(address).listen(1_024).expect("a listener");
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            if let Ok((stream, _)) = accepted {
                                tokio::spawn(serve(serving.clone(), stream, alive));
                            }
                        }
                        _ = life.wait_for(|now| *now != alive) => break,
                    }
                }
            }
        });
        Self { address, shared, runtime, _port: port }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Is down for this long from now on.
    pub fn die(&self, time: Duration) {
        let _inside = self.runtime.enter();
        die(&self.shared, time);
    }

    /// Is back at once, however long it was to be down.
    pub fn come_back(&self) {
        self.shared.life.send_if_modified(|life| {
            let is_dead = life.is_none();
            *life = life.or(Some(u64::MAX));
            is_dead
        });
    }

    pub fn answered(&self) -> Vec<Answered> {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn die(shared: &Arc<Shared>, time: Duration) {
    let mut next = None;
    shared.life.send_if_modified(|life| {
        next = life.take().map(|number| number + 1);
        next.is_some()
    });
    let Some(next) = next else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        shared.life.send_replace(Some(next));
    });
}

/// One connection, until it is closed or its process dies.
async fn serve(shared: Arc<Shared>, stream: TcpStream, alive: Option<u64>) {
    let mut life = shared.life.subscribe();
    tokio::select! {
        _ = converse(&shared, stream) => {}
        _ = life.wait_for(|now| *now != alive) => {}
    }
}

async fn converse(shared: &Arc<Shared>, stream: TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let (head, body) = request(&stream, &mut bytes).await?;
        let number = first_number(&body)?;
        let Reply { say, after } = (shared.plan)(number);
        tokio::time::sleep(after).await;
        let status = match say {
            Say::Answer(status) => status,
            Say::AnswerAndClose => 200,
            Say::Drop => return None,
            Say::Hang => std::future::pending().await,
            Say::Die(time) => {
                die(shared, time);
                return None;
            }
        };
        let header = |name| field(&head, name).and_then(|text| text.parse().ok());
        let answered = Answered {
            at: clock::now(),
            number,
            attempt: header("kladder-attempt").and_then(|n: i32| n.try_into().ok()).unwrap_or(0),
            partition: header("kladder-partition").unwrap_or(-1),
            is_good: status == 200,
        };
        write(&stream, format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
        shared.answered.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
        if say == Say::AnswerAndClose {
            return None;
        }
    }
}

/// Head and body of the next request; following bytes stay in the buffer.
async fn request(stream: &TcpStream, bytes: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(at) = bytes.windows(END.len()).position(|window| window == END) {
            let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
            let length: usize = field(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            let end = at + END.len() + length;
            if bytes.len() >= end {
                let rest = bytes.split_off(end);
                let body = bytes.split_off(at + END.len());
                *bytes = rest;
                return Some((head, body));
            }
        }
        let mut more = [0; 4_096];
        stream.readable().await.ok()?;
        match stream.try_read(&mut more) {
            Ok(0) => return None,
            Ok(length) => bytes.extend_from_slice(&more[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() {
        stream.writable().await.ok()?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The first integer in a text.
fn first_number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
}

/// The result for the healthy records of a mix.
pub struct Fared {
    /// How many of them were written.
    pub written: usize,
    /// Those that have arrived, with the time of the first arrival, in that order.
    pub arrived: Vec<Answered>,
    /// Those for which an attempt was counted.
    pub burnt: usize,
}

impl Fared {
    /// For the numbers from the first one on and below this.
    pub fn of(mix: &Mix, answered: &[Answered], end: usize) -> Self {
        let mut seen = std::collections::HashSet::new();
        let good = answered.iter().filter(|call| call.is_good && mix.is_healthy(call.number));
        let arrived: Vec<Answered> = good.filter(|call| seen.insert(call.number)).copied().collect();
        let burnt = arrived.iter().filter(|call| call.attempt > 1).count();
        Self { written: (FIRST.start..end).filter(|number| mix.is_healthy(*number)).count(), arrived, burnt }
    }

    /// Whether all of them have arrived.
    pub fn is_whole(&self) -> bool {
        self.arrived.len() == self.written
    }

    /// The longest time between two arrivals, and from the last one to the end.
    pub fn longest_gap(&self, end: Instant) -> Duration {
        let times = self.arrived.iter().map(|call| call.at).filter(|at| *at < end);
        let (gap, last) = times.fold((Duration::ZERO, None::<Instant>), |(gap, last), at| {
            (last.map_or(gap, |last| gap.max(at.saturating_duration_since(last))), Some(at))
        });
        last.map_or(Duration::MAX, |last| gap.max(end.saturating_duration_since(last)))
    }
}
