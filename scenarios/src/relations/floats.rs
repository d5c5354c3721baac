//! Whether state holds a floating-point number (verification.md N6): a serialiser that only counts what it is given.

use serde::Serialize;
use serde::ser::{
    self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::fmt::Display;
use thiserror::Error;

/// Why a value's numbers cannot be counted.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CountError {
    /// One of them has a floating point.
    #[error("the value holds a floating-point number")]
    Float,
    /// The value itself cannot be serialised.
    #[error("{0}")]
    Other(String),
}

impl ser::Error for CountError {
    fn custom<T: Display>(text: T) -> Self {
        CountError::Other(text.to_string())
    }
}

/// How many integers a value holds.
///
/// # Errors
/// It holds a number with a floating point.
pub fn count_numbers<T: Serialize + ?Sized>(value: &T) -> Result<u64, CountError> {
    let mut counter = Counter { numbers: 0 };
    value.serialize(&mut counter)?;
    Ok(counter.numbers)
}

struct Counter {
    numbers: u64,
}

type Counted = Result<(), CountError>;

macro_rules! integers {
    ($($name:ident $ty:ty),*) => {
        $(fn $name(self, _: $ty) -> Counted {
            self.numbers += 1;
            Ok(())
        })*
    };
}

impl Serializer for &mut Counter {
    type Ok = ();
    type Error = CountError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    integers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128
    );
    fn serialize_f32(self, _: f32) -> Counted {
        Err(CountError::Float)
    }
    fn serialize_f64(self, _: f64) -> Counted {
        Err(CountError::Float)
    }
    fn serialize_bool(self, _: bool) -> Counted {
        Ok(())
    }
    fn serialize_char(self, _: char) -> Counted {
        Ok(())
    }
    fn serialize_str(self, _: &str) -> Counted {
        Ok(())
    }
    fn serialize_bytes(self, _: &[u8]) -> Counted {
        Ok(())
    }
    fn serialize_none(self) -> Counted {
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Counted {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Counted {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Counted {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Counted {
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Counted {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Counted {
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, CountError> {
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, CountError> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, CountError> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, CountError> {
        Ok(self)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self, CountError> {
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CountError> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, CountError> {
        Ok(self)
    }
    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! elements {
    ($($of:ident $name:ident),*) => {
        $(impl $of for &mut Counter {
            type Ok = ();
            type Error = CountError;
            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Counted {
                value.serialize(&mut **self)
            }
            fn end(self) -> Counted {
                Ok(())
            }
        })*
    };
}
elements!(
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($of:ident),*) => {
        $(impl $of for &mut Counter {
            type Ok = ();
            type Error = CountError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Counted {
                value.serialize(&mut **self)
            }
            fn end(self) -> Counted {
                Ok(())
            }
        })*
    };
}
fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for &mut Counter {
    type Ok = ();
    type Error = CountError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Counted {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Counted {
        value.serialize(&mut **self)
    }
    fn end(self) -> Counted {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_found_however_deep_it_lies_and_integers_are_counted() {
        let deep = |x: f64| vec![(1u8, Some(std::collections::BTreeMap::from([(2u16, [x])])))];
        assert_eq!(count_numbers(&deep(0.0)), Err(CountError::Float));
        assert_eq!(count_numbers(&vec![(1u8, Some([2i64, 3])), (4, None)]), Ok(4));
        assert_eq!(count_numbers(&1.5f32), Err(CountError::Float));
    }
}
