//! Reads a worker's `/metrics`: just enough of the Prometheus text format for `kladder status` and `doctor`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// How long a worker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// More than any worker has to say.
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

/// Where a worker that listens there is reached from its own machine.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// One scrape.
pub fn scrape_once(worker: SocketAddr) -> anyhow::Result<Samples> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(scrape(worker))
}

/// Two scrapes, `apart` from each other: a rate needs both.
pub fn scrape_twice(worker: SocketAddr, apart: Duration) -> anyhow::Result<(Samples, Samples)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let first = scrape(worker).await?;
        tokio::time::sleep(apart).await;
        Ok((first, scrape(worker).await?))
    })
}

async fn scrape(worker: SocketAddr) -> anyhow::Result<Samples> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let url: http::Uri = format!("http://{worker}/metrics").parse()?;
    let answer = async {
        let response = client.get(url).await?;
        if !response.status().is_success() {
            bail!("answered {}", response.status());
        }
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
        Ok(parse(&String::from_utf8_lossy(&body.to_bytes())))
    };
    tokio::time::timeout(ANSWER_WITHIN, answer).await.context("no answer in time")?
}

/// Reads the text format of Prometheus.
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
    // A time may follow the value.
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

    /// A quantile of a histogram, as Prometheus' `histogram_quantile` has it: linear within the bucket. `None` while it is empty.
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
