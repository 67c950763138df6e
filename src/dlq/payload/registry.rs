//! A client of a Confluent-compatible schema registry: as much of its REST API as reading needs.
//!
//! It only reads, and what it reads never changes: the schema of an id. Redirects are not followed, as the password goes where the
//! configuration says and nowhere else. Each request has a connection of its own; there are few, and none goes stale in between.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::runtime::Runtime;

use crate::config::RegistryConfig;

#[cfg(feature = "tls")]
type Connector = hyper_tls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Connector = HttpConnector;

/// How long a request may take, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Larger than registries take schemas.
const LARGEST_ANSWER: usize = 4 << 20;
/// More schemas behind one are a loop or a mistake.
const MOST_REFERENCES: usize = 200;

/// A schema registry. Its calls block: not for inside of a runtime.
pub struct Registry {
    client: Client<Connector, Empty<Bytes>>,
    runtime: Runtime,
    base: String,
    authorization: Option<HeaderValue>,
}

/// Why the registry gave no schema.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The client could not be made.
    #[error("the client of the schema registry cannot be made")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// No connection, or one that broke.
    #[error("the schema registry cannot be reached: {0}")]
    Away(String),
    /// It took longer than 10 s.
    #[error("the schema registry gave no answer within {} s", ANSWER_WITHIN.as_secs())]
    TooSlow,
    /// 404.
    #[error("the schema registry does not know it")]
    Unknown,
    /// 401 or 403.
    #[error("the schema registry refuses ({0}): see username and password below [schema_registry]")]
    Refused(StatusCode),
    /// 3xx.
    #[error("the schema registry redirects ({0}), which is not followed: see url below [schema_registry]")]
    Redirected(StatusCode),
    /// Any other status.
    #[error("the schema registry answers {0}")]
    Status(StatusCode),
    /// Not what a registry says.
    #[error("the schema registry's answer cannot be read: {0}")]
    Unreadable(String),
    /// References that do not end.
    #[error("the schema has more than {MOST_REFERENCES} references")]
    TooManyReferences,
}

impl RegistryError {
    /// Whether asking again later may help; what it says of a schema that there is, is final.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Away(_) | Self::TooSlow | Self::Refused(_) | Self::Redirected(_) | Self::Client(_) => true,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown | Self::Unreadable(_) | Self::TooManyReferences => false,
        }
    }
}

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum SchemaType {
    /// Avro; said by saying nothing.
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

/// A schema as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its language.
    pub schema_type: SchemaType,
    /// Its text.
    pub text: String,
    /// All that it refers to, each once, after those that it refers to itself.
    pub references: Vec<Referred>,
    /// A subject that it is registered under, with the version there; a schema may be under several.
    pub registered_as: Option<(String, u32)>,
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referred {
    /// How it is called there: the full name of an Avro type, the path of a Protobuf file.
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
    /// Makes the client; nothing is asked yet.
    ///
    /// # Errors
    /// When there is no runtime to be had, or the user's name or password cannot stand in a header.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        #[cfg(feature = "tls")]
        let tcp = hyper_tls::HttpsConnector::new_with_connector(tcp);
        let authorization = config.credentials.as_ref().map(|credentials| {
            let basic = BASE64.encode(format!("{}:{}", credentials.username, credentials.password));
            HeaderValue::try_from(format!("Basic {basic}")).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(tcp),
            runtime: runtime.map_err(|error| RegistryError::Client(error.into()))?,
            base: config.url.trim().trim_end_matches('/').to_owned(),
            authorization: authorization.transpose().map_err(|error| RegistryError::Client(error.into()))?,
        })
    }

    /// The schema of an id, with all that it refers to.
    ///
    /// # Errors
    /// When the registry does not know it or cannot be asked.
    pub fn schema(&self, id: u32) -> Result<Registered, RegistryError> {
        let answer: SchemaAnswer = self.get(&format!("/schemas/ids/{id}"))?;
        let mut references = References { registry: self, seen: BTreeSet::new(), found: Vec::new() };
        references.follow(answer.references.unwrap_or_default())?;
        let references = references.found;
        // Good to know only: older registries do not tell.
        let versions: Vec<VersionAnswer> = self.get(&format!("/schemas/ids/{id}/versions")).unwrap_or_default();
        Ok(Registered {
            schema_type: answer.schema_type.unwrap_or_default(),
            text: answer.schema,
            references,
            registered_as: versions.into_iter().map(|v| (v.subject, v.version)).min(),
        })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RegistryError> {
        let mut request = Request::get(format!("{}{path}", self.base))
            .header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| RegistryError::Client(error.into()))?;
        self.runtime.block_on(async {
            tokio::time::timeout(ANSWER_WITHIN, self.exchange(request)).await.map_err(|_| RegistryError::TooSlow)?
        })
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Empty<Bytes>>) -> Result<T, RegistryError> {
        let response = self.client.request(request).await.map_err(|error| RegistryError::Away(chain(&error)))?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Err(RegistryError::Unknown),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Err(RegistryError::Refused(status)),
            status if status.is_redirection() => return Err(RegistryError::Redirected(status)),
            status => return Err(RegistryError::Status(status)),
        }
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| RegistryError::Unreadable(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| RegistryError::Unreadable(error.to_string()))
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
            let answer: SchemaAnswer = self.registry.get(&format!("/subjects/{}/versions/{version}", encoded(&subject)))?;
            self.follow(answer.references.unwrap_or_default())?;
            self.found.push(Referred { name, text: answer.schema });
        }
        Ok(())
    }
}

/// A part of a path: all that might mean something there as `%XX`.
fn encoded(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// An error with its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = std::iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect();
    causes.join(": ")
}

#[cfg(test)]
#[path = "registry_tests.rs"]
pub(super) mod tests;
