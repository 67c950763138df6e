//! A handler that answers by a plan and records its requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::runtime::Runtime;

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// 0 where the header is missing.
    pub attempt: u32,
}

impl Call {
    fn new(method: Method, headers: HeaderMap, body: Bytes) -> Self {
        let number = |name| text(&headers, name).and_then(|t| t.parse::<i64>().ok());
        Self {
            topic: text(&headers, "kladder-topic").unwrap_or_default().to_owned(),
            partition: number("kladder-partition").and_then(|n| i32::try_from(n).ok()).unwrap_or(-1),
            offset: number("kladder-offset").unwrap_or(-1),
            attempt: number("kladder-attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            method,
            headers,
            body,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The handler's response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub headers: Vec<(&'static str, String)>,
    pub after: Duration,
}

impl Answer {
    pub fn ok() -> Self {
        Self::fail(200, "")
    }

    pub fn fail(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), headers: Vec::new(), after: Duration::ZERO }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }
}

type Plan = Box<dyn Fn(&Call) -> Answer + Send + Sync>;

struct Shared {
    plan: Plan,
    calls: Mutex<Vec<Call>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A port that refuses connections until a handler opens it. It stays reserved meanwhile, so no other process gets
/// it.
pub struct ClosedPort {
    socket: tokio::net::TcpSocket,
    address: SocketAddr,
}

impl ClosedPort {
    pub fn reserve() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = socket.local_addr().expect("an address");
        Self { socket, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}/handle", self.address)
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn open(self, plan: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Handler {
        Handler::serve(self, Box::new(plan))
    }
}

/// The handler; stopped when dropped.
pub struct Handler {
    shared: Arc<Shared>,
    url: String,
    runtime: Option<Runtime>,
}

impl Handler {
    pub fn start(plan: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        ClosedPort::reserve().open(plan)
    }

    fn serve(port: ClosedPort, plan: Plan) -> Self {
        let url = port.url();
        let shared =
            Arc::new(Shared { plan, calls: Mutex::default(), open: AtomicUsize::new(0), most_open: AtomicUsize::new(0) });
        let app = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            port.socket.listen(1024).expect("a listener")
        };
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { shared, url, runtime: Some(runtime) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("no panic while locked").clone()
    }

    pub fn count(&self) -> usize {
        self.shared.calls.lock().expect("no panic while locked").len()
    }

    /// The number of open calls.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The most deliveries that were open at one time.
    pub fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Counts a delivery as open until it is answered or aborted.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        let now_open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_open.fetch_max(now_open, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let open = Open::new(&shared);
    let call = Call::new(method, headers, body);
    let answer = (shared.plan)(&call);
    shared.calls.lock().expect("no panic while locked").push(call);
    if !answer.after.is_zero() {
        tokio::time::sleep(answer.after).await;
    }
    // Before the answer is sent: the receiver may send the next request at once.
    drop(open);
    let mut response = Response::new(Body::from(answer.body));
    for (name, value) in answer.headers {
        response.headers_mut().append(name, value.parse().expect("a header"));
    }
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    response
}
