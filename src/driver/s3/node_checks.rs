//! Checks of this node: the bucket is reached from here with its credentials, and written to.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::canaries::Canaries;
use super::certificate::ServiceCertificate;
use super::input::Input;
use super::secret_credentials::{ReadCredentials, SecretCredentials};
use crate::check::bucket::{FoundBucket, bucket};
use crate::check::canary::CanaryNames;
use crate::check::in_use::{InUseWatch, bucket_at, in_use};
use crate::check::object_canary::CanaryMemory;
use crate::check::tcp_reachable::tcp_connect;
use crate::check::{CheckLog, Checked};
use crate::driver::host::Host;
use crate::model::report::{Finding, InUseFacts, finding};
use crate::model::secret_ref::SecretRef;
use crate::model::settings::{AgentSettings, S3AccessRule};
use crate::model::{CheckName, END_ANNOUNCED_BEFORE, MountName, Reason, S3Location, TargetId};
use crate::s3::aws::{
    AwsBucket, BucketConnector, ClientIdentity, REGION_WITHOUT_CONFIGURATION, RequestCounter, region,
};
use crate::s3::{S3Failure, within};
use crate::sys::node::machine_id;
use crate::sys::secret_file::exposure_warning;

/// Reasons with which a service refuses credentials, so that they may have been replaced.
const REFUSALS: [Reason; 4] =
    [Reason::UnknownAccessKey, Reason::WrongSecret, Reason::UserSuspended, Reason::AccessDenied];

/// State of the path to a service, without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathState {
    /// The service accepts connections, and the client would accept its certificate.
    Open,
    /// The check `reachable` did not pass.
    Broken,
    /// Something else fails or has changed, which only requests explain.
    Unclear,
}

/// Checks of the path from this node to a bucket, with their state.
pub(super) struct NodeChecks {
    connector: BucketConnector,
    credentials: SecretCredentials,
    latest_credentials: Option<ReadCredentials>,
    host: Arc<Host>,
    /// Id of this instance of the driver. The keys of its canaries contain it, so that no other instance removes them.
    instance: Uuid,
    pub(super) canaries: Canaries,
    pub(super) certificate: ServiceCertificate,
    /// The mount of the bucket by another program.
    in_use: InUseWatch,
}

impl NodeChecks {
    pub(super) fn new(
        target: TargetId,
        location: &S3Location,
        secret_ref: Option<SecretRef>,
        host: &Arc<Host>,
    ) -> Self {
        let store = host.canaries.clone();
        let memory = store.map_or_else(CanaryMemory::default, |store| CanaryMemory::new(target, store));
        Self {
            connector: BucketConnector::new(location.clone(), &host.buckets),
            credentials: SecretCredentials::new(secret_ref, host),
            latest_credentials: None,
            host: host.clone(),
            instance: Uuid::new_v4(),
            canaries: Canaries::new(memory),
            certificate: ServiceCertificate::default(),
            in_use: InUseWatch::default(),
        }
    }

    /// Counter of the requests for the bucket.
    pub(super) fn requests(&self) -> &RequestCounter {
        self.connector.requests()
    }

    /// Whether another program has mounted something at the mount path. Answers from memory.
    pub(super) fn is_mounted(&self, name: &MountName, settings: &AgentSettings) -> bool {
        let path = name.below(&settings.mounts.root);
        self.host.mounts.current().topmost_at(&path).is_some_and(|entry| !entry.is_automount())
    }

    /// Checks the mount that another program made at the mount path.
    pub(super) async fn verify_mount(
        &mut self,
        name: &MountName,
        settings: &AgentSettings,
        log: &mut CheckLog,
    ) -> Option<Box<InUseFacts>> {
        let path = name.below(&settings.mounts.root);
        let verifying = in_use(
            (&self.host.workers, &self.host.mounts),
            (&settings.mounts.root, name),
            settings,
            &mut self.in_use,
            true,
            |table| bucket_at(&path, table),
        );
        log.run(CheckName::InUse, verifying).await.flatten()
    }

