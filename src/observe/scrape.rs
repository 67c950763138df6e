//! Reads a worker's `/metrics`: just the part of the Prometheus text format that
//! observers need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use thiserror::Error;

use crate::http_client::{HttpClient, HttpError};

/// How long a worker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Limit on the size of an answer; no worker comes near it.
const LARGEST_ANSWER: usize = 16 << 20;

/// One scrape.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Samples(Vec<Sample>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The address at which a worker with this listen address is reached from its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Reads the metrics of one worker.
#[derive(Debug)]
pub struct Scraper {
    worker: SocketAddr,
    client: HttpClient,
}

/// Why there are no metrics.
#[derive(Debug, Error)]
pub enum ScrapeError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer has no metrics.
    #[error("answered {0}")]
    Status(StatusCode),
}

impl Scraper {
    /// Of the worker that listens at this address, seen from its own machine.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(listen: SocketAddr) -> Result<Self, HttpError> {
        Ok(Self { worker: reachable(listen), client: HttpClient::new(LARGEST_ANSWER)? })
    }

    /// The worker's address.
    #[must_use]
    pub fn worker(&self) -> SocketAddr {
        self.worker
    }

    /// Scrapes once.
    ///
    /// # Errors
    /// There is no answer within 3 s, or not one with metrics.
    pub fn scrape(&self) -> Result<Samples, ScrapeError> {
        let request = Request::get(format!("http://{}/metrics", self.worker)).body(Full::default());
        let request = request.map_err(|error| HttpError::Client(error.into()))?;
        let answer = self.client.send(request, ANSWER_WITHIN)?;
        if !answer.status().is_success() {
            return Err(ScrapeError::Status(answer.status()));
        }
        Ok(parse(&String::from_utf8_lossy(answer.body())))
    }
}

/// Parses the Prometheus text format.
pub(super) fn parse(text: &str) -> Samples {
    Samples(text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_ends = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_ends);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The label's value and what follows its closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name && labels.iter().all(|(key, value)| self.label(key) == Some(value))
    }
}

impl Samples {
    /// The sum over all samples of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.0.iter().filter(|s| s.has(name, labels)).map(|s| s.value).peekable();
        found.peek()?;
        Some(found.sum())
    }

    /// A quantile of a histogram, computed like Prometheus' `histogram_quantile`: linear within the bucket. `None` while it is
    /// empty.
    pub fn quantile(&self, histogram: &str, labels: &[(&str, &str)], quantile: f64) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.0.iter().filter(|s| s.has(&name, labels)) {
            let bound: f64 = sample.label("le")?.parse().ok()?;
            match buckets.iter_mut().find(|(b, _)| b.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let index = buckets.iter().position(|(_, count)| *count >= rank)?;
        let (bound, count) = buckets[index];
        let (lower, below) = if index == 0 { (0.0, 0.0) } else { buckets[index - 1] };
        if bound.is_infinite() {
            return Some(lower);
        }
        Some(if count > below { lower + (bound - lower) * (rank - below) / (count - below) } else { bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP kladder_lateness_seconds due to redeliver
# TYPE kladder_lateness_seconds histogram
kladder_lateness_seconds_bucket{ladder="b",tier="5s",le="0.01"} 90
kladder_lateness_seconds_bucket{ladder="b",tier="5s",le="0.1"} 98
kladder_lateness_seconds_bucket{ladder="b",tier="5s",le="1"} 100
kladder_lateness_seconds_bucket{ladder="b",tier="5s",le="+Inf"} 100
kladder_lateness_seconds_bucket{ladder="b",tier="1m",le="0.01"} 0
kladder_lateness_seconds_bucket{ladder="b",tier="1m",le="+Inf"} 0
kladder_hops_total{ladder="b",tier="5s",note="a \"q\", } b"} 7 1712345678000
kladder_up 1
"#;

    #[test]
    fn samples_are_summed_by_their_labels() {
        let samples = parse(TEXT);
        assert_eq!(samples.0.len(), 8);
        assert_eq!(samples.sum("kladder_hops_total", &[("ladder", "b"), ("tier", "5s")]), Some(7.0));
        assert_eq!(samples.sum("kladder_hops_total", &[("tier", "1m")]), None);
        assert_eq!(samples.sum("kladder_up", &[]), Some(1.0));
    }

    #[test]
    fn a_quantile_is_linear_within_its_bucket() {
        let p99 = parse(TEXT).quantile("kladder_lateness_seconds", &[("tier", "5s")], 0.99).unwrap();
        assert!((p99 - 0.55).abs() < 1e-9, "{p99}");
        assert_eq!(parse(TEXT).quantile("kladder_lateness_seconds", &[("tier", "1m")], 0.99), None);
    }

    #[test]
    fn an_unspecified_address_is_asked_at_home() {
        assert_eq!(reachable("0.0.0.0:9646".parse().unwrap()).to_string(), "127.0.0.1:9646");
        assert_eq!(reachable("[::]:9646".parse().unwrap()).to_string(), "[::1]:9646");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
