//! Remedies of failures, for the on-call operator: what to look at, and which configuration key to set.

use super::S3Failure;
use crate::model::Reason;

impl S3Failure {
    /// Returns what the operator should do.
    pub(super) fn remedy(&self, reason: Reason) -> String {
        let fixed = match reason {
            Reason::WrongRegion => {
                let Self::Service { region: Some(region), .. } = self else {
                    return "the bucket is in another region, which the service does not name: ask who made the bucket, and set region in its [[s3.credentials]] entry".to_owned();
                };
                return format!(
                    "the bucket is in region {region}: set region = \"{region}\" in its [[s3.credentials]] entry"
                );
            }
            Reason::WrongSecret => {
                "the secret does not belong to the access key: correct the secret access key of its [[s3.credentials]] entry"
            }
            Reason::UnknownAccessKey => {
                "the service does not know the access key: correct it in its [[s3.credentials]] entry, or have it made anew on the service"
            }
            Reason::UserSuspended => {
                "the user of the access key is suspended: ask the service's administrator to enable it (Ceph: radosgw-admin user enable)"
            }
            Reason::ClockSkewed => "correct the one that is wrong (`chronyc tracking` or `timedatectl` on either host)",
            Reason::BucketNotFound => "create the bucket, or correct its name or the endpoint",
            Reason::AccessDenied if self.has_expired_credentials() => {
                "the temporary credentials have expired: renew them"
            }
            Reason::AccessDenied if !matches!(self, Self::Service { status: 401 | 403, .. }) => {
                "look the code up in the service's documentation, and at the service's own log"
            }
            Reason::AccessDenied => {
                "grant the credentials s3:ListBucket, s3:GetBucketLocation, s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration on it"
            }
            Reason::Redirected => {
                let leads_to = match self {
                    Self::Service { leads_to: Some(to), .. } => format!("it sends to {to}; "),
                    _ => String::new(),
                };
                return format!(
                    "{leads_to}redirects are not followed, since they can lead to another store: give the target the endpoint that the bucket is really at"
                );
            }
            Reason::Throttled => {
                "the service asks for fewer requests: look at what loads it and at its limits for this user, or raise [probe] s3_interval"
            }
            Reason::QuotaExceeded => "raise the quota of the bucket and of its owner, or remove backups",
            Reason::NotImplemented => {
                "the service does not offer this call: check that the endpoint is that of an S3 service and that its version does"
            }
            Reason::ServerError if self.lacks_code() => {
                "this may be a proxy or load balancer in front: look at its log, and whether the service behind it runs"
            }
            Reason::ServerError => "the service is broken or still starting: look at its own log",
            Reason::NotS3 => {
                "check that the endpoint and its port are those of an S3 service, and that no proxy or login page answers instead of it"
            }
            Reason::ResponseTimedOut => {
                "the service accepts connections but did not answer, or not to the end: look at its health and at the storage behind it"
            }
            Reason::NameNotResolved => "check the endpoint's name, and DNS on this host",
            Reason::ConnectionRefused => "start the service, or correct the port",
            Reason::HostUnreachable => "check this host's routes and that the server is up",
            Reason::TlsFailed => match self {
                Self::Certificate(fault) => fault.remedy(),
                _ => {
                    "check the server's certificate, and ca_bundle in the [[s3.credentials]] entry; use http:// if it does not speak TLS"
                }
            },
            Reason::ConnectionBroken => {
                "look whether the service restarts or crashes (its log), and at what is between: proxies, firewalls, TLS or plain"
            }
            Reason::NoCredentials => "give the bucket a [[s3.credentials]] entry, or correct the one it has",
            _ => "this is a fault of the agent or its configuration",
        };
        fixed.to_owned()
    }
}