    /// Checks that the service answers and that the bucket exists. Returns the client of the bucket and what was
    /// found. `canary_decides`: see [`bucket`].
    pub(super) async fn reach(
        &mut self,
        input: Input<'_>,
        canary_decides: bool,
        log: &mut CheckLog,
    ) -> Option<(AwsBucket, FoundBucket)> {
        let Input { location, settings, rule, depth, .. } = input;
        let deadline = settings.probe.deadline;
        let mut service = None;
        let connector = &mut self.connector;
        let credentials = self.credentials.read(input).await;
        let secret = credentials.secret();
        let known = secret.ok().flatten();
        let region = region(rule, known.map(|secret| &**secret)).await;
        let reaching = async {
            match address(connector, rule, region.as_ref().ok()).await {
                Ok((proxy, host, port)) => {
                    service = Some((host.clone(), port));
                    match proxy {
                        None => tcp_connect(&host, port, deadline).await,
                        Some((proxy, port)) => tcp_connect(&proxy, port, deadline).await.detail(format!(
                            "{proxy} port {port} is the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names for {host}"
                        )),
                    }
                }
                Err(failure) => Checked::failed(failure.finding(location)),
            }
        };
        log.run(CheckName::Reachable, reaching).await?;

        let connector = &mut self.connector;
        let certificate = &mut self.certificate;
        let mut api = None;
        let connecting = async {
            let secret = match secret {
                Ok(secret) => secret,
                Err(error) => {
                    let finding = error.finding(&location.to_string(), false);
                    return if error.is_outage() { Checked::timed_out(finding) } else { Checked::failed(finding) };
                }
            };
            let connecting = async { connector.connect(rule, secret, &region?).await };
            let connected = tokio::time::timeout(deadline, connecting).await.unwrap_or_else(|_| {
                Err(S3Failure::NoCredentials(format!("their source did not answer within {} ms", deadline.as_millis())))
            });
            match connected {
                Ok(connected) => {
                    let api = &*api.insert(connected);
                    let prefix = &settings.s3_canary.prefix;
                    let requests = bucket(api, location, prefix, canary_decides, deadline);
                    let reading = certificate.read_if_due(connector, service.as_ref(), depth, deadline);
                    let (checked, ()) = tokio::join!(requests, reading);
                    let checked =
                        checked.with_warnings(secret_exposed(api)).with_warnings(credentials.warning(location));
                    let checked = checked
                        .with_warnings(certificate.warning(location))
                        .with_warnings(credentials_expire_soon(api, location, Timestamp::now()));
                    match credentials.remark() {
                        Some(remark) => checked.detail(remark),
                        None => checked,
                    }
                }
                Err(failure) => Checked::failed(failure.finding(location)),
            }
        };
        let found = log.run(CheckName::Bucket, connecting).await;
        if found.is_none() && REFUSALS.iter().any(|reason| log.just_failed_with(*reason)) {
            self.credentials.refused(input, &credentials);
        }
        self.latest_credentials = Some(credentials);
        Some((api?, found?))
    }

    /// Checks the path to the service without a request: a connection, and a TLS handshake that trusts the authorities
    /// of the client. `known` is the client with which the bucket was last asked.
    pub(super) async fn verify_path(
        &mut self,
        input: Input<'_>,
        known: &ClientIdentity,
        log: &mut CheckLog,
    ) -> PathState {
        let Input { settings, rule, .. } = input;
        let deadline = settings.probe.deadline;
        let credentials = self.credentials.read(input).await;
        let Ok(secret) = credentials.secret() else { return PathState::Unclear };
        let connector = &mut self.connector;
        let connecting = async {
            let region = region(rule, secret.map(|secret| &**secret)).await?;
            let api = connector.connect(rule, secret, &region).await?;
            Ok::<_, S3Failure>((api.identity(), address(connector, rule, Some(&region)).await?))
        };
        let Ok(Ok((identity, (proxy, host, port)))) = tokio::time::timeout(deadline, connecting).await else {
            return PathState::Unclear;
        };
        if identity != *known {
            return PathState::Unclear;
        }
        let (address, at_port) = proxy.as_ref().map_or((&*host, port), |(proxy, port)| (proxy, *port));
        let Some(connected) = log.run(CheckName::Reachable, tcp_connect(address, at_port, deadline)).await else {
            return PathState::Broken;
        };
        let accepting = connector.accepts_service(&host, port, connected.stream);
        match tokio::time::timeout(deadline, accepting).await {
            Ok(true) => PathState::Open,
            _ => PathState::Unclear,
        }
    }

