//! Partitions that may not be read: their records wait, which would otherwise go unnoticed.

use crate::core::role::Role;
use crate::kafka::partition::TopicPartition;

/// Whether a partition may not be read, logged once.
#[derive(Debug, Default)]
pub(in crate::worker) struct Denied(bool);

impl Denied {
    /// Whether it may not, as far as known.
    pub(in crate::worker) fn is_so(&self) -> bool {
        self.0
    }

    /// The broker refuses to return records.
    pub(in crate::worker) fn may_not_be_read(&mut self, partition: &TopicPartition, role: Role) {
        if !std::mem::replace(&mut self.0, true) {
            tracing::error!(
                %partition,
                "{role} is not authorised to read the partition: its records wait; grant Read on its topic (`kladder generate acls \
                 --role {role}` prints the rules), and they will continue"
            );
        }
    }

    /// Records were returned.
    pub(in crate::worker) fn may_be_read(&mut self, partition: &TopicPartition) {
        if std::mem::take(&mut self.0) {
            tracing::info!(%partition, "partition is read again");
        }
    }
}
