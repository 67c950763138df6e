//! The end of a membership.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::{GroupConsumer, Rebalance, list_of, lock};

/// Time of one poll of a member that is being closed.
const CLOSE_POLL: Duration = Duration::from_millis(100);

/// Interval of checking whether it is closed, and maximum wait for that.
const CLOSE_LOOK: Duration = Duration::from_millis(5);
const CLOSE_GRACE: Duration = Duration::from_millis(500);

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        // From here on a rebalance is answered in the callback: nobody else is left to do it.
        self.inner.context().closing.store(true, Ordering::Release);
        let unanswered = lock(&self.unanswered).take();
        let pending = std::mem::take(&mut *lock(&self.inner.context().pending));
        // Closing comes before the answers: a member that releases lost partitions while it is not closing rejoins at once
        // (`rd_kafka_cgrp_unassign_done`), without its member id, which takes the name from a legitimate rival.
        let is_closing = self.inner.close_queue().is_ok();
        let client = self.inner.clone();
        let answer = move || {
            for change in unanswered.into_iter().chain(pending) {
                let _ = match change {
                    Rebalance::Assigned(partitions) => client.incremental_assign(&list_of(&partitions)),
                    Rebalance::Revoked { partitions, .. } => client.incremental_unassign(&list_of(&partitions)),
                };
            }
            // A member that is fenced permanently is not closed but dropped, with its last queue.
            while is_closing && !client.closed() {
                client.poll(CLOSE_POLL);
            }
        };
        // On a separate thread, since it may never return: librdkafka 2.12 destroys, without a reply, operations that reach a group
        // that has just terminated (`rd_kafka_cgrp_op_serve`), and an answer waits for its reply for ever (`rd_kafka_assign0`). A
        // rebalance delivered when closing began is such an answer. Once the group has terminated there is nothing more to wait for.
        let Ok(answering) = std::thread::Builder::new().name("closing".to_owned()).spawn(answer) else { return };
        let mut grace = CLOSE_GRACE;
        while !answering.is_finished() && !grace.is_zero() {
            std::thread::sleep(CLOSE_LOOK);
            if is_closing && self.inner.closed() {
                grace = grace.saturating_sub(CLOSE_LOOK);
            }
        }
        if !answering.is_finished() {
            tracing::debug!(group = %self.group, "closed, except for an answer that the client never confirms");
        }
    }
}