    /// Records that the service refuses the credentials of the latest [`Self::reach`], although that check has passed:
    /// a canary did not show that they can write.
    pub(super) fn credentials_refused(&self, input: Input<'_>) {
        if let Some(credentials) = &self.latest_credentials {
            self.credentials.refused(input, credentials);
        }
    }

    /// Returns the names of this node's canaries in the bucket.
    pub(super) fn names(&self, input: Input<'_>) -> CanaryNames {
        let node = format!("{} {}", self.host.hostname, machine_id());
        let (prefix, export) = (&input.settings.s3_canary.prefix, input.location.to_string());
        CanaryNames::new(prefix, &node, &export, self.host.role, self.instance)
    }

    /// Removes all canaries of this node. Returns a remark if one may remain.
    pub(super) async fn remove_canaries(&mut self, input: Input<'_>) -> Option<String> {
        let names = self.names(input);
        let deadline = input.settings.probe.deadline;
        let remains = |why: String| {
            let (location, folder) = (input.location, names.folder());
            format!("{location}: a canary may remain, because it could not be removed ({why}): look below {folder}")
        };
        let credentials = self.credentials.read(input).await;
        let secret = match credentials.secret() {
            Ok(secret) => secret,
            Err(error) => return Some(remains(error.to_string())),
        };
        let removing = async {
            let region = region(input.rule, secret.map(|secret| &**secret)).await?;
            let api = self.connector.connect(input.rule, secret, &region).await?;
            self.canaries.remove_all(&api, &names, input.location, deadline).await
        };
        match within(deadline, removing).await {
            Ok(remark) => remark,
            Err(failure) => Some(remains(failure.to_string())),
        }
    }
}

/// Proxy in front of a service, if there is one, then host and port of the service.
type Address = (Option<(String, u16)>, String, u16);

async fn address(
    connector: &mut BucketConnector,
    rule: Option<&S3AccessRule>,
    region: Option<&String>,
) -> Result<Address, S3Failure> {
    // An endpoint has the same address in all regions.
    let region = region.map_or(REGION_WITHOUT_CONFIGURATION, String::as_str);
    let (host, port) = connector.service_address(rule, region).await?;
    Ok((connector.proxy_to(&host, port)?, host, port))
}

/// Returns the host to which this node connects for a bucket: the service, or the proxy in front of it.
///
/// # Errors
/// The sentence of the check `reachable`.
pub(super) async fn contacted_host(location: &S3Location, rule: Option<&S3AccessRule>) -> Result<String, String> {
    let mut connector = BucketConnector::new(location.clone(), &Arc::default());
    match address(&mut connector, rule, region(rule, None).await.ok().as_ref()).await {
        Ok((Some((proxy, _)), ..)) => Ok(proxy),
        Ok((None, host, _)) => Ok(host),
        Err(failure) => Err(failure.finding(location).message),
    }
}

/// Returns a warning if other users of this host can read or change the credentials.
fn secret_exposed(api: &AwsBucket) -> Option<Finding> {
    Some(Finding::new(Reason::SecretExposed, exposure_warning(api.exposed_secret()?)))
}

/// Returns a warning if the credentials expire soon and their source does not renew them.
fn credentials_expire_soon(api: &AwsBucket, location: &S3Location, now: Timestamp) -> Option<Finding> {
    let end = api.credentials_expire_at().filter(|_| api.is_renewal_overdue())?;
    (now < end && end <= now + END_ANNOUNCED_BEFORE).then(|| {
        finding!(
            Reason::CredentialsExpireSoon,
            "{location}: the credentials with access key {} expire at {end:.0}, and their source provided the same ones when it was asked for newer ones: renew them at their source (the credential process, profile or metadata service)",
            api.access_key_id()
        )
    })
}
