//! One request to a bucket: serialized, signed and sent, and its answer parsed.
//!
//! The client of the SDK runs about forty plugins and interceptors for each request, which take more processor time
//! than everything else. So its parts are called directly: the serializer and the parser of the operation
//! ([`SdkOperation`]), the rules of addresses, the signer and the connector. The SDK still decides what is sent and how
//! an answer is understood. Retries, timeouts and the correction of the clock are left out: the next probe is the
//! retry, every caller has a deadline, and a wrong clock must be seen.

use std::marker::PhantomData;
use std::sync::LazyLock;
use std::time::SystemTime;

use aws_runtime::user_agent::{ApiMetadata, AwsUserAgent};
use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::meta::PKG_VERSION;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::interceptors::context::{Input, OutputOrError};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::ser_de::{
    DeserializeResponse as _, SerializeRequest as _, SharedRequestSerializer, SharedResponseDeserializer,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::os_shim_internal::Env;
use http_body_util::{BodyExt as _, Limited};

use super::answer::ANSWER_LIMIT_BYTES;
use super::bucket::AwsBucket;
use super::errors::{refused, unanswered, unreadable};
use super::operation::SdkOperation;
use super::xml::is_well_formed;
use crate::model::cause::innermost_cause;
use crate::s3::failure::S3Failure;

/// `User-Agent` of all requests: that of the SDK. The SDK appends `AWS_EXECUTION_ENV`, which may be any text, so the
/// environment is left out.
static USER_AGENT: LazyLock<String> = LazyLock::new(|| {
    let no_environment = Env::from_slice(&[]);
    AwsUserAgent::new_from_environment(no_environment, ApiMetadata::new("s3", PKG_VERSION)).aws_ua_header()
});

/// Statuses of trouble of one server, after which its connection is not used again. A load balancer may connect the
/// next request to another server.
const SERVER_TROUBLE: [u16; 4] = [500, 502, 503, 504];

/// A request that is not sent yet.
pub(super) struct BucketRequest<'bucket, O> {
    bucket: &'bucket AwsBucket,
    /// The request without its signature.
    pub(super) http: HttpRequest,
    limit_bytes: usize,
    requires_xml: bool,
    operation: PhantomData<O>,
}

/// Answer to a successful request.
pub(super) struct ParsedAnswer<T> {
    /// What the SDK has parsed.
    pub(super) content: T,
    /// The answer itself.
    pub(super) http: HttpResponse,
}

impl AwsBucket {
    /// Creates a request.
    ///
    /// # Errors
    /// [`S3Failure::Agent`] for parameters that cannot be sent.
    pub(super) fn request<O: SdkOperation>(
        &self,
        input: Result<O::Input, BuildError>,
    ) -> Result<BucketRequest<'_, O>, S3Failure> {
        let http = input.map_err(BoxError::from).and_then(|input| self.serialize::<O>(input));
        let http = http.map_err(|error| S3Failure::Agent(innermost_cause(&*error)))?;
        let limit_bytes = ANSWER_LIMIT_BYTES;
        Ok(BucketRequest { bucket: self, http, limit_bytes, requires_xml: false, operation: PhantomData })
    }

    fn serialize<O: SdkOperation>(&self, input: O::Input) -> Result<HttpRequest, BoxError> {
        let serializer = O::configuration().and_then(|parts| parts.load::<SharedRequestSerializer>());
        let serializer = serializer.ok_or("the SDK has no serializer of the operation")?;
        let mut request = serializer.serialize_input(Input::erase(input), &mut ConfigBag::base())?;
        request.uri_mut().set_endpoint(&self.sender.address.url)?;
        request.headers_mut().insert("user-agent", USER_AGENT.as_str());
        Ok(request)
    }
}

impl<O: SdkOperation> BucketRequest<'_, O> {
    /// Sets the limit of the answer, in bytes.
    pub(super) fn limited(self, limit_bytes: usize) -> Self {
        Self { limit_bytes, ..self }
    }

    /// Refuses a successful answer that is not well-formed XML.
    pub(super) fn requiring_xml(self) -> Self {
        Self { requires_xml: true, ..self }
    }

    /// Signs and sends the request, and parses its answer. The caller sets a deadline.
    ///
    /// # Errors
    /// Why there is no usable answer.
    pub(super) async fn send(self) -> Result<ParsedAnswer<O::Output>, S3Failure> {
        let Self { bucket, mut http, limit_bytes, requires_xml, .. } = self;
        let sender = &bucket.sender;
        sender.sign(&mut http, SystemTime::now()).map_err(|error| S3Failure::Agent(innermost_cause(&*error)))?;
        let connection = CaptureSmithyConnection::new();
        http.add_extension(connection.clone());
        let mut transmission = bucket.requests.begin(O::NAME);
        let mut answer = sender.connector.call(http).await.map_err(|error| unanswered(&error, limit_bytes))?;
        transmission.answered(answer.status().as_u16());
        bucket.clock.note(&answer);
        // The agent does not use this header, and some services send one that is not a date.
        answer.headers_mut().remove("expires");
        let body = answer.take_body();
        *answer.body_mut() = SdkBody::from_body_1_x(Limited::new(body, limit_bytes));
        let parsed = parse::<O>(&mut answer).await;
        if SERVER_TROUBLE.contains(&answer.status().as_u16())
            && let Some(connection) = connection.get()
        {
            connection.poison();
        }
        let content = match parsed {
            Ok(content) => content,
            Err(error) => {
                let told = error.as_operation_error().and_then(|told| told.downcast_ref::<O::Error>());
                return Err(match told {
                    Some(told) => refused(&answer, told, &sender.region, limit_bytes),
                    None => unreadable(&error, limit_bytes),
                });
            }
        };
        if requires_xml && !answer.body().bytes().is_some_and(is_well_formed) {
            return Err(S3Failure::NotS3("the answer is not complete, well-formed XML".to_owned()));
        }
        let content = content.downcast::<O::Output>();
        let content = content.map_err(|_| S3Failure::Agent("the SDK parsed another answer".to_owned()))?;
        Ok(ParsedAnswer { content, http: answer })
    }
}

/// Parses an answer as the SDK does. Only the content of an object is not read yet.
async fn parse<O: SdkOperation>(answer: &mut HttpResponse) -> OutputOrError {
    let parser = O::configuration().and_then(|parts| parts.load::<SharedResponseDeserializer>());
    let parser = parser.ok_or_else(|| OrchestratorError::other("the SDK has no parser of the operation"))?;
    let configuration = ConfigBag::base();
    if let Some(parsed) = parser.deserialize_streaming_with_config(answer, &configuration) {
        return parsed;
    }
    let body = answer.take_body().collect().await.map_err(OrchestratorError::response)?;
    *answer.body_mut() = SdkBody::from(body.to_bytes());
    parser.deserialize_nonstreaming_with_config(answer, &configuration)
}

#[cfg(test)]
mod tests;
