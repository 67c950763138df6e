//! Accepts a bounded number of connections.
//!
//! Every connection takes a file descriptor, and anyone who can reach a port can open thousands of them, until none is left for Kafka,
//! the handler and the probes. So a listener has a limited number of slots. When all are taken, a new connection replaces the one that
//! has been idle for the longest; a probe, which sends its request at once, is answered however many others are idle. A connection that
//! is idle for too long is closed in any case, also in the middle of a header or a body.
//!
//! Rejected: accepting no more while all slots are taken, since then the clients that hold them could block the probes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service;

/// Pause before accepting again after the system could not provide a connection: a resource is
/// exhausted.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum number of connections, and at most a sixteenth of the process's file descriptors.
    pub connections: usize,
    /// Time limit for sending a header, and for idling without one.
    pub silence: Duration,
    /// Limits of request bodies; `None` leaves them to the route.
    pub body: Option<BodyBounds>,
}

/// Limits of a request body.
#[derive(Debug, Clone, Copy)]
pub struct BodyBounds {
    /// Maximum size in bytes.
    pub most: usize,
    /// Time limit for receiving it.
    pub within: Duration,
}

impl Bounds {
    /// For small requests.
    pub const SMALL: Self = Self {
        connections: 64,
        silence: Duration::from_secs(30),
        body: Some(BodyBounds { most: 64 * 1024, within: Duration::from_secs(10) }),
    };
    /// For a handler, which receives whole records, many at once.
    pub const HANDLER: Self = Self { connections: 4_096, silence: Duration::from_secs(75), body: None };
}

/// A bound address.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    bounds: Bounds,
}

impl Listener {
    /// Binds the address; connections are answered once [`Listener::serve`] runs.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, bounds: Bounds) -> io::Result<Self> {
        let tcp = TcpListener::bind(listen).await?;
        let address = tcp.local_addr()?;
        let connections = bounds.connections.min(share_of_descriptors());
        Ok(Self { tcp, address, bounds: Bounds { connections, ..bounds } })
    }

    /// The listen address, with the actual port if 0 was requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, and then the requests received before; a caller that does not wait for that drops it.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.bounds.connections));
        let idle = Arc::new(IdleConnections::default());
        let (ending, ends) = watch::channel(());
        let mut stop = std::pin::pin!(stop);
        let all = u32::try_from(self.bounds.connections).unwrap_or(u32::MAX);
        loop {
            let next = async {
                let stream = self.accept(&idle).await;
                (stream, idle.place(&places).await)
            };
            tokio::select! {
                (stream, place) = next => {
                    let connection = Connection::new(idle.clone(), place);
                    tokio::spawn(connection.serve(stream, router.clone(), self.bounds, ends.clone()));
                }
                () = &mut stop => break,
            }
        }
        drop((self.tcp, ends));
        let _ = ending.send(());
        let _ = places.acquire_many(all).await;
    }

    /// If the system cannot provide a connection now, it may later: giving up would be permanent. If the process is out of file
    /// descriptors, an idle connection is closed.
    async fn accept(&self, idle: &IdleConnections) -> TcpStream {
        loop {
            match self.tcp.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    tracing::warn!(listen = %self.address, %error, "cannot accept a connection; closing an idle one and retrying");
                    idle.end_longest();
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// The rest is for Kafka, which takes several for each client, and for the handler.
fn share_of_descriptors() -> usize {
    const LEAST: usize = 4;
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit / 16).unwrap_or(usize::MAX)).max(LEAST)
}

/// Whether the connection was closed by the peer before it was accepted.
fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The connections without a request in progress, in the order in which they became idle.
#[derive(Default)]
struct IdleConnections {
    queue: Mutex<IdleQueue>,
    one_more: Notify,
}

#[derive(Default)]
struct IdleQueue {
    next: u64,
    connections: BTreeMap<u64, Arc<Notify>>,
}

impl IdleConnections {
    fn queue(&self) -> MutexGuard<'_, IdleQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection that has been idle for the longest, if there is one.
    fn end_longest(&self) {
        let longest = self.queue().connections.pop_first();
        if let Some((_, longest)) = longest {
            longest.notify_one();
        }
    }

    /// A slot for one more connection, for which the longest idle one is closed if no slot is free. If all have requests in progress, this
    /// waits.
    async fn place(&self, places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return place;
        }
        loop {
            let mut one_more = std::pin::pin!(self.one_more.notified());
            // Before checking: a connection that becomes idle meanwhile is noticed.
            one_more.as_mut().enable();
            self.end_longest();
            tokio::select! {
                place = places.clone().acquire_owned() => return place.expect("places are never closed"),
                () = one_more => {}
            }
        }
    }
}

