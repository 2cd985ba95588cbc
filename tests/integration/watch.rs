//! `status --watch` on a terminal, and its selection of targets.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::storage::{nfs, nfs_target};
use crate::terminal_display::OnTerminal;
use crate::workspace::Workspace;

const AVAILABLE: i32 = 0;
const OFFLINE: i32 = 2;
const UNKNOWN: i32 = 3;

const WATCH: &[&str] = &["status", "--watch", "--interval", "1"];

/// An agent with `/backups`, which is available, and `offline` targets that are not exported.
async fn agent(workspace: &Workspace, offline: usize) -> Daemon {
    let (daemon, id) = Daemon::with_target(workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    for number in 0..offline {
        let id = daemon.create(nfs_target(&format!("/not-exported-{number:02}"))).await;
        daemon.check(&id).await;
    }
    daemon
}

/// Where a text is on the screen. It must be there.
fn position(screen: &str, text: &str) -> usize {
    screen.find(text).unwrap_or_else(|| panic!("{text:?} is not in:\n{screen}"))
}

#[tokio::test]
async fn watch_repaints_one_screen_with_the_worst_targets_first() {
    let (_nfs, workspace) = nfs().await;
    let daemon = agent(&workspace, 1).await;
    let mut watch = OnTerminal::start(&workspace, WATCH, 120, 20);
    let first =
        watch.wait_for("both targets", |screen| screen.contains("not-exported") && screen.contains("* 1")).await;
    assert!(position(&first, "/not-exported-00") < position(&first, "/backups"), "{first}");
    assert!(first.contains("2 targets: 1 offline, 1 available"), "{first}");
    assert!(first.contains("127.0.0.1:/not-exported-00: the server does not export"), "{first}");
    assert!(!watch.echoes(), "typed keys would be in the table");
    let id = daemon.create(nfs_target("/one")).await;
    daemon.check(&id).await;
    watch
        .wait_for("the new target", |screen| screen.contains("127.0.0.1:/one") && screen.contains("2 available"))
        .await;
    watch.type_keys("\u{3}");
    assert_eq!(watch.ended().await, Some(OFFLINE));
    let display = watch.display();
    assert_eq!((display.scrolled, display.overflowed, display.on_main_screen.as_str()), (0, 0, ""));
}

#[tokio::test]
async fn watch_fits_every_size_of_terminal() {
    let (_nfs, workspace) = nfs().await;
    let _daemon = agent(&workspace, 30).await;
    let watch = OnTerminal::start(&workspace, WATCH, 80, 24);
    let screen = watch.wait_for("80x24", |screen| screen.lines().count() == 24).await;
    assert!(screen.contains("31 targets: 30 offline, 1 available"), "{screen}");
    let shown = screen.lines().filter(|line| line.contains("export_denied")).count();
    let hidden = format!("… and {} more: {} offline, 1 available", 31 - shown, 30 - shown);
    assert!(shown >= 10 && screen.contains(&hidden), "{screen}");
    for (columns, lines) in [(200, 50), (40, 10), (10, 5), (2, 1), (132, 43)] {
        watch.resize(columns, lines);
        watch.wait_for("another frame", |screen| screen.starts_with('B')).await;
    }
    let screen = watch.wait_for("132x43", |screen| screen.contains("CAPACITY") && screen.contains("/backups")).await;
    assert!(!screen.contains("more:"), "{screen}");
    let display = watch.display();
    assert_eq!((display.scrolled, display.overflowed), (0, 0));
}

#[tokio::test]
async fn watch_says_since_when_the_agent_does_not_answer() {
    let (_nfs, workspace) = nfs().await;
    let mut daemon = agent(&workspace, 0).await;
    let mut watch = OnTerminal::start(&workspace, WATCH, 100, 24);
    watch.wait_for("the target", |screen| screen.contains("1 target: 1 available")).await;
    daemon.stop().await;
    let screen = watch.wait_for("a problem", |screen| screen.contains("no answer since")).await;
    assert!(screen.contains("/backups"), "the latest table stays: {screen}");
    let since = |screen: &str| screen[position(screen, "since ")..][..15].to_owned();
    let later = watch
        .wait_for("the age of the problem", |screen| {
            // A loaded host may skip a refresh.
            screen.contains("no answer since") && !screen.contains("for 0 s: ")
        })
        .await;
    assert_eq!(since(&screen), since(&later));
    let daemon = Daemon::start(&workspace).await;
    watch.wait_for("the new agent", |screen| !screen.contains("no answer") && screen.contains("/backups")).await;
    drop(daemon);
    watch.wait_for("a problem", |screen| screen.contains("no answer since")).await;
    watch.type_keys("q");
    assert_eq!(watch.ended().await, Some(UNKNOWN), "the latest answer proves nothing");
}

#[tokio::test]
async fn watch_restores_the_terminal_at_every_end() {
    let (_nfs, workspace) = nfs().await;
    let _daemon = agent(&workspace, 0).await;
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGINT] {
        let mut watch = OnTerminal::start(&workspace, WATCH, 80, 24);
        watch.wait_for("the target", |screen| screen.contains("/backups")).await;
        let pid = i32::try_from(watch.child.id().expect("running")).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signalled");
        assert_eq!(watch.ended().await, Some(AVAILABLE), "{signal}");
    }
}

