//! TDH.VP.*: VCPUs, and the way into and out of a TD (architecture.md §7.9).

use crate::cx::{Cx, Flow, Stage};

pub(crate) fn create(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn addcx(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn init(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn enter(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn flush(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn rd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn wr(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
