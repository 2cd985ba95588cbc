//! Remedies of failures, for the on-call operator: what to look at, and which configuration key to set.

use super::failure::S3Failure;
use crate::model::Reason;

impl S3Failure {
    /// Returns what the operator should do.
    pub(super) fn remedy(&self, reason: Reason) -> String {
        let fixed = match reason {
            Reason::WrongRegion => {
                let Self::Service { region: Some(region), .. } = self else {
                    return "the bucket is in another region, which the service does not name: ask the owner of the bucket, and set region in its [[s3.credentials]] entry".to_owned();
                };
                return format!(
                    "the bucket is in region {region}: set region = \"{region}\" in its [[s3.credentials]] entry"
                );
            }
            Reason::WrongSecret => {
                "the secret does not belong to the access key: correct the secret access key of its [[s3.credentials]] entry or of its secret_ref"
            }
            Reason::UnknownAccessKey if self.has_code(&["InvalidToken"]) => {
                "the session token is not valid, or does not belong to the access key: renew the temporary credentials, or remove the token of credentials that have none"
            }
            Reason::UnknownAccessKey => {
                "the service does not know the access key: correct it in its [[s3.credentials]] entry or in the secret of its secret_ref, or create the key on the service"
            }
            Reason::UserSuspended => {
                "the user of the access key is suspended: ask the service's administrator to enable it (Ceph: radosgw-admin user enable)"
            }
            Reason::ClockSkewed => {
                "correct the clock that is wrong (`chronyc tracking` or `timedatectl` on either host)"
            }
            Reason::BucketNotFound => "create the bucket, or correct its name or the endpoint",
            Reason::AccessDenied if self.has_expired_credentials() => {
                "the temporary credentials have expired: renew them"
            }
            Reason::RequestRefused => {
                "the service does not accept this request as it is: look up the code in the service's documentation, and check the service's log"
            }
            Reason::AccessDenied => {
                "grant the credentials s3:ListBucket, s3:GetBucketLocation, s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration on it"
            }
            Reason::Redirected => {
                let leads_to = match self {
                    Self::Service { leads_to: Some(to), .. } => format!("it redirects to {to}; "),
                    _ => String::new(),
                };
                return format!(
                    "{leads_to}the agent does not follow redirects, because they can lead to another store: give the target the endpoint that serves the bucket"
                );
            }
            Reason::Throttled => {
                "the service asks for fewer requests: check its load and its limits for this user, or raise [probe] s3_interval"
            }
            Reason::QuotaExceeded if self.is_size_limit() => {
                "the agent sends at most 4 KiB, so the limit is a quota that is used up (OpenStack Swift reports it this way): raise it, or remove backups. If a proxy answers, raise its limit for request bodies"
            }
            Reason::QuotaExceeded => "raise the quota of the bucket and of its owner, or remove backups",
            Reason::StorageFull => "the storage behind the service is full: add storage, or remove backups",
            Reason::NotImplemented => {
                "the service does not implement this call: check that the endpoint is an S3 service and that its version supports the call"
            }
            Reason::ServerError if self.lacks_code() => {
                "the answer may come from a proxy or load balancer: check its log, and that the service behind it runs"
            }
            Reason::ServerError => "the service is broken or still starting: check its log",
            Reason::NotS3 => {
                "check that the endpoint and its port belong to an S3 service, and that no proxy or login page answers instead. Use https:// if the port expects TLS"
            }
            Reason::ResponseTimedOut => {
                "the service accepts connections but did not answer completely: check its health and the storage behind it"
            }
            Reason::NameNotResolved => "check the host name of the endpoint, and DNS on this host",
            Reason::ConnectionRefused => "start the service, or correct the port",
            Reason::HostUnreachable => "check the routes of this host, and that the server is up",
            Reason::TlsFailed => match self {
                Self::TlsToPlain => "use http:// in the endpoint of the target, or correct the port",
                Self::PlainToTls => "use https:// in the endpoint of the target, or correct the port",
                Self::Certificate(fault) => fault.remedy(),
                _ => "check the server's certificate, and ca_bundle in the [[s3.credentials]] entry",
            },
            Reason::ConnectionBroken => {
                "check the service's log for restarts or crashes, and what lies between: proxies, firewalls, TLS on a plain port. Use https:// if the port expects TLS"
            }
            Reason::NoCredentials => {
                "add a [[s3.credentials]] entry for the bucket, or correct the existing one. With [key_manager], set secret_ref of the target"
            }
            _ => "this is a defect of the agent or of its configuration",
        };
        fixed.to_owned()
    }

    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Service { code: Some(code), .. } if codes.contains(&code.as_str()))
    }

    fn is_size_limit(&self) -> bool {
        matches!(self, Self::Service { status: 413, .. }) || self.has_code(&["EntityTooLarge"])
    }
}
