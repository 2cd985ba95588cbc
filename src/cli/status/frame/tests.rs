//! Frames of every size.

use proptest::prelude::*;

use super::super::filter::sort_worst_first;
use super::super::watched::Latest;
use super::*;
use crate::cli::render::tests::detail;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Targets with these states, in the order of `--watch`.
fn watched(offline: usize, warning: usize, available: usize) -> Watched {
    let mut targets = Vec::new();
    for (count, status, reason) in [
        (available, "available", None),
        (warning, "available", Some("full_soon")),
        (offline, "offline", Some("storage_timed_out")),
    ] {
        for number in 0..count {
            let mut target = detail(status, reason);
            target.target.is_default = false;
            target.target.filesystem_export = format!("nas-01.example.com:/exports/backup/{status}-{number:03}");
            target.report.message = reason.map(|_| "look at the server ".repeat(12).trim_end().to_owned());
            target.report.time_to_full_s = (reason == Some("full_soon")).then_some(200_000);
            targets.push(target);
        }
    }
    let mut shown = wire::TargetDetailList { backup_targets: targets };
    sort_worst_first(&mut shown);
    let all = shown.backup_targets.len();
    Watched { latest: Some(Latest { at: at("2025-01-30T12:10:00Z"), all, shown }), ..Watched::default() }
}

fn lines(watched: &Watched, width: u16, height: u16) -> Vec<String> {
    let style = OutputStyle { width, has_color: false };
    frame(watched, Duration::from_secs(2), style, height, at("2025-01-30T12:10:01Z"))
}

#[test]
fn narrow_frame_omits_columns_shortens_exports_and_counts_hidden_targets() {
    insta::assert_snapshot!(lines(&watched(2, 1, 20), 79, 16).join("\n"), @r"
    Backup targets as of 12:10:00Z, every 2 s, q to quit
    23 targets: 2 offline, 1 with a warning, 20 available

    TARGET                       STATUS    SINCE  USED   FULL IN REASON
    nas-01.ex…backup/offline-000 offline   10 min 50.0 %       - storage_timed_out
    nas-01.ex…backup/offline-001 offline   10 min 50.0 %       - storage_timed_out
    nas-01.ex…ckup/available-000 available 10 min 50.0 %     2 d full_soon
    nas-01.ex…ckup/available-000 available 10 min 50.0 %       -
    nas-01.ex…ckup/available-001 available 10 min 50.0 %       -
    nas-01.ex…ckup/available-002 available 10 min 50.0 %       -
    nas-01.ex…ckup/available-003 available 10 min 50.0 %       -
    … and 16 more: 16 available

    nas-01.example.com:/exports/backup/offline-000: look at the server look at the
      server look at the server look at the server look at the server look at the
    …
    ");
}

#[test]
fn wide_frame_shows_every_column_and_message() {
    insta::assert_snapshot!(lines(&watched(1, 1, 1), 160, 50).join("\n"), @r"
    Backup targets as of 12:10:00Z, every 2 s, q to quit
    3 targets: 1 offline, 1 with a warning, 1 available

    TARGET                                            TYPE  STATUS     SINCE   CAPACITY             USED    FULL IN  CHECKED  REASON
    nas-01.example.com:/exports/backup/offline-000    nfs   offline    10 min  [#####.....] 2.4 TB  50.0 %        -  6 s      storage_timed_out
    nas-01.example.com:/exports/backup/available-000  nfs   available  10 min  [#####.....] 2.4 TB  50.0 %      2 d  6 s      full_soon
    nas-01.example.com:/exports/backup/available-000  nfs   available  10 min  [#####.....] 2.4 TB  50.0 %        -  6 s

    nas-01.example.com:/exports/backup/offline-000: look at the server look at the server look at the server look at the server look at the server look at the
      server look at the server look at the server look at the server look at the server look at the server look at the server
    nas-01.example.com:/exports/backup/available-000: look at the server look at the server look at the server look at the server look at the server look at the
      server look at the server look at the server look at the server look at the server look at the server look at the server
    ");
}

#[test]
fn frame_without_answer_says_so() {
    let failure = Some((at("2025-01-30T12:09:50Z"), "cannot connect to unix:/run/targetwatch/api.sock".to_owned()));
    insta::assert_snapshot!(lines(&Watched { failure, ..Watched::default() }, 79, 10).join("\n"), @r"
    Backup targets, every 2 s, q to quit
    no answer since 12:09:50Z, for 11 s: cannot connect to
      unix:/run/targetwatch/api.sock
    ");
}

#[test]
fn frame_without_targets_says_why() {
    let empty = |filter: Option<&str>, all| {
        let mut watched = Watched { filter: filter.map(str::to_owned), ..watched(0, 0, 0) };
        watched.latest.iter_mut().for_each(|latest| latest.all = all);
        lines(&watched, 100, 10)[1].clone()
    };
    assert_eq!(empty(Some("--status offline"), 7), "none of 7 targets matches --status offline");
    assert!(empty(None, 0).contains("targetwatch target create"));
}

#[test]
fn long_words_are_broken_and_lines_are_indented() {
    assert_eq!(wrap("a bc defghijklmnop q", 9), ["a bc", "  defghij", "  klmnop", "  q"]);
    assert_eq!(wrap("", 9), [""]);
    assert_eq!(cut("a\u{1b}[31mbc\u{1b}[0md", 2), "a\u{1b}[31mb\u{1b}[0m");
}

proptest! {
    #[test]
    fn frame_fits_every_terminal(
        counts in (0_usize..28, 0_usize..28, 0_usize..28),
        width in 1_u16..250,
        height in 1_u16..80,
        is_failing in any::<bool>(),
    ) {
        let mut watched = watched(counts.0, counts.1, counts.2);
        watched.failure = is_failing.then(|| (at("2025-01-30T12:09:50Z"), "no answer ".repeat(50)));
        let lines = lines(&watched, width, height);
        prop_assert!(lines.len() <= height.into());
        prop_assert!(lines.iter().all(|line| line.width() <= width.into() && !line.contains('\n')), "{lines:#?}");
        // Each target has a line, or is counted as hidden.
        let shown = lines.iter().filter(|line| line.contains("available") || line.contains("offline")).count();
        prop_assert!(height < 12 || width < 79 || counts == (0, 0, 0) || shown > 0, "{lines:#?}");
    }
}
