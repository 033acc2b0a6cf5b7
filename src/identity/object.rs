//! Structs that are read from objects alone. What serde derives also takes a list of values in the order of the fields:
//! then this order would be a part of the format, and a key that is not known could not be refused.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};

/// What is made of the members of an object.
pub(crate) trait FromMembers<'de>: Sized {
    fn from_members<A: MapAccess<'de>>(members: A) -> Result<Self, A::Error>;
}

/// Reads an object.
pub(crate) fn read<'de, T: FromMembers<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Members<T>(PhantomData<T>);
    impl<'de, T: FromMembers<'de>> Visitor<'de> for Members<T> {
        type Value = T;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::from_members(members)
        }
    }
    deserializer.deserialize_map(Members(PhantomData))
}

/// Has structs be read from objects alone: those with `#[serde(remote = "Self")]` beside the derived `Deserialize`.
macro_rules! read_from_objects {
    ($($name:ident $(<$life:lifetime>)?),*) => {
        $(impl<'de $(: $life, $life)?> $crate::identity::object::FromMembers<'de> for $name $(<$life>)? {
            fn from_members<A: serde::de::MapAccess<'de>>(members: A) -> Result<Self, A::Error> {
                // The function that is derived beside the trait.
                Self::deserialize(serde::de::value::MapAccessDeserializer::new(members))
            }
        }

        impl<'de $(: $life, $life)?> serde::Deserialize<'de> for $name $(<$life>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::identity::object::read(deserializer)
            }
        })*
    };
}
pub(crate) use read_from_objects;
