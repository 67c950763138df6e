//! The desired topics and offsets, the plan that leads there from what exists, and its application.
//!
//! Everything but [`apply()`] is pure: [`desired()`] says what a ladder needs, [`plan()`] compares that with what a [`Cluster`] has
//! observed. A plan is applied as a whole or, with a single refusal in it, not at all; what the cluster would refuse is determined
//! before. An applied plan leaves nothing to do for the next one. Existing settings are never altered, since they may be intended: they
//! are reported as drift, each with the command that changes just that one.

#[cfg(feature = "cli")]
mod acls;
mod apply;
mod cluster;
mod compare;
mod desired;
#[cfg(feature = "cli")]
pub mod doctor;
mod lost;
mod members;
mod observed;
mod plan;
mod planning;
mod refused;
mod render;
#[cfg(feature = "cli")]
mod tails;

#[cfg(feature = "cli")]
pub use acls::{AclRole, acls, commands as acl_commands};
#[cfg(feature = "cli")]
pub use apply::ApplyStep;
pub use apply::apply;
pub use cluster::{Cluster, ClusterError, Refused, RefusedFor};
#[cfg(feature = "cli")]
pub use desired::desired_of_queue;
pub use desired::{Desired, DesiredOffsets, DesiredTopic, StartRule, desired};
pub use lost::{LostOffsets, lost_offsets};
pub use members::{GroupMember, foreign_members, other_ladder};
pub use observed::{GroupFacts, Observed, Scope, TopicFacts, Watermarks};
pub use plan::{Cap, Change, Drift, LadderPlan, Limits, Note, Plan, Position, Refusal, Totals};
pub use planning::plan;
pub use refused::{ask_caps, ask_first};
#[cfg(feature = "cli")]
pub use render::render;
#[cfg(feature = "cli")]
pub use tails::{PartitionTail, tail_totals};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod plan_properties_tests;
#[cfg(test)]
mod plan_tests;
