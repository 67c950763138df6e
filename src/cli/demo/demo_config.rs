//! The demo's configuration, as text, so that it can be printed and used as a starting point.

use std::net::SocketAddr;

use crate::cli::demo::story::Story;
use crate::core::delay::format_duration;

/// Partitions of the source.
pub const PARTITIONS: i32 = 6;

/// On the embedded broker, an empty fetch waits for its full time, even if records arrive meanwhile.
const EMBEDDED: &str = "consumer.fetch.wait.max.ms = 10\n";

/// What differs between runs.
pub struct DemoSettings<'a> {
    /// The ladder's name, from which the names of source and group are derived.
    pub name: &'a str,
    /// The brokers' addresses.
    pub brokers: &'a str,
    /// Whether it is the embedded broker, which discards offsets committed in a transaction.
    pub is_embedded: bool,
    /// Where probes and metrics are served.
    pub listen: SocketAddr,
    /// Where the handler listens.
    pub handler: SocketAddr,
    /// The story.
    pub story: Story,
}

/// The topic of the orders.
pub fn source(name: &str) -> String {
    format!("{name}-orders")
}

impl DemoSettings<'_> {
    /// The configuration as TOML.
    pub fn text(&self) -> String {
        let tiers = self.story.tiers().map(|delay| format!("{:?}", format_duration(delay))).join(", ");
        let [open_for, open_most] = self.story.breaker_open().map(format_duration);
        let (hops, fetch) = if self.is_embedded { ("at-least-once", EMBEDDED) } else { ("exactly-once", "") };
        let Self { name, brokers, listen, handler, .. } = self;
        format!(
            r#"[kafka]
bootstrap.servers = {brokers:?}
{fetch}
[health]
listen = "{listen}"

[worker]
instance = "demo"
roles = ["mover", "deliverer"]
drain = "10s"

[ladder.{name}]
sources = ["{source}"]
group = "{name}"
start = "earliest"
tiers = [{tiers}]
hops = "{hops}"

[ladder.{name}.handler]
url = "http://{handler}/"
max_in_flight = 32

[ladder.{name}.breaker]
consecutive = 10
open_for = "{open_for}"
open_most = "{open_most}"
"#,
            source = source(name),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::config_file;
    use crate::core::ladder::Hops;

    #[test]
    fn the_configuration_of_any_run_has_no_mistake() {
        for (is_embedded, hops) in [(true, Hops::AtLeastOnce), (false, Hops::ExactlyOnce)] {
            for seconds in [10, 20, 60, 3_600] {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let story = Story::new(Duration::from_secs(seconds));
                let (name, brokers) = ("kladder-demo-x1", "a:1,b:2");
                let text = DemoSettings { name, brokers, is_embedded, listen: any, handler: any, story }.text();
                let config = config_file::parse(&text, None).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
                assert_eq!(config.ladders[0].ladder.hops(), hops);
                assert_eq!(config.ladders[0].ladder.sources(), ["kladder-demo-x1-orders"]);
            }
        }
    }
}
