//! Which topics and offsets there should be, the plan from what there is, and its application.
