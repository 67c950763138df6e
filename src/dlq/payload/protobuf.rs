//! Protobuf bodies as JSON and back, by the canonical JSON mapping of Protobuf.
//!
//! Fields have their JSON names (`order_id` is `orderId`; encoding accepts both), 64-bit integers are strings, bytes are base64,
//! and fields with their default value are left out. The registry returns the text of a `.proto` file or, for some clients, its
//! descriptor in base64; imports come from its references, Google's well-known types and Confluent's two own files.
//!
//! Indexes of nested messages are counted as by Java's serializer: without map entries, which the compiler turns into messages.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions, Value as Field};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::Value;

/// File name of the schema itself; no other file imports it.
const MAIN: &str = "kladder.schema.proto";

/// Confluent's serializers know these without a reference.
const CONFLUENT: [(&str, &str); 2] = [
    (
        "confluent/meta.proto",
        "syntax = \"proto3\";
        package confluent;
        import \"google/protobuf/descriptor.proto\";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }",
    ),
    (
        "confluent/type/decimal.proto",
        "syntax = \"proto3\";
        package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
    ),
];

/// A compiled file.
#[derive(Debug, Clone)]
pub struct ProtobufSchema(FileDescriptor);

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtobufBody {
    /// The message's full name.
    pub name: String,
    /// Its JSON.
    pub json: Value,
    /// What would be lost if the JSON were encoded again.
    pub loss: Option<String>,
    /// Whether encoding the JSON gives an equal message with other bytes.
    pub is_laid_out_otherwise: bool,
}

impl ProtobufSchema {
    /// Compiles a file; `references` are the imported files with their import paths.
    ///
    /// # Errors
    /// A compiler error.
    pub fn compile(text: &str, references: &[(&str, &str)]) -> Result<Self, String> {
        let main = open(MAIN, text)?;
        let name = main.name().to_owned();
        let mut files = BTreeMap::new();
        for (path, text) in references.iter().chain(&CONFLUENT) {
            if !files.contains_key(*path) {
                files.insert((*path).to_owned(), open(path, text)?);
            }
        }
        files.insert(name.clone(), main);
        let mut resolver = ChainFileResolver::new();
        resolver.add(Given(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_file(&name).map_err(|error| error.to_string())?;
        let file = compiler.descriptor_pool().get_file_by_name(&name);
        file.map(Self).ok_or_else(|| format!("{name} was not compiled"))
    }

    /// Decodes the body of the message at these indexes.
    ///
    /// # Errors
    /// Where it does not match the schema, and why.
    pub fn decode(&self, indexes: &[usize], body: &[u8]) -> Result<ProtobufBody, String> {
        let descriptor = self.message(indexes)?;
        let message = DynamicMessage::decode(descriptor.clone(), body).map_err(|error| error.to_string())?;
        let json = to_json(&message)?;
        let again = from_json(descriptor.clone(), &json);
        let bytes = again.as_ref().map(prost_reflect::prost::Message::encode_to_vec);
        let is_equal = again.as_ref().is_ok_and(|again| *again == message);
        let is_same = bytes.is_ok_and(|bytes| bytes == body);
        let loss = match unknown_field(&message) {
            Some(number) => Some(format!("field {number} is not in the schema, and JSON cannot represent it")),
            None if is_equal || is_same => None,
            None => Some("its JSON does not convert back to the message".to_owned()),
        };
        let is_laid_out_otherwise = loss.is_none() && !is_same;
        Ok(ProtobufBody { name: descriptor.full_name().to_owned(), json, loss, is_laid_out_otherwise })
    }

    /// Encodes JSON as the message at these indexes.
    ///
    /// # Errors
    /// Where it does not match the schema, and why.
    pub fn encode(&self, indexes: &[usize], json: &Value) -> Result<Vec<u8>, String> {
        Ok(from_json(self.message(indexes)?, json)?.encode_to_vec())
    }

    fn message(&self, indexes: &[usize]) -> Result<MessageDescriptor, String> {
        let nowhere = || format!("no message at {indexes:?} in the file");
        let (first, deeper) = indexes.split_first().ok_or_else(nowhere)?;
        let top = self.0.messages().nth(*first).ok_or_else(nowhere)?;
        deeper.iter().try_fold(top, |message, index| {
            message.child_messages().filter(|child| !child.is_map_entry()).nth(*index).ok_or_else(nowhere)
        })
    }
}

/// The files of one schema.
struct Given(BTreeMap<String, File>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        self.0.get(name).cloned().ok_or_else(|| protox::Error::file_not_found(name))
    }
}

fn open(name: &str, text: &str) -> Result<File, String> {
    // Clients for Python register descriptors, and not every registry converts them to text.
    let descriptor = BASE64.decode(text.trim()).ok().and_then(|bytes| File::decode_file_descriptor_proto(&bytes[..]).ok());
    descriptor.map_or_else(|| File::from_source(name, text).map_err(|error| format!("{name}: {error}")), Ok)
}

fn to_json(message: &DynamicMessage) -> Result<Value, String> {
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(|error| format!("it has no JSON form: {error}"))
}

fn from_json(descriptor: MessageDescriptor, json: &Value) -> Result<DynamicMessage, String> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(json, &mut track);
    DynamicMessage::deserialize(descriptor, tracked).map_err(|error| format!(".{}: {error}", track.path()))
}

/// The number of a field anywhere in the message that its schema does not have.
fn unknown_field(message: &DynamicMessage) -> Option<u32> {
    let own = message.unknown_fields().next().map(prost_reflect::UnknownField::number);
    own.or_else(|| message.fields().find_map(|(_, field)| unknown_inside(field)))
        .or_else(|| message.extensions().find_map(|(_, field)| unknown_inside(field)))
}

fn unknown_inside(field: &Field) -> Option<u32> {
    match field {
        Field::Message(message) => unknown_field(message),
        Field::List(fields) => fields.iter().find_map(unknown_inside),
        Field::Map(entries) => entries.values().find_map(unknown_inside),
        _ => None,
    }
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
