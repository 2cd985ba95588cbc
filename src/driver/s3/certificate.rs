//! When the certificates of a service end.
//!
//! The connector of the SDK does not show the chain that a service presents, so a handshake without a request reads it.
//! It runs beside the requests of the check `bucket`. A routine probe does that once an hour, and at every probe when
//! the end is near, so that a renewal ends the warning. A requested check always does it. A failed handshake is neither
//! a failure nor a warning: the end is then unknown.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::driver::driver_trait::Depth;
use crate::model::report::{CertificateEnd, Finding, finding};
use crate::model::{END_ANNOUNCED_BEFORE, Reason, S3Location};
use crate::s3::aws::BucketConnector;

/// Time between two handshakes of routine probes.
pub const CHAIN_READ_EVERY: Duration = Duration::from_secs(3600);

/// Part of a check's deadline after which a handshake is given up.
const DEADLINE_PARTS: u32 = 4;

/// End of the certificates of one service, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct ServiceCertificate {
    end: Option<CertificateEnd>,
    read_at: Option<Instant>,
}

impl ServiceCertificate {
    /// Reads the certificates of a service, a host and port, if that is due. `deadline` is that of a check. Only a part
    /// of it is used, so that a handshake that hangs does not make the check slow.
    pub(super) async fn read_if_due(
        &mut self,
        connector: &BucketConnector,
        service: Option<&(String, u16)>,
        depth: Depth,
        deadline: Duration,
    ) {
        let Some((host, port)) = service.filter(|_| self.is_due(depth)) else { return };
        self.read_at = Some(Instant::now());
        let reading = connector.certificate_end(host, *port, Timestamp::now());
        self.end = tokio::time::timeout(deadline / DEADLINE_PARTS, reading).await.ok().flatten();
    }

    fn is_due(&self, depth: Depth) -> bool {
        let is_old = self.read_at.is_none_or(|read_at| read_at.elapsed() >= CHAIN_READ_EVERY);
        is_old || depth == Depth::Full || self.ends_soon(Timestamp::now()).is_some()
    }

    fn ends_soon(&self, now: Timestamp) -> Option<&CertificateEnd> {
        self.end.as_ref().filter(|end| end.at <= now + END_ANNOUNCED_BEFORE)
    }

    /// Returns which certificate ends first, and when. `None` if that is not known.
    pub(super) fn end(&self) -> Option<&CertificateEnd> {
        self.end.as_ref()
    }

    /// Returns a warning if a certificate ends soon.
    pub(super) fn warning(&self, location: &S3Location) -> Option<Finding> {
        let CertificateEnd { at, subject, position, of } = self.ends_soon(Timestamp::now())?;
        let what = if *position == 1 {
            "the service's certificate".to_owned()
        } else {
            format!("certificate {position} of {of} in the chain that the service presents, that of an issuer,")
        };
        Some(finding!(
            Reason::CertificateExpiresSoon,
            "{location}: {what} with the subject \"{subject}\" expires at {at:.0}, and from then on TLS fails: renew it, install it on the service and on every proxy in front of it, with its intermediate certificates, and reload them"
        ))
    }
}
