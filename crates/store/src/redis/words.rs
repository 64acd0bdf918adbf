//! Ids and numbers as the scripts write them. Lua's numbers are exact below 2^53, so whatever is
//! random is text. Knows no operations.

use volley_model::{ContainerId, GroupId, IdError};

/// What a Lua number holds exactly.
pub(super) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// 64 random bits: 16 hexadecimal digits.
pub(super) fn hex(bits: u64) -> String {
    format!("{bits:016x}")
}

pub(super) fn from_hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// A container's id with ten digits of index: sorts as the pair does.
pub(super) fn container(id: ContainerId) -> String {
    format!("{}-{:010}", id.group, id.index)
}

pub(super) fn container_from(text: &str) -> Option<ContainerId> {
    let (group, index) = text.split_once('-')?;
    let group: Result<GroupId, IdError> = group.parse();
    Some(ContainerId { group: group.ok()?, index: index.parse().ok()? })
}
