//! Avro bodies as JSON and back.
//!
//! The mapping is Avro's own JSON encoding with three changes for readability and for jq, none of which loses
//! information:
//!
//! | Avro | JSON |
//! |---|---|
//! | record, map | an object |
//! | union with one branch beside null (or none) | null, or the plain value |
//! | any other union | null, or `{"BRANCH": value}`: the type's name, for records, enums and fixed the full one |
//! | bytes, fixed, duration | a string, each byte the character of the same number (U+0000 to U+00FF), as Avro has it |
//! | decimal | a string such as `"-12.50"`, with `scale` decimal places |
//! | uuid of 16 bytes | a string such as `"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"` |
//! | int, long, dates and times | a whole number |
//! | float, double | a number; `"NaN"`, `"Infinity"` and `"-Infinity"` are strings |
//! | enum | its symbol |
//!
//! Bodies are walked here instead of by `apache-avro`, which would need the same walk from its values to JSON, follows a hostile
//! body to any depth (until the stack overflows), and returns the entries of maps in random order. Depth and number of values are
//! limited. Arrays and maps are written as one block, as the usual encoders do; map entries are sorted by key.
//!
//! Java's serializer writes a value of the bare schema `"bytes"` without its length: such a body cannot be
//! decoded.

use num_bigint::BigInt;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

pub use crate::dlq::payload::avro_schema::AvroSchema;
use crate::dlq::payload::avro_schema::{Type, TypeIndex, Union};
use crate::dlq::payload::framing::{put_zigzag, zigzag};

/// Readers of JSON accept 128 levels.
const DEEPEST: usize = 100;
/// Values of zero bytes still cost memory: an array of a billion nulls takes six bytes.
const MOST_VALUES_BEYOND_BYTES: usize = 100_000;
/// Longer ones take minutes to convert to decimal.
const LONGEST_DECIMAL: usize = 1024;

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct AvroBody {
    /// Its JSON.
    pub json: Value,
    /// What would be lost if the JSON were encoded again.
    pub loss: Option<String>,
}

impl AvroSchema {
    /// Decodes a whole body.
    ///
    /// # Errors
    /// Where it does not match the schema, and why.
    pub fn decode(&self, body: &[u8]) -> Result<AvroBody, String> {
        let values = body.len() + MOST_VALUES_BEYOND_BYTES;
        let mut reader = Reader { schema: self, rest: body, depth: 0, values, loss: None };
        let json = reader.read(self.root()).map_err(Fault::message)?;
        match reader.rest.len() {
            0 => Ok(AvroBody { json, loss: reader.loss }),
            left => Err(format!("{left} bytes are left after the value")),
        }
    }