#[tokio::test]
async fn watch_restores_the_terminal_while_it_is_suspended() {
    let (_nfs, workspace) = nfs().await;
    let _daemon = agent(&workspace, 0).await;
    let mut watch = OnTerminal::start(&workspace, WATCH, 80, 24);
    watch.wait_for("the target", |screen| screen.contains("/backups")).await;
    let pid = Pid::from_raw(i32::try_from(watch.child.id().expect("running")).expect("a process id"));
    kill(pid, Signal::SIGTSTP).expect("signalled");
    eventually("it is suspended", async || (!watch.display().is_alternate && watch.echoes()).then_some(())).await;
    kill(pid, Signal::SIGCONT).expect("signalled");
    watch.wait_for("the target again", |screen| screen.contains("/backups")).await;
    watch.type_keys("q");
    assert_eq!(watch.ended().await, Some(AVAILABLE));
}

#[tokio::test]
async fn watch_ends_while_the_agent_does_not_answer() {
    let workspace = Workspace::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let api = format!("http://{}", listener.local_addr().expect("an address"));
    let mut watch = OnTerminal::start(&workspace, &[&["--api", &api], WATCH].concat(), 80, 24);
    let (_silent, _) = with_timeout("a connection", listener.accept()).await.expect("accepted");
    watch.type_keys("\u{3}");
    assert_eq!(watch.ended().await, Some(UNKNOWN));
}

#[tokio::test]
async fn watch_appends_plain_tables_where_the_output_is_not_a_terminal() {
    let (_nfs, workspace) = nfs().await;
    let _daemon = agent(&workspace, 1).await;
    let mut child = workspace.command(WATCH).spawn().expect("run");
    let mut stdout = child.stdout.take().expect("piped");
    let mut text = String::new();
    while text.matches("TARGET").count() < 2 {
        let mut bytes = [0; 4096];
        let length = with_timeout("two tables", stdout.read(&mut bytes)).await.expect("read");
        text += str::from_utf8(&bytes[..length]).expect("text");
    }
    assert!(!text.contains('\u{1b}') && text.contains("export_denied"), "{text}");
    assert!(position(&text, "/not-exported-00") < position(&text, "/backups"), "{text}");
    // As `| head` does.
    drop(stdout);
    let status = with_timeout("its exit", child.wait()).await.expect("waited for");
    assert_eq!(status.code(), Some(OFFLINE));
}

#[tokio::test]
async fn status_shows_only_selected_targets() {
    let (_nfs, workspace) = nfs().await;
    let _daemon = agent(&workspace, 2).await;
    for (options, shown, code) in [
        ("--status offline", &["/not-exported-00", "/not-exported-01"][..], OFFLINE),
        ("--status warning --status available", &["/backups"], AVAILABLE),
        ("--type nfs --export BACK", &["/backups"], AVAILABLE),
        ("--reason export_denied --export 01", &["/not-exported-01"], OFFLINE),
        ("--type s3", &[], UNKNOWN),
    ] {
        let arguments: Vec<&str> = ["status"].into_iter().chain(options.split(' ')).collect();
        let output = workspace.run(&arguments).await;
        assert_eq!(output.code, code, "{options}: {output:?}");
        for export in ["/backups", "/not-exported-00", "/not-exported-01"] {
            assert_eq!(output.stdout.contains(export), shown.contains(&export), "{options}: {output:?}");
        }
        assert!(!shown.is_empty() || output.stdout.contains("none of 3 targets matches --type s3"), "{output:?}");
    }
    let rows = workspace.run(&["status", "--export", "01", "-f", "value", "-c", "Filesystem Export"]).await;
    assert_eq!(rows.stdout, "127.0.0.1:/not-exported-01\n");
}
