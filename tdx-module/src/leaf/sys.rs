//! TDH.SYS.*: bringing the module up and down (architecture.md §7.9).

use crate::cx::{Cx, Flow, Stage};

pub(crate) fn init(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn lp_init(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn config(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn key_config(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn tdmr_init(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn info(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn rd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn rdall(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn shutdown(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn update(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
