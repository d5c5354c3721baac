//! TDH.PHYMEM.*: physical pages (architecture.md §7.9).

use crate::cx::{Cx, Flow, Stage};

pub(crate) fn cache_wb(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn page_rdmd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn page_reclaim(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn page_wbinvd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn pamt_add(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
pub(crate) fn pamt_remove(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