    /// Encodes JSON of the form that [`AvroSchema::decode`] returns. Missing fields are not filled with their defaults.
    ///
    /// # Errors
    /// Where it does not match the schema, and why.
    pub fn encode(&self, json: &Value) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        self.write(self.root(), json, &mut out).map_err(Fault::message)?;
        Ok(out)
    }

    fn write(&self, place: TypeIndex, json: &Value, out: &mut Vec<u8>) -> Result<(), Fault> {
        match (self.get(place), json) {
            (Type::Null, Value::Null) => {}
            (Type::Boolean, Value::Bool(truth)) => out.push(u8::from(*truth)),
            (Type::Int, Value::Number(number)) => {
                let int = whole(number).and_then(|n| i32::try_from(n).ok());
                put_zigzag(int.ok_or_else(|| Fault::new(format!("{number} is not a 32-bit int")))?.into(), out);
            }
            (Type::Long, Value::Number(number)) => {
                put_zigzag(whole(number).ok_or_else(|| Fault::new(format!("{number} is not a 64-bit long")))?, out);
            }
            (Type::Float, json) => out.extend(narrow(float(json, "a float")?).to_le_bytes()),
            (Type::Double, json) => out.extend(float(json, "a double")?.to_le_bytes()),
            (Type::String, Value::String(text)) => put_bytes(text.as_bytes(), out)?,
            (Type::Bytes, Value::String(text)) => put_bytes(&from_characters(text)?, out)?,
            (Type::Fixed { size }, Value::String(text)) => out.extend(sized(from_characters(text)?, *size)?),
            (Type::Uuid, Value::String(text)) => {
                let uuid = Uuid::try_parse(text).map_err(|_| Fault::new(format!("{text:?} is not a UUID")))?;
                out.extend(uuid.into_bytes());
            }
            (Type::Decimal { scale, size }, Value::String(text)) => {
                let bytes = from_decimal(text, *scale)?.to_signed_bytes_be();
                match size {
                    None => put_bytes(&bytes, out)?,
                    Some(size) => out.extend(
                        sign_extended(&bytes, *size)
                            .ok_or_else(|| Fault::new(format!("the decimal {text} does not fit in {size} bytes")))?,
                    ),
                }
            }
            (Type::Enum { symbols }, Value::String(text)) => {
                let index = symbols.iter().position(|symbol| symbol == text);
                let index = index.ok_or_else(|| Fault::new(format!("{text:?} is not one of {}", symbols.join(", "))))?;
                put_length(index, out)?;
            }
            (Type::Array(items), Value::Array(elements)) => {
                if !elements.is_empty() {
                    put_length(elements.len(), out)?;
                    for (index, element) in elements.iter().enumerate() {
                        self.write(*items, element, out).map_err(|fault| fault.inside(&format!("[{index}]")))?;
                    }
                }
                out.push(0);
            }
            (Type::Map(values), Value::Object(entries)) => {
                if !entries.is_empty() {
                    put_length(entries.len(), out)?;
                    for (key, value) in entries {
                        put_bytes(key.as_bytes(), out)?;
                        self.write(*values, value, out).map_err(|fault| fault.inside(&format!(".{key}")))?;
                    }
                }
                out.push(0);
            }
            (Type::Record { name, fields }, Value::Object(entries)) => {
                if let Some(unknown) = entries.keys().find(|key| !fields.iter().any(|(field, _)| field == *key)) {
                    return Err(Fault::new(format!("{name} has no field {unknown}")));
                }
                for (field, place) in fields {
                    let value = entries.get(field).ok_or_else(|| Fault::new(format!("the field {field} is missing")))?;
                    self.write(*place, value, out).map_err(|fault| fault.inside(&format!(".{field}")))?;
                }
            }
            (Type::Union(union), json) => self.write_union(union, json, out)?,
            (of, json) => return Err(Fault::new(format!("is {}, not {}", kind(json), wanted(of)))),
        }
        Ok(())
    }

    fn write_union(&self, union: &Union, json: &Value, out: &mut Vec<u8>) -> Result<(), Fault> {
        let names = || union.branches.iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>().join(", ");
        let find = |wanted: &dyn Fn(&str, TypeIndex) -> bool| union.branches.iter().position(|(tag, place)| wanted(tag, *place));
        let is_null = |place| matches!(self.get(place), Type::Null);
        let (index, value, step) = match json {
            Value::Null => (find(&|_, place| is_null(place)), json, String::new()),
            _ if union.untagged => (find(&|_, place| !is_null(place)), json, String::new()),
            Value::Object(entries) if entries.len() == 1 => {
                let (key, value) = entries.iter().next().expect("one entry");
                (find(&|tag, place| tag == key && !is_null(place)), value, format!(".{key}"))
            }
            _ => (None, json, String::new()),
        };
        let Some(index) = index else {
            let how = if union.untagged { "a value of" } else { "null or an object with one key, which is" };
            return Err(Fault::new(format!("is {}, not {how} one of {}", kind(json), names())));
        };
        put_length(index, out)?;
        self.write(union.branches[index].1, value, out).map_err(|fault| fault.inside(&step))
    }
}

/// What does not match, and where.
#[derive(Debug)]
struct Fault {
    /// From the innermost outwards.
    steps: Vec<String>,
    what: String,
}

impl Fault {
    fn new(what: impl Into<String>) -> Self {
        Self { steps: Vec::new(), what: what.into() }
    }

