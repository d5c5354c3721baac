//! TDH.MNG.*: a TD from its first page to the release of its key (architecture.md §7.9).

use crate::cx::{Cx, Flow, Stage};

pub(crate) fn create(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn key_config(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn addcx(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn init(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn vpflushdone(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn key_freeid(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn rd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn wr(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