/// One connection; it holds its slot as long as it lives.
struct Connection {
    idle: Arc<IdleConnections>,
    /// Its number among the idle ones, while it is one.
    number: Mutex<Option<u64>>,
    end: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(idle: Arc<IdleConnections>, place: OwnedSemaphorePermit) -> Arc<Self> {
        let connection = Self { idle, number: Mutex::new(None), end: Arc::default(), _place: place };
        connection.became_idle();
        Arc::new(connection)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, router: Router, bounds: Bounds, mut ending: watch::Receiver<()>) {
        // Answers are small and should be sent at once.
        let _ = stream.set_nodelay(true);
        let own = self.clone();
        let service = service_fn(move |request| {
            let (own, mut router) = (own.clone(), router.clone());
            async move {
                let request = match whole(request, bounds.body).await {
                    Ok(request) => request,
                    Err(refusal) => return Ok(refusal),
                };
                let _busy = Busy::new(own);
                router.call(request).await
            }
        });
        let mut http = http1::Builder::new();
        let http = http.timer(TokioTimer::new()).header_read_timeout(bounds.silence);
        let mut served = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = served.as_mut() => return,
            () = self.end.notified() => return,
            _ = ending.changed() => served.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = served => {}
            () = self.end.notified() => {}
        }
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn became_idle(&self) {
        let mut queue = self.idle.queue();
        let number = queue.next;
        queue.next += 1;
        queue.connections.insert(number, self.end.clone());
        *self.number() = Some(number);
        drop(queue);
        self.idle.one_more.notify_waiters();
    }

    fn became_busy(&self) {
        let number = self.number().take();
        if let Some(number) = number {
            self.idle.queue().connections.remove(&number);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.became_busy();
    }
}

/// A request in progress. If the client disconnects meanwhile, it ends too.
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: Arc<Connection>) -> Self {
        connection.became_busy();
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // The client may also be slow to read the answer.
        self.0.became_idle();
    }
}

/// The request with its complete body, if bodies are limited.
async fn whole(request: Request<Incoming>, bounds: Option<BodyBounds>) -> Result<Request<Body>, Response> {
    let Some(BodyBounds { most, within }) = bounds else { return Ok(request.map(Body::new)) };
    let (head, body) = request.into_parts();
    match tokio::time::timeout(within, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body.to_bytes()))),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, format!("at most {most} bytes\n")).into_response()),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the request was not completed in time\n").into_response()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream as Stream};
    use std::thread;

    use axum::routing::{MethodRouter, get};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    fn bounds(connections: usize, silence: Duration) -> Bounds {
        Bounds { connections, silence, body: Some(BodyBounds { most: 16, within: silence }) }
    }

    async fn serving(bounds: Bounds, router: Router) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), bounds).await.unwrap();
        let address = listener.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(listener.serve(router, async move { drop(stopped.await) }));
        (address, stop, serving)
    }

    fn connected(address: SocketAddr) -> Stream {
        let stream = Stream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn asked(address: SocketAddr, request: &str) -> String {
        let mut stream = connected(address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has answered before.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

    fn ok() -> Router {
        Router::new().route("/", get(|| async { "ok\n" }).put(|body: String| async move { body }))
    }

    /// Signals that it was called, and answers when released.
    fn slow(begun: &Arc<Notify>, go_on: &Arc<Notify>) -> MethodRouter {
        let (tell, wait) = (begun.clone(), go_on.clone());
        get(move || async move {
            tell.notify_one();
            wait.notified().await;
            "slow\n"
        })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_request_is_answered_however_many_connections_stand_idle() {
        let (address, _stop, _serving) = serving(bounds(3, Duration::from_secs(600)), ok()).await;
        let mut idle = Vec::new();
        for count in 0..20 {
            let mut stream = connected(address);
            if count % 2 == 0 {
                // Half a header counts as idle.
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nho");
            }
            idle.push(stream);
        }
        assert!(asked(address, GET).ends_with("\r\n\r\nok\n"));
        for stream in idle.iter_mut().take(17) {
            let read = stream.read(&mut [0; 64]);
            let is_open = matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            assert!(!is_open && !matches!(read, Ok(1..)), "the oldest have gone: {read:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_worked_for_is_not_ended_for_others() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (address, _stop, _serving) =
            serving(bounds(2, Duration::from_secs(600)), ok().route("/slow", slow(&begun, &go_on))).await;
        let slow = thread::spawn(move || asked(address, &GET.replace("GET /", "GET /slow")));
        begun.notified().await;
        let idle: Vec<Stream> = (0..10).map(|_| connected(address)).collect();
        assert!(asked(address, GET).ends_with("ok\n"));
        go_on.notify_one();
        assert!(slow.join().unwrap().ends_with("slow\n"));
        drop(idle);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_silent_for_too_long_goes() {
        let (address, _stop, _serving) = serving(bounds(3, Duration::from_millis(100)), ok()).await;
        for (begins, expected) in [
            ("", ""),
            ("GET / HTT", ""),
            ("GET / HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 200"),
            ("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nab", "HTTP/1.1 408"),
        ] {
            let answer = asked(address, begins);
            assert!(answer.starts_with(expected), "{begins:?}: {answer}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bodies_are_bounded() {
        let (address, _stop, _serving) = serving(bounds(3, Duration::from_secs(60)), ok()).await;
        let large = "PUT / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 17\r\n\r\n12345678901234567";
        assert!(asked(address, large).starts_with("HTTP/1.1 413"));
        let small = large.replace(": 17", ": 2").replace("12345678901234567", "ab");
        assert!(asked(address, &small).ends_with("\r\n\r\nab"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_asked_before_the_end_is_answered() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = Router::new().route("/", slow(&begun, &go_on));
        let (address, stop, serving) = serving(bounds(3, Duration::from_secs(60)), router).await;
        let slow = thread::spawn(move || asked(address, GET));
        begun.notified().await;
        stop.send(()).unwrap();
        go_on.notify_one();
        assert!(slow.join().unwrap().ends_with("slow\n"));
        serving.await.unwrap();
        assert!(Stream::connect(address).is_err(), "the listener is closed");
    }
}
