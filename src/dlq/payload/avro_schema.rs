//! Avro schemas, parsed by `apache-avro` and laid out so that bodies can be walked.
//!
//! Only the parsing is left to the crate: names, namespaces, references and logical types are where schemas are hard. Its own
//! reader has no limit on depth and gives maps in random order; see [`avro`](super::avro) for what takes its place.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

/// The place of a type in [`AvroSchema`].
pub(super) type Place = usize;

/// A type, with the places of those that it is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(Place),
    Map(Place),
    Union(Union),
    Record {
        name: String,
        fields: Vec<(String, Place)>,
    },
    Enum {
        symbols: Vec<String>,
    },
    Fixed {
        size: usize,
    },
    /// Of a fixed size, or of bytes.
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    /// Of 16 bytes.
    Uuid,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Union {
    /// Each with the name that tags it in JSON.
    pub branches: Vec<(String, Place)>,
    /// Whether there is but one branch that is not null, so that no tag is needed.
    pub untagged: bool,
}

/// A schema with all that it refers to.
#[derive(Debug, Clone)]
pub struct AvroSchema {
    types: Vec<Type>,
    root: Place,
}

impl AvroSchema {
    /// Parses a schema; `references` are the texts of the schemas that hold the named types it does not define itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, references: &[&str]) -> Result<Self, String> {
        let (schema, others) = Schema::parse_str_with_list(text, references).map_err(|error| error.to_string())?;
        let mut building = Building::default();
        // Types may refer to one another in any order: names come first.
        building.declare(&schema, None);
        for other in &others {
            building.declare(other, None);
        }
        for other in &others {
            building.place(other, None)?;
        }
        let root = building.place(&schema, None)?;
        Ok(Self { types: building.types, root })
    }

    pub(super) fn root(&self) -> Place {
        self.root
    }

    pub(super) fn get(&self, place: Place) -> &Type {
        &self.types[place]
    }

    /// The full name of the record at the root.
    pub fn name(&self) -> Option<&str> {
        match self.get(self.root) {
            Type::Record { name, .. } => Some(name),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Building {
    types: Vec<Type>,
    named: BTreeMap<String, Place>,
}

/// The name that a type is defined under.
fn defined_name(schema: &Schema) -> Option<&Name> {
    match schema {
        Schema::Record(record) => Some(&record.name),
        Schema::Enum(of) => Some(&of.name),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => Some(&fixed.name),
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => Some(&fixed.name),
            InnerDecimalSchema::Bytes => None,
        },
        _ => None,
    }
}

impl Building {
    fn add(&mut self, of: Type) -> Place {
        self.types.push(of);
        self.types.len() - 1
    }

    fn declare(&mut self, schema: &Schema, namespace: Option<&str>) {
        if let Some(name) = defined_name(schema) {
            let name = name.fullname(namespace);
            if !self.named.contains_key(&name) {
                let place = self.add(Type::Null);
                self.named.insert(name, place);
            }
        }
        match schema {
            Schema::Array(array) => self.declare(&array.items, namespace),
            Schema::Map(map) => self.declare(&map.types, namespace),
            Schema::Union(union) => union.variants().iter().for_each(|branch| self.declare(branch, namespace)),
            Schema::Record(record) => {
                let inner = record.name.fully_qualified_name(namespace);
                record.fields.iter().for_each(|field| self.declare(&field.schema, inner.namespace()));
            }
            _ => {}
        }
    }

    fn place(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<Place, String> {
        let of = match schema {
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Type::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Type::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Type::String,
            Schema::Array(array) => Type::Array(self.place(&array.items, namespace)?),
            Schema::Map(map) => Type::Map(self.place(&map.types, namespace)?),
            Schema::Union(union) => self.union(union.variants(), namespace)?,
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.clone(), self.place(&field.schema, name.namespace())?));
                }
                Type::Record { name: name.fullname(None), fields }
            }
            Schema::Enum(of) => Type::Enum { symbols: of.symbols.clone() },
            Schema::Uuid(UuidSchema::Fixed(fixed)) if fixed.size == 16 => Type::Uuid,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Type::Fixed { size: fixed.size }
            }
            Schema::Decimal(decimal) => Type::Decimal {
                scale: decimal.scale,
                size: match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                },
            },
            Schema::Ref { name } => {
                let name = name.fullname(namespace);
                return self.named.get(&name).copied().ok_or_else(|| format!("the type {name} is defined nowhere"));
            }
        };
        match defined_name(schema) {
            None => Ok(self.add(of)),
            Some(name) => {
                let place = self.named[&name.fullname(namespace)];
                self.types[place] = of;
                Ok(place)
            }
        }
    }

    fn union(&mut self, variants: &[Schema], namespace: Option<&str>) -> Result<Type, String> {
        let mut branches = Vec::with_capacity(variants.len());
        for variant in variants {
            branches.push((tag(variant, namespace), self.place(variant, namespace)?));
        }
        let untagged = variants.iter().filter(|variant| !matches!(variant, Schema::Null)).count() <= 1;
        Ok(Type::Union(Union { branches, untagged }))
    }
}

/// What a branch is called in JSON: the name of its type, without regard to a logical type.
fn tag(schema: &Schema, namespace: Option<&str>) -> String {
    if let Some(name) = defined_name(schema) {
        return name.fullname(namespace);
    }
    let name = match schema {
        Schema::Ref { name } => return name.fullname(namespace),
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int | Schema::Date | Schema::TimeMillis => "int",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes | Schema::BigDecimal | Schema::Decimal(_) | Schema::Uuid(UuidSchema::Bytes) => "bytes",
        Schema::String | Schema::Uuid(_) => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        _ => "long",
    };
    name.to_owned()
}
