//! A member's name in its group, and whether another member has it now.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Context, lock};
use crate::kafka::error::ClientError;
use crate::kafka::ffi;
use crate::topology::GroupMember;

/// Time limit of asking who has this member's name; without an answer there is no rival.
const RIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A member's name in its group, which it may have lost.
#[derive(Clone)]
pub struct OwnName {
    pub(super) client: Weak<BaseConsumer<Context>>,
    pub(super) group: String,
    pub(super) instance: String,
    /// The member id when the coordinator last assigned partitions to it.
    pub(super) member_id: Arc<Mutex<Option<String>>>,
}

impl OwnName {
    /// Whether the member has lost its session and everything with it, and is joining again. The coordinator may have given it a member id
    /// that it has not been told yet, which would look like a rival's; and a rival that had the name would be fenced by the joining.
    pub fn is_joining_again(&self) -> bool {
        let Some(client) = self.client.upgrade() else { return false };
        let has_nothing = client.assignment().is_ok_and(|partitions| partitions.count() == 0);
        let is_nobody = || ffi::member_id(client.client().native_ptr()).is_none();
        has_nothing && (client.context().session_ended.load(Ordering::Acquire) || is_nobody())
    }

    /// Checks whether another member has this one's name now. Without an answer, there is no rival.
    ///
    /// # Errors
    /// There is a rival; see [`ClientError::is_rival`].
    pub fn look_for_rival(&self) -> Result<(), ClientError> {
        let (Some(before), Some(client)) = (lock(&self.member_id).clone(), self.client.upgrade()) else { return Ok(()) };
        let client = client.client().native_ptr();
        let now = ffi::member_id(client);
        match ffi::group_members(client, &self.group, RIVAL_TIMEOUT) {
            Ok(members) => {
                let is_own = |id: &str| id == before || now.as_deref() == Some(id);
                let is_rival = |m: &&GroupMember| m.instance.as_deref() == Some(&self.instance) && !is_own(&m.id);
                let Some(rival) = members.iter().find(is_rival) else { return Ok(()) };
                let cause = format!("a member from {} has taken the name {}", rival.host, self.instance);
                Err(ClientError::text(format!("coming back to group {}", self.group), cause).by_rival())
            }
            Err(code) => {
                tracing::debug!(group = %self.group, %code, "cannot see who has this member's name");
                Ok(())
            }
        }
    }
}
