//! `kladder init`

use clap::{Args, ValueEnum};

use crate::cli::config_file;
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::core::ladder::is_ladder_name;

/// Print a starting configuration
///
/// Usable unchanged for a first try: `kladder init > kladder.toml`, then `kladder check`, `kladder setup` and
/// `kladder run`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Topic that the group consumes; several separated by commas
    #[arg(long, value_name = "TOPIC", default_value = "orders", value_delimiter = ',')]
    source: Vec<String>,
    /// Consumer group of the ladder
    #[arg(long, default_value = "billing")]
    group: String,
    /// Name of the ladder and prefix of its topics [default: GROUP-SOURCE]
    #[arg(long, value_name = "NAME")]
    ladder: Option<String>,
    /// URL that records are posted to (push)
    #[arg(long, default_value = "http://127.0.0.1:3000/")]
    url: String,
    /// Bootstrap brokers
    #[arg(long, value_name = "HOST:PORT,…", default_value = "localhost:9092")]
    brokers: String,
    /// Delays of the tiers
    #[arg(long, value_name = "DELAY,…", default_value = "5s,1m,10m", value_delimiter = ',')]
    tiers: Vec<String>,
    /// How records enter the ladder
    #[arg(long, value_enum, default_value_t = InitMode::Push)]
    mode: InitMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InitMode {
    /// kladder consumes the source and calls a handler over HTTP
    Push,
    /// The application consumes the source and puts failed records into the inbox
    Relay,
}

pub fn run(args: InitArgs) -> anyhow::Result<Exit> {
    let text = render(&args);
    // The printed text passes `check`: mistakes in options are reported now, not after the file is
    // written.
    if let Err(mut errors) = config_file::parse(&text, None) {
        // Line numbers of a file that does not exist would mislead.
        errors.0.iter_mut().for_each(|mistake| mistake.line = None);
        tell!("error: these options make a configuration with mistakes\n{errors}");
        return Ok(Exit::Usage);
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

fn render(args: &InitArgs) -> String {
    let name = args.ladder.clone().unwrap_or_else(|| ladder_name(&args.group, args.source.first().map_or("", String::as_str)));
    // An invalid name is quoted, so that it is refused as a name and not as broken TOML.
    let header = if is_ladder_name(&name) { name.clone() } else { quoted(&name) };
    let kafka = format!(
        r#"# kladder: a retry-topic ladder for Apache Kafka.
# In any string: ${{VAR}}, ${{VAR:-default}} and ${{file:PATH}}; $$ is a dollar.

[kafka]
# Any librdkafka property may be set here, such as security.protocol or sasl.password.
bootstrap.servers = {brokers}

[health]
# /livez, /readyz and /metrics.
listen = "0.0.0.0:9646"

[ladder.{header}]
# The topics that the group consumes.
sources = {sources}
group = {group}
"#,
        brokers = quoted(&args.brokers),
        sources = list(&args.source),
        group = quoted(&args.group),
    );
    let tiers = format!(
        r#"
# A record that fails waits in one tier after the other, then goes to {name}.dlq.
tiers = {tiers}
# Maximum number of deliveries of a record, the first included; beyond tiers + 1 the last tier repeats.
attempts = {attempts}
# A hop and the offset it consumes are one transaction. "at-least-once" is cheaper but can duplicate records.
hops = "exactly-once"
"#,
        tiers = list(&args.tiers),
        attempts = args.tiers.len() + 1,
    );
    let mode = match args.mode {
        InitMode::Push => format!(
            r#"
# kladder consumes the sources and posts each record to the handler.
mode = "push"
# Where the group starts while it has no offsets: "earliest" or "latest".
start = "earliest"

[ladder.{header}.handler]
# 2xx is done; 5xx, 429 and a timeout are retried; other 4xx go to the dead-letter topic. To try it: kladder stub
url = {url}
timeout = "10s"
max_in_flight = 64
"#,
            url = quoted(&args.url),
        ),
        InitMode::Relay => format!(
            r#"
# The application consumes the sources, and copies each failed record, with its headers, to {name}.inbox.
# It also consumes {name}.redeliver with isolation.level=read_committed.
mode = "relay"
# A redelivered record is presumed done once the group has committed past it and it has not failed again for this long.
settle = "2m"
# To redeliver to the origin topics instead, where every group that reads them sees the records:
# redeliver = "origin"
# reaches_all_groups = true
"#
        ),
    };
    kafka + &tiers + &mode
}

/// `{group}-{source}`, reduced to the characters that a ladder name may have.
fn ladder_name(group: &str, source: &str) -> String {
    let name: String = format!("{group}-{source}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(100)
        .collect();
    name.trim_matches('-').to_owned()
}

/// A TOML string; JSON escapes are valid in TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text.trim())).collect::<Vec<_>>().join(", "))
}
