//! A client of a Confluent-compatible schema registry, with the part of its REST API that reading
//! needs.
//!
//! It only reads, and schemas of an id never change. Redirects are not followed, since the password is only for the configured
//! address.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION};
use http::{Request, StatusCode};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::config::{RegistryConfig, redact};
use crate::dlq::payload::framing::SchemaName;
use crate::http_client::{HttpClient, HttpError};

/// Time limit of a request, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Larger than registries accept schemas.
const LARGEST_ANSWER: usize = 4 << 20;
/// More references indicate a loop or a mistake.
const MOST_REFERENCES: usize = 200;

/// A schema registry. Its calls block: not for use in a runtime.
pub struct Registry {
    client: HttpClient,
    base: String,
    authorization: Option<HeaderValue>,
}

/// Why the registry returned no schema.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The client could not be created.
    #[error("cannot create the client of the schema registry")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// Connection failed or broken.
    #[error("the schema registry cannot be reached: {0}")]
    Away(String),
    /// It took longer than 10 s.
    #[error("the schema registry gave no answer within {} s", ANSWER_WITHIN.as_secs())]
    TooSlow,
    /// 404.
    #[error("the schema registry does not know it")]
    Unknown,
    /// 401 or 403.
    #[error("the schema registry refuses ({0}): see username and password in [schema_registry]")]
    Refused(StatusCode),
    /// 3xx.
    #[error("the schema registry redirects to {to} ({status}), which is not followed: see url in [schema_registry]")]
    Redirected {
        /// The status.
        status: StatusCode,
        /// The target, without query and password.
        to: String,
    },
    /// Any other status.
    #[error("the schema registry answers {0}")]
    Status(StatusCode),
    /// The body is not what a registry returns.
    #[error("the schema registry's answer cannot be read: {0}")]
    Unreadable(String),
    /// Too many references.
    #[error("the schema has more than {MOST_REFERENCES} references")]
    TooManyReferences,
}

impl RegistryError {
    /// Whether a later request may succeed; answers about an existing schema are final.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Away(_) | Self::TooSlow | Self::Refused(_) | Self::Redirected { .. } | Self::Client(_) => true,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown | Self::Unreadable(_) | Self::TooManyReferences => false,
        }
    }
}

impl From<HttpError> for RegistryError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Client(cause) => Self::Client(cause),
            HttpError::Away(why) => Self::Away(why),
            HttpError::TooSlow => Self::TooSlow,
            HttpError::Body(why) => Self::Unreadable(why),
        }
    }
}

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum SchemaType {
    /// Avro; the default if none is given.
    #[default]
    #[serde(rename = "AVRO")]
    Avro,
    /// JSON Schema.
    #[serde(rename = "JSON")]
    Json,
    /// Protobuf.
    #[serde(rename = "PROTOBUF")]
    Protobuf,
}

/// A schema from the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its language.
    pub schema_type: SchemaType,
    /// Its text.
    pub text: String,
    /// Everything it refers to, each once, after its own references.
    pub references: Vec<Referred>,
    /// A subject and version that it is registered under; there may be several.
    pub subject_version: Option<(String, u32)>,
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referred {
    /// Its name there: the full name of an Avro type, the path of a Protobuf file.
    pub name: String,
    /// Its text.
    pub text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaAnswer {
    schema: String,
    #[serde(default)]
    schema_type: Option<SchemaType>,
    #[serde(default)]
    references: Option<Vec<ReferenceAnswer>>,
}

#[derive(Deserialize)]
struct ReferenceAnswer {
    name: String,
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct VersionAnswer {
    subject: String,
    version: u32,
}

impl Registry {
    /// Creates the client, without a request.
    ///
    /// # Errors
    /// The runtime cannot be created, or user name or password are not allowed in a header.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let authorization = config.credentials.as_ref().map(|credentials| {
            let basic = BASE64.encode(format!("{}:{}", credentials.username, credentials.password));
            HeaderValue::try_from(format!("Basic {basic}")).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Ok(Self {
            client: HttpClient::new(LARGEST_ANSWER)?,
            base: config.url.trim().trim_end_matches('/').to_owned(),
            authorization: authorization.transpose().map_err(|error| RegistryError::Client(error.into()))?,
        })
    }

    /// The schema of an id or a GUID, with everything it refers to.
    ///
    /// # Errors
    /// The registry does not know it or does not answer.
    pub fn schema(&self, name: SchemaName) -> Result<Registered, RegistryError> {
        let path = match name {
            SchemaName::Id(id) => format!("/schemas/ids/{id}"),
            SchemaName::Guid(_) => format!("/schemas/guids/{name}"),
        };
        let answer: SchemaAnswer = self.get(&path)?;
        let mut references = References { registry: self, seen: BTreeSet::new(), found: Vec::new() };
        references.follow(answer.references.unwrap_or_default())?;
        let references = references.found;
        // Optional: older registries do not support it.
        let versions: Vec<VersionAnswer> = match name {
            SchemaName::Id(_) => self.get(&format!("{path}/versions")).unwrap_or_default(),
            SchemaName::Guid(_) => Vec::new(),
        };
        Ok(Registered {
            schema_type: answer.schema_type.unwrap_or_default(),
            text: answer.schema,
            references,
            subject_version: versions.into_iter().map(|v| (v.subject, v.version)).min(),
        })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RegistryError> {
        let mut request = Request::get(format!("{}{path}", self.base))
            .header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json")
            .header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::default()).map_err(|error| RegistryError::Client(error.into()))?;
        let response = self.client.send(request, ANSWER_WITHIN)?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Err(RegistryError::Unknown),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Err(RegistryError::Refused(status)),
            status if status.is_redirection() => {
                let location = response.headers().get(LOCATION).map_or(b"nowhere".as_slice(), HeaderValue::as_bytes);
                let location = String::from_utf8_lossy(location);
                let to = redact::hide_in_urls(location.split(['?', '#']).next().unwrap_or_default());
                return Err(RegistryError::Redirected { status, to });
            }
            status => return Err(RegistryError::Status(status)),
        }
        let body = response.body();
        serde_json::from_slice(body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body))
            .map_err(|error| RegistryError::Unreadable(error.to_string()))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("base", &self.base).finish_non_exhaustive()
    }
}

struct References<'a> {
    registry: &'a Registry,
    seen: BTreeSet<(String, u32)>,
    found: Vec<Referred>,
}

impl References<'_> {
    fn follow(&mut self, references: Vec<ReferenceAnswer>) -> Result<(), RegistryError> {
        for ReferenceAnswer { name, subject, version } in references {
            if !self.seen.insert((subject.clone(), version)) {
                continue;
            }
            if self.seen.len() > MOST_REFERENCES {
                return Err(RegistryError::TooManyReferences);
            }
            let answer: SchemaAnswer =
                self.registry.get(&format!("/subjects/{}/versions/{version}", utf8_percent_encode(&subject, IN_A_SEGMENT)))?;
            self.follow(answer.references.unwrap_or_default())?;
            self.found.push(Referred { name, text: answer.schema });
        }
        Ok(())
    }
}

/// What is encoded in a path segment.
const IN_A_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
#[path = "registry_tests.rs"]
pub(super) mod tests;
