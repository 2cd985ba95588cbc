//! `targetwatch doctor`: checks what the agent needs on this host, and says what to do about each problem.
//!
//! Each topic has its own file, and uses the code with which the agent itself validates, opens or probes. Nothing is
//! changed, and a running agent is not disturbed. Topics run concurrently, each for at most
//! [`DEADLINE`](bounds::DEADLINE), and are printed in a fixed order. Paths below the mount root are accessed only by a
//! probe worker. Blocking calls run in threads that the end of the process does not wait for. `config check` is the
//! part that concerns the configuration file.

mod bounds;
mod capabilities;
mod clock;
mod configuration;
mod etcd;
mod facts;
mod files;
mod key_manager;
mod keystone;
mod mount_helper;
mod mount_root;
mod names;
mod propagation;
mod registry;
mod result;
mod rpcbind;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, StreamExt as _};

use super::exit::ExitState;
use super::runtime;
use crate::config::Settings;
use bounds::bounded;
use facts::Facts;
pub use result::Check;
use result::{HostCheck, Output};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file of the agent [default: /etc/targetwatch/config.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// Configuration file [default: /etc/targetwatch/config.toml if it exists]
    file: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Checks this host.
///
/// # Errors
/// When the runtime cannot be started, or a result cannot be encoded.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitState> {
    runtime::block_on(async {
        let mut output = Output::new(arguments.json);
        if let Some(settings) = check_configuration(arguments.config.as_deref(), &mut output).await {
            let registry::FoundRegistry { checked, targets, agent } = registry::check(&settings).await;
            output.add(Check::Registry, checked);
            check_host(&Arc::new(Facts { settings, targets, agent }), &mut output).await;
        } else {
            output.skip_rest("needs a valid configuration");
        }
        output.finish()
    })?
}

/// Checks a configuration file, and the files that it names.
///
/// # Errors
/// As [`run`].
pub fn check_config(arguments: &ConfigArguments) -> anyhow::Result<ExitState> {
    runtime::block_on(async {
        let mut output = Output::new(arguments.json);
        check_configuration(arguments.file.as_deref(), &mut output).await;
        output.finish()
    })?
}

async fn check_configuration(file: Option<&Path>, output: &mut Output) -> Option<Settings> {
    let (checked, settings) = configuration::check(file).await;
    output.add(Check::Configuration, checked);
    if let Some(settings) = &settings {
        output.add(Check::Files, bounded(files::check(settings)).await);
    }
    settings
}

/// Runs the checks that need the settings.
async fn check_host(facts: &Arc<Facts>, output: &mut Output) {
    let mut running: FuturesOrdered<BoxFuture<'_, (Check, HostCheck)>> = FuturesOrdered::new();
    let mut start = |name, check: BoxFuture<'static, HostCheck>| {
        running.push_back(bounded(check).map(move |checked| (name, checked)).boxed());
    };
    start(Check::MountHelper, mount_helper::check(facts.clone()).boxed());
    start(Check::Rpcbind, rpcbind::check(facts.clone()).boxed());
    start(Check::MountRoot, mount_root::check(facts.clone()).boxed());
    start(Check::Propagation, propagation::check(facts.clone()).boxed());
    start(Check::Capabilities, capabilities::check(facts.clone()).boxed());
    start(Check::Clock, clock::check().boxed());
    start(Check::Names, names::check(facts.clone()).boxed());
    start(Check::Keystone, keystone::check(facts.clone()).boxed());
    start(Check::KeyManager, key_manager::check(facts.clone()).boxed());
    start(Check::Etcd, etcd::check(facts.clone()).boxed());
    while let Some((name, checked)) = running.next().await {
        output.add(name, checked);
    }
}
