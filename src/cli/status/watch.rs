//! The loop of `status --watch`.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::{BoxFuture, OptionFuture};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::filter::{Filter, nothing_found, sort_worst_first};
use super::frame::{clock, frame, no_answer};
use super::screen::Screen;
use super::{DETAIL, state};
use crate::api::wire;
use crate::cli::client::{Client, ClientError};
use crate::cli::exit::ExitState;
use crate::cli::render;
use crate::cli::terminal::{OutputStyle, error_chain, try_print};

/// What is known about the targets.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The filter as on the command line.
    pub(super) filter: Option<String>,
    /// The latest answer of the agent.
    pub(super) latest: Option<Latest>,
    /// Since when the agent has not answered, and the latest error.
    pub(super) failure: Option<(Timestamp, String)>,
}

/// Answer of the agent.
#[derive(Debug)]
pub(super) struct Latest {
    /// Time of the request.
    pub(super) at: Timestamp,
    /// Number of all targets.
    pub(super) all: usize,
    /// The targets that match the filter, the worst first.
    pub(super) shown: wire::TargetDetailList,
}

impl Watched {
    /// Adds the result of a request.
    fn add(&mut self, asked_at: Timestamp, answer: Result<wire::TargetDetailList, ClientError>, filter: &Filter) {
        match answer {
            Ok(list) => {
                let mut shown = filter.selected(&list);
                sort_worst_first(&mut shown);
                self.latest = Some(Latest { at: asked_at, all: list.backup_targets.len(), shown });
                self.failure = None;
            }
            Err(error) => {
                let since = self.failure.as_ref().map_or(asked_at, |(since, _)| *since);
                self.failure = Some((since, error_chain(&error.into())));
            }
        }
    }

    /// Describes since when the agent does not answer. `None` while it answers.
    pub(super) fn problem(&self, now: Timestamp) -> Option<String> {
        self.failure.as_ref().map(|(since, error)| no_answer(*since, error, now))
    }

    /// The exit state. An agent that does not answer proves nothing about its targets.
    fn state(&self) -> ExitState {
        match (&self.latest, &self.failure) {
            (Some(latest), None) => state(&latest.shown),
            _ => ExitState::Unknown,
        }
    }

    /// The text of one refresh for an output that is not a terminal.
    fn text(&self, now: Timestamp) -> String {
        if let Some(problem) = self.problem(now) {
            return format!("{} {problem}\n\n", clock(now));
        }
        let Some(latest) = &self.latest else { return String::new() };
        let table = if latest.shown.backup_targets.is_empty() {
            nothing_found(self.filter.as_deref(), latest.all)
        } else {
            render::status_table(&latest.shown, OutputStyle::of_stdout(), now)
        };
        format!("{}\n{table}\n", clock(latest.at))
    }
}

/// Shows the targets until a signal, the key `q`, or the end of the reader.
///
/// # Errors
/// When signals cannot be handled.
pub(super) async fn watch(client: &Client, filter: &Filter, interval: Duration) -> anyhow::Result<ExitState> {
    let handler = |kind| signal(kind).context("cannot handle signals");
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()]
        .map(handler)
        .into_iter()
        .collect::<anyhow::Result<Vec<Signal>>>()?;
    let mut resized = handler(SignalKind::window_change())?;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = Watched { filter: filter.describe(), ..Watched::default() };
    let mut request: Option<BoxFuture<'_, _>> = None;
    let mut screen = Screen::open();
    // Without a screen, Ctrl-Z does what it does by default.
    let mut suspended = if screen.is_some() { Some(handler(SignalKind::from_raw(nix::libc::SIGTSTP))?) } else { None };
    let quit_key = screen.as_ref().map(Screen::quit_key);
    loop {
        tokio::select! {
            () = ended(&mut ends) => break,
            Some(()) = OptionFuture::from(quit_key.as_ref().map(|key| key.notified())) => break,
            Some(_) = OptionFuture::from(suspended.as_mut().map(Signal::recv)) => {
                screen.iter_mut().for_each(Screen::suspend);
            }
            _ = resized.recv() => {}
            Some((asked_at, answer)) = OptionFuture::from(request.as_mut()) => {
                request = None;
                watched.add(asked_at, answer, filter);
                if screen.is_none() && try_print(&watched.text(Timestamp::now())).is_err() {
                    break;
                }
            }
            _ = ticks.tick() => {
                request.get_or_insert_with(|| Box::pin(async { (Timestamp::now(), client.get(DETAIL).await) }));
            }
        }
        if let Some(screen) = &screen {
            let (_, height) = screen.size();
            if screen.show(&frame(&watched, interval, screen.style(), height, Timestamp::now())).is_err() {
                break;
            }
        }
    }
    Ok(watched.state())
}

/// Waits for the first of the signals.
async fn ended(signals: &mut [Signal]) {
    futures::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}
