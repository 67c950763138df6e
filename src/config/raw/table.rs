//! Tables as tables only.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, Visitor};

/// A table: serde's derived structs also accept lists, field by field.
pub(super) struct Section<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Section<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<Section<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(Section)
            }
        }

        deserializer.deserialize_any(Entries(PhantomData))
    }
}

pub(super) fn table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Section::deserialize(deserializer).map(|section| Some(section.0))
}

pub(super) fn tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, T>>, D::Error> {
    let sections: BTreeMap<String, Section<T>> = BTreeMap::deserialize(deserializer)?;
    Ok(Some(sections.into_iter().map(|(name, section)| (name, section.0)).collect()))
}

pub(super) fn list_of_tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct Elements<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of tables")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(Section(element)) = elements.next_element()? {
                all.push(element);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(Elements(PhantomData)).map(Some)
}