    fn inside(mut self, step: &str) -> Self {
        self.steps.push(step.to_owned());
        self
    }

    fn message(self) -> String {
        let path: String = self.steps.into_iter().rev().collect();
        if path.is_empty() { self.what } else { format!("{path}: {}", self.what) }
    }
}

struct Reader<'a> {
    schema: &'a AvroSchema,
    rest: &'a [u8],
    depth: usize,
    /// How many more values are allowed.
    values: usize,
    /// What the JSON does not contain.
    loss: Option<String>,
}

impl Reader<'_> {
    fn read(&mut self, place: TypeIndex) -> Result<Value, Fault> {
        self.values = self.values.checked_sub(1).ok_or_else(|| Fault::new("there are too many values"))?;
        if self.depth == DEEPEST {
            return Err(Fault::new(format!("values are nested deeper than {DEEPEST} levels")));
        }
        self.depth += 1;
        let value = self.read_type(place)?;
        self.depth -= 1;
        Ok(value)
    }

    fn read_type(&mut self, place: TypeIndex) -> Result<Value, Fault> {
        let schema = self.schema;
        Ok(match schema.get(place) {
            Type::Null => Value::Null,
            Type::Boolean => match self.take(1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                other => return Err(Fault::new(format!("the byte {} is neither true nor false", other[0]))),
            },
            Type::Int => match i32::try_from(self.long()?) {
                Ok(int) => int.into(),
                Err(_) => return Err(Fault::new("an int has more than 32 bits")),
            },
            Type::Long => self.long()?.into(),
            Type::Float => from_float(widen(f32::from_le_bytes(self.array()?))),
            Type::Double => from_float(f64::from_le_bytes(self.array()?)),
            Type::Bytes => to_characters(self.bytes()?),
            Type::Fixed { size } => to_characters(self.take(*size)?),
            Type::Uuid => Uuid::from_bytes(self.array()?).to_string().into(),
            Type::Decimal { scale, size: None } => to_decimal(self.bytes()?, *scale)?,
            Type::Decimal { scale, size: Some(size) } => to_decimal(self.take(*size)?, *scale)?,
            Type::String => self.string()?.into(),
            Type::Enum { symbols } => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                symbol.ok_or_else(|| Fault::new(format!("no symbol {index}")))?.as_str().into()
            }
            Type::Array(items) => {
                let mut elements = Vec::new();
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        let step = elements.len();
                        elements.push(self.read(*items).map_err(|fault| fault.inside(&format!("[{step}]")))?);
                    }
                }
                Value::Array(elements)
            }
            Type::Map(values) => {
                let mut entries = Map::new();
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        let key = self.string()?.to_owned();
                        let value = self.read(*values).map_err(|fault| fault.inside(&format!(".{key}")))?;
                        if entries.insert(key.clone(), value).is_some() {
                            self.loss.get_or_insert_with(|| format!("duplicate key {key:?} in a map"));
                        }
                    }
                }
                Value::Object(entries)
            }
            Type::Record { fields, .. } => {
                let mut entries = Map::new();
                for (field, place) in fields {
                    let value = self.read(*place).map_err(|fault| fault.inside(&format!(".{field}")))?;
                    entries.insert(field.clone(), value);
                }
                Value::Object(entries)
            }
            Type::Union(union) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| union.branches.get(index));
                let (tag, place) = branch.ok_or_else(|| Fault::new(format!("no branch {index}")))?;
                let value = self.read(*place)?;
                if union.untagged || matches!(schema.get(*place), Type::Null) {
                    value
                } else {
                    Value::Object(Map::from_iter([(tag.clone(), value)]))
                }
            }
        })
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(|| Fault::new("the body ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    fn long(&mut self) -> Result<i64, Fault> {
        zigzag(&mut self.rest).ok_or_else(|| Fault::new("a number is truncated or too long"))
    }

    fn bytes(&mut self) -> Result<&[u8], Fault> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| Fault::new(format!("{length} is not a length")))?;
        self.take(length)
    }

    fn string(&mut self) -> Result<&str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::new("a string is not UTF-8"))
    }

    /// Number of items in the next block; `None` after the last one. A negative count is followed by the block's size in bytes.
    fn block(&mut self) -> Result<Option<u64>, Fault> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok((count != 0).then_some(count.unsigned_abs()))
    }
}

