//! What was observed of a ladder, as far as its checks need it.

use std::collections::BTreeMap;

use crate::core::state::LadderState;
use crate::core::time::Timestamp;
use crate::topology::doctor::Finding;
use crate::topology::{GroupMember, Observed};

/// What was observed of one ladder. What could not be checked is in `unchecked`; nothing is concluded from its absence.
#[derive(Debug, Clone, Default)]
pub struct LadderObservation {
    /// The topics, the groups' offsets, and the owner.
    pub observed: Observed,
    /// Whether the settings of the topics could be read.
    pub settings: bool,
    /// Offsets that were read before the ends of the topics: one above its end is really out of range.
    pub standing: Observed,
    /// The state of the ladder; `None` if there is no state topic.
    pub state: Option<LadderState>,
    /// The members of the groups that could be described.
    pub members: BTreeMap<String, Vec<GroupMember>>,
    /// When the oldest waiting record of each tier topic was appended.
    pub oldest: BTreeMap<String, Timestamp>,
    /// Number of redelivered records that came back without headers, by the metric of the worker
    /// that answered.
    pub headers_missing: Option<f64>,
    /// What could not be checked.
    pub unchecked: Vec<Finding>,
}
