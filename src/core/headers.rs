//! Record headers as in Kafka: an ordered list in which names repeat, values may be null, and names may be any bytes.

/// The prefix of all headers that kladder writes.
pub const PREFIX: &str = "kladder-";

/// Whether a header is kladder's, of this version or another.
#[must_use]
pub fn is_own(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}
/// One header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name; UTF-8 by convention only.
    pub name: Vec<u8>,
    /// The value; null and empty are different.
    pub value: Option<Vec<u8>>,
}

/// The headers of a record, in order, with duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a header.
    pub fn push(&mut self, name: impl Into<Vec<u8>>, value: Option<impl Into<Vec<u8>>>) {
        self.0.push(Header { name: name.into(), value: value.map(Into::into) });
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|h| (h.name.as_slice(), h.value.as_deref()))
    }

    /// The last value of a name, as most clients read it; `None` if the name is absent or its value null.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|h| h.name == name.as_bytes()).and_then(|h| h.value.as_deref())
    }

    /// The same as text; invalid UTF-8 is replaced.
    #[must_use]
    pub fn last_text(&self, name: &str) -> Option<String> {
        self.last(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Removes every header whose name matches the condition.
    pub fn remove_if(&mut self, mut condition: impl FnMut(&[u8]) -> bool) {
        self.0.retain(|h| !condition(&h.name));
    }

    /// Number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<T: IntoIterator<Item = Header>>(headers: T) -> Self {
        Self(headers.into_iter().collect())
    }
}
