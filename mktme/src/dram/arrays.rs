//! Serde for arrays of any length, which serde itself has only up to 32: the hot tables of a subchannel are arrays, so that
//! a masked index needs no check.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer, T: Serialize, const N: usize>(
    array: &[T; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    array.as_slice().serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
    deserializer: D,
) -> Result<[T; N], D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    let found = list.len();
    list.try_into()
        .map_err(|_| D::Error::custom(format_args!("expected {N} elements, found {found}")))
}
