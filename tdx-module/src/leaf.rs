//! The leaves, in families. Each is a function of stages: the first checks, in the order of architecture.md §7.9, and
//! queues what is touched; the last commits.

pub(crate) mod disable;
pub(crate) mod guest;
pub(crate) mod mem;
pub(crate) mod mng;
pub(crate) mod mr;
pub(crate) mod phymem;
pub(crate) mod sys;
pub(crate) mod vp;
pub(crate) mod vp_fields;
