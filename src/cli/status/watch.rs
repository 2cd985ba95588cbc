//! The loop of `status --watch`.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::{BoxFuture, OptionFuture};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::filter::Filter;
use super::frame::frame;
use super::screen::Screen;
use super::watched::{DETAIL, Watched};
use crate::cli::client::Client;
use crate::cli::exit::ExitState;
use crate::cli::terminal::try_print;

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
