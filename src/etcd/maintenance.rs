//! State of the members, for the operator.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;

use super::client::EtcdClient;
use super::error::EtcdError;
use super::gateway;
use super::member_status::MemberStatus;

/// Deadline of the questions to one member.
const STATUS_TIMEOUT: Duration = Duration::from_secs(4);

/// The metric with the quota, which the status of members before 3.6 does not have.
const QUOTA_METRIC: &str = "etcd_server_quota_backend_bytes ";

impl EtcdClient {
    /// Asks every endpoint for the state of its member. Returns the URLs with the answers.
    pub async fn member_statuses(&self) -> Vec<(&str, Result<MemberStatus, EtcdError>)> {
        let urls = self.urls().iter().enumerate();
        join_all(urls.map(async |(at, url)| (url.as_str(), self.member_status(at, url).await))).await
    }

    async fn member_status(&self, at: usize, url: &str) -> Result<MemberStatus, EtcdError> {
        let deadline = Instant::now() + STATUS_TIMEOUT;
        let not_a_url = |_| EtcdError::Unreachable(format!("{url} is not a URL"));
        let token = self.token(at, deadline).await?;
        let request = Request::post(format!("{url}/v3/maintenance/status")).header(CONTENT_TYPE, "application/json");
        let request = token.iter().fold(request, |request, token| request.header(AUTHORIZATION, &**token));
        let request = request.body(Full::new(Bytes::from_static(b"{}"))).map_err(not_a_url)?;
        let (status, body) = self.send(at, request, deadline).await?;
        if status != StatusCode::OK {
            return Err(gateway::error(status, &body).0);
        }
        let mut member = gateway::member_status(&body)?;
        if member.quota_bytes.is_none() {
            let request = Request::get(format!("{url}/metrics")).body(Full::default()).map_err(not_a_url)?;
            // A member may serve its metrics elsewhere.
            member.quota_bytes = self.send(at, request, deadline).await.ok().and_then(|(_, body)| quota_of(&body));
        }
        Ok(member)
    }
}

/// Returns the quota from the metrics of a member.
fn quota_of(metrics: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(metrics).ok()?;
    let value: f64 = text.lines().find_map(|line| line.strip_prefix(QUOTA_METRIC))?.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size, and casts saturate")]
    (value > 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_read_from_metrics() {
        let metrics = b"# HELP etcd_server_quota_backend_bytes Current backend storage quota size in bytes.\n\
            # TYPE etcd_server_quota_backend_bytes gauge\netcd_server_quota_backend_bytes 2.147483648e+09\n";
        assert_eq!(quota_of(metrics), Some(2 << 30));
        assert_eq!(quota_of(b"404 page not found"), None);
    }
}
