//! Which topics and offsets there should be, the plan from what there is, and its application.
//!
//! Everything but [`apply()`] is pure: [`desired()`] says what a ladder needs, [`plan()`] compares that with what a [`Cluster`] has
//! observed. A plan is complete: it is carried out as a whole or, with one refusal in it, not at all. Applied, it leaves nothing to
//! do for the next one. Existing settings are never altered from here: the client's only call for it replaces all settings of a
//! topic, those that others made included. They are told as drift, with the command that alters exactly one.

mod acls;
mod apply;
mod cluster;
mod compare;
mod desired;
pub mod doctor;
mod lost;
mod members;
mod observed;
mod plan;
mod planning;
mod render;
mod tails;

pub use acls::{Acl, AclRole, Operation, Resource, acls, commands as acl_commands};
pub use apply::{Step, apply};
pub use cluster::{Cluster, ClusterError};
pub use desired::{Desired, DesiredOffsets, DesiredTopic, HEADER_BUDGET, StartRule, desired, desired_of_queue};
pub use lost::{LostOffsets, lost_offsets};
pub use members::{GroupMember, foreign_members, other_ladder};
pub use observed::{GroupFacts, Observed, Scope, TopicFacts, Watermarks};
pub use plan::{Change, Drift, LadderPlan, Limits, Note, Plan, Position, Refusal, Totals};
pub use planning::plan;
pub use render::render;
pub use tails::{PartitionTail, TailTotals, tail_totals};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod properties;
