//! Colour of the command line's output.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use nix::pty::openpty;

use crate::daemon::{Daemon, with_timeout};
use crate::storage::{nfs, nfs_target};
use crate::workspace::Workspace;

/// The first character of every colour sequence (ECMA-48).
const ESCAPE: char = '\u{1b}';

/// The output of `status` on a terminal with these environment variables.
async fn status_on_terminal(workspace: &Workspace, variables: &[(&str, &str)]) -> String {
    let pty = openpty(None, None).expect("a terminal");
    let mut command = workspace.command(&["status"]);
    command.env("TERM", "xterm").envs(variables.iter().copied()).stdout(Stdio::from(pty.slave));
    let mut child = command.spawn().expect("run");
    // The command holds the terminal's other end open until it is dropped.
    drop(command);
    let mut master = File::from(pty.master);
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        // The end of the output is an error on a terminal whose other end is closed.
        let _ = master.read_to_end(&mut text);
        String::from_utf8(text).expect("text")
    });
    let text = with_timeout("the end of its output", reading).await.expect("read");
    with_timeout("its exit", child.wait()).await.expect("waited for");
    text
}

#[tokio::test]
async fn status_is_coloured_only_on_terminals_without_no_color() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let coloured = status_on_terminal(&workspace, &[]).await;
    assert!(coloured.contains(ESCAPE) && coloured.contains("available"), "{coloured:?}");
    for variables in [&[("NO_COLOR", "1")][..], &[("TERM", "dumb")]] {
        let plain = status_on_terminal(&workspace, variables).await;
        assert!(!plain.contains(ESCAPE) && plain.contains("available"), "{variables:?}: {plain:?}");
    }
    let piped = workspace.run(&["status"]).await;
    assert!(!piped.stdout.contains(ESCAPE) && piped.stdout.contains("available"), "{piped:?}");
}
