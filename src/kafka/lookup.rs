//! Looks one topic up, whatever kind of client asks.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use crate::kafka::error::{ClientError, is_denial};

/// How many partitions a topic has.
///
/// # Errors
/// When it does not exist or may not be seen, or the broker does not answer in time.
pub(super) fn partition_count<C: ClientContext>(client: &Client<C>, name: &str, within: Duration) -> Result<i32, ClientError> {
    let doing = || format!("looking up topic {name}");
    let metadata = client.fetch_metadata(Some(name), within).map_err(|e| ClientError::new(doing(), &e))?;
    let found = metadata.topics().iter().find(|t| t.name() == name);
    if let Some(denial) = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from).filter(|code| is_denial(*code)) {
        return Err(ClientError::code(doing(), denial));
    }
    let found = found.filter(|t| t.error().is_none());
    match found.map_or(0, |t| t.partitions().len()) {
        0 => Err(ClientError::text(doing(), "it does not exist: run `kladder setup`, or create it if it is a source")),
        count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
    }
}