fn put_length(length: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    put_zigzag(i64::try_from(length).map_err(|_| Fault::new("is too long"))?, out);
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    put_length(bytes.len(), out)?;
    out.extend(bytes);
    Ok(())
}

/// A whole number, also if written as `5.0`.
fn whole(number: &Number) -> Option<i64> {
    const EXACT_TO: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= EXACT_TO)?;
        format!("{float:.0}").parse().ok()
    })
}

fn float(json: &Value, wanted: &str) -> Result<f64, Fault> {
    let found = match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| Fault::new(format!("is {}, not {wanted}", kind(json))))
}

fn from_float(float: f64) -> Value {
    let word = if float.is_nan() {
        "NaN"
    } else if float > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Number::from_f64(float).map_or_else(|| word.into(), Value::Number)
}

/// The double that prints like the float (0.1, not 0.10000000149011612), if it converts back to the same float.
fn widen(float: f32) -> f64 {
    let short = float.to_string().parse().unwrap_or(f64::from(float));
    if narrow(short).to_bits() == float.to_bits() { short } else { f64::from(float) }
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest float is what is asked for")]
fn narrow(double: f64) -> f32 {
    double as f32
}

fn to_characters(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into()
}

fn from_characters(text: &str) -> Result<Vec<u8>, Fault> {
    let byte =
        |char| u8::try_from(u32::from(char)).map_err(|_| Fault::new(format!("the character {char:?} does not represent a byte")));
    text.chars().map(byte).collect()
}

fn sized(bytes: Vec<u8>, size: usize) -> Result<Vec<u8>, Fault> {
    if bytes.len() == size { Ok(bytes) } else { Err(Fault::new(format!("has {} bytes, not {size}", bytes.len()))) }
}

fn to_decimal(bytes: &[u8], scale: usize) -> Result<Value, Fault> {
    if bytes.len() > LONGEST_DECIMAL || scale > LONGEST_DECIMAL {
        return Err(Fault::new(format!("a decimal of {} bytes and {scale} places is too long to convert", bytes.len())));
    }
    let unscaled = BigInt::from_signed_bytes_be(bytes).to_string();
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled.as_str()), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    Ok(format!("{sign}{whole}{point}{part}").into())
}

fn from_decimal(text: &str, scale: usize) -> Result<BigInt, Fault> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !plain(digits) || !plain(part) || text.ends_with('.') || text.len() > 3 * LONGEST_DECIMAL {
        return Err(Fault::new(format!("{text:?} is not a decimal number such as \"12.50\"")));
    }
    if part.len() > scale {
        return Err(Fault::new(format!("{text:?} has more than {scale} decimal places")));
    }
    format!("{whole}{part:0<scale$}").parse().map_err(|_| Fault::new(format!("{text:?} is not a decimal number")))
}

fn sign_extended(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let missing = size.checked_sub(bytes.len())?;
    let fill = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut extended = vec![fill; missing];
    extended.extend(bytes);
    Some(extended)
}

fn kind(json: &Value) -> &'static str {
    match json {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wanted(of: &Type) -> &'static str {
    match of {
        Type::Null => "null",
        Type::Boolean => "true or false",
        Type::Int => "an int",
        Type::Long => "a long",
        Type::Float | Type::Double => "a number",
        Type::Bytes | Type::Fixed { .. } => "a string that represents bytes",
        Type::String => "a string",
        Type::Uuid => "a UUID in a string",
        Type::Decimal { .. } => "a decimal number in a string",
        Type::Enum { .. } => "a symbol in a string",
        Type::Array(_) => "an array",
        Type::Map(_) | Type::Record { .. } => "an object",
        Type::Union(_) => "a value of the union",
    }
}

#[cfg(test)]
#[path = "avro_tests.rs"]
mod tests;
