//! Webhooks: a notification is posted as JSON, and signed as Standard Webhooks specifies.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use jiff::Timestamp;
use tokio::time::timeout;

use super::attempt::AttemptError;
use super::error::NotifyError;
use super::notification::Notification;
use super::signature::Secrets;
use crate::http_client::{self, HttpClient};
use crate::model::cause::innermost_cause;
use crate::model::settings::WebhookSettings;
use crate::sys::resolve::RECEIVERS;

/// Largest part of a response body that is read, so that the connection can be reused. It is not used.
const ANSWER_MAX_BYTES: usize = 4096;

/// A webhook with the content of its files.
pub(super) struct Webhook {
    settings: WebhookSettings,
    client: HttpClient,
    secrets: Option<Secrets>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Webhook").field("origin", &self.settings.origin()).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Reads the files of a webhook. Sends nothing.
    pub(super) async fn load(settings: &WebhookSettings) -> Result<Self, NotifyError> {
        let secrets = match &settings.secret_file {
            Some(path) => Some(Secrets::read(path).await?),
            None => None,
        };
        let client = http_client::client(&settings.url, settings.ca_bundle.as_deref(), RECEIVERS.clone(), None).await?;
        Ok(Self { settings: settings.clone(), client, secrets })
    }

    /// Posts a notification once.
    pub(super) async fn post(&self, notification: &Notification) -> Result<(), AttemptError> {
        let request = self.request(notification).map_err(|error| AttemptError::Final(error.to_string()))?;
        let exchange = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| AttemptError::Temporary(innermost_cause(&error)))?;
            let status = answer.status();
            let _ = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
            judge(status)
        };
        let late = || format!("no answer within {} s", self.settings.timeout.as_secs_f64());
        timeout(self.settings.timeout, exchange).await.unwrap_or_else(|_| Err(AttemptError::Temporary(late())))
    }

    fn request(&self, notification: &Notification) -> http::Result<Request<Full<Bytes>>> {
        let timestamp = Timestamp::now().as_second();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.settings.url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("targetwatch/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &notification.id)
            .header("webhook-timestamp", timestamp);
        if let Some(secrets) = &self.secrets {
            let signature = secrets.sign(&notification.id, timestamp, &notification.body);
            request = request.header("webhook-signature", HeaderValue::try_from(signature)?);
        }
        request.body(Full::new(notification.body.clone()))
    }
}

/// A server that is overloaded or fails may accept the notification later. Any other status is its decision.
fn judge(status: StatusCode) -> Result<(), AttemptError> {
    const RETRIED: [StatusCode; 3] =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    let problem = format!("HTTP status {}", status.as_u16());
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(AttemptError::Final(format!("{problem}: redirects are not followed. Set the final URL")))
    } else if status.is_server_error() || RETRIED.contains(&status) {
        Err(AttemptError::Temporary(problem))
    } else {
        Err(AttemptError::Final(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_decides_whether_a_request_is_repeated() {
        for (status, expected) in [
            (200, None),
            (204, None),
            (301, Some(false)),
            (400, Some(false)),
            (410, Some(false)),
            (408, Some(true)),
            (429, Some(true)),
            (500, Some(true)),
            (503, Some(true)),
        ] {
            let judged = judge(StatusCode::from_u16(status).expect("a status"));
            let is_retried = judged.err().map(|error| matches!(error, AttemptError::Temporary(_)));
            assert_eq!(is_retried, expected, "{status}");
        }
    }
}
