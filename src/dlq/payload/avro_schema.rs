//! Avro schemas, parsed by `apache-avro` and arranged for walking bodies.
//!
//! Only the parsing is left to the crate: the hard parts are names, namespaces, references and logical types. Its reader has
//! no depth limit and returns maps in random order; [`avro`](super::avro) replaces it.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

/// The index of a type in [`AvroSchema`].
pub(super) type TypeIndex = usize;

/// A type, with the indexes of its component types.
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
    Array(TypeIndex),
    Map(TypeIndex),
    Union(Union),
    Record {
        name: String,
        fields: Vec<(String, TypeIndex)>,
    },
    Enum {
        symbols: Vec<String>,
    },
    Fixed {
        size: usize,
    },
    /// Fixed size, or bytes.
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    /// 16 bytes.
    Uuid,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Union {
    /// Each with its tag in JSON.
    pub branches: Vec<(String, TypeIndex)>,
    /// Whether only one branch is not null, so that no tag is needed.
    pub untagged: bool,
}

/// A schema with everything that it refers to.
#[derive(Debug, Clone)]
pub struct AvroSchema {
    types: Vec<Type>,
    root: TypeIndex,
}

impl AvroSchema {
    /// Parses a schema; `references` are the schemas of the named types that it does not define itself.
    ///
    /// # Errors
    /// A parse error.
    pub fn parse(text: &str, references: &[&str]) -> Result<Self, String> {
        let (schema, others) = Schema::parse_str_with_list(text, references).map_err(|error| error.to_string())?;
        let mut building = Building::default();
        // Types may refer to each other in any order: names come first.
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

    pub(super) fn root(&self) -> TypeIndex {
        self.root
    }

    pub(super) fn get(&self, place: TypeIndex) -> &Type {
        &self.types[place]
    }

    /// The full name of the root record.
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
    named: BTreeMap<String, TypeIndex>,
}

/// The name of a type definition.
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
    fn add(&mut self, of: Type) -> TypeIndex {
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

    fn place(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<TypeIndex, String> {
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
                return self.named.get(&name).copied().ok_or_else(|| format!("the type {name} is not defined"));
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

/// The tag of a branch in JSON: the name of its type, ignoring logical types.
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
