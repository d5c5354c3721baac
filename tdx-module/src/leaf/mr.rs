//! TDH.MR.*: measurement (architecture.md §7.9).

use crate::cx::{Cx, Flow, Stage};

pub(crate) fn extend(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn finalize(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
