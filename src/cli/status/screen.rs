//! The terminal of `status --watch`, as a full screen.
//!
//! The table is on the alternate screen (xterm control sequences), so the scrollback of the terminal does not change. A
//! frame overwrites the former one line by line and is at most as high and as wide as the terminal, so nothing flickers
//! or scrolls. Keys are not echoed. Dropping the screen restores the terminal.

use std::io::{self, IsTerminal as _, Read as _, Stdin, Stdout};
use std::sync::Arc;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use tokio::sync::Notify;

use crate::cli::terminal::{OutputStyle, try_print};

/// Alternate screen on, cursor off, automatic wrap off.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";

/// The reverse of [`ENTER`].
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";

/// Begin of a frame: the terminal waits for the end of it (synchronized output), and the cursor is at the top left.
const FRAME_BEGIN: &str = "\u{1b}[?2026h\u{1b}[H";

/// End of a line: no attributes, and no rest of the former frame.
const LINE_END: &str = "\u{1b}[0m\u{1b}[K";

/// End of a frame: no rest of the former frame below it.
const FRAME_END: &str = "\u{1b}[J\u{1b}[?2026l";

/// Size of a terminal that does not report one, in columns and lines. A serial line reports 0.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// A terminal that shows frames.
pub(super) struct Screen {
    stdin: Stdin,
    stdout: Stdout,
    /// Terminal settings to restore. `None` if keys do not come from this terminal.
    saved: Option<Termios>,
}

impl Screen {
    /// Opens the screen. `None` if standard output is not a terminal, or one without cursor control.
    pub(super) fn open() -> Option<Self> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_dumb || !stdout.is_terminal() {
            return None;
        }
        let mut screen = Self { stdin, stdout, saved: None };
        screen.enter();
        Some(screen)
    }

    /// Columns and lines that a frame may use. The last column stays free, because clearing the rest of a line that
    /// fills it would clear the last character.
    pub(super) fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(&self.stdout).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        let (columns, lines) = if size.0 == 0 || size.1 == 0 { DEFAULT_SIZE } else { size };
        (columns.saturating_sub(1).max(1), lines)
    }

    /// Width and colours of a frame.
    pub(super) fn style(&self) -> OutputStyle {
        OutputStyle { width: self.size().0, ..OutputStyle::of_stdout() }
    }

    /// Shows the lines, and clears the rest of the screen.
    ///
    /// # Errors
    /// When the terminal cannot be written to, for example because its window was closed.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}{LINE_END}")).collect();
        try_print(&format!("{FRAME_BEGIN}{}{FRAME_END}", lines.join("\r\n")))
    }

    /// Restores the terminal and stops this process, as the shell expects after Ctrl-Z. Continues when the process
    /// does.
    pub(super) fn suspend(&mut self) {
        self.leave();
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
        self.enter();
    }

    /// Returns what is notified of the key `q`. Never notified if keys do not come from this terminal.
    pub(super) fn quit_key(&self) -> Arc<Notify> {
        let quit = Arc::new(Notify::new());
        if self.saved.is_some() {
            // A thread, because reading a terminal blocks. It ends with the process.
            let typed = quit.clone();
            std::thread::spawn(move || {
                if io::stdin().lock().bytes().map_while(Result::ok).any(|key| key == b'q') {
                    typed.notify_one();
                }
            });
        }
        quit
    }

    fn enter(&mut self) {
        // A background process must not change the terminal: the kernel would stop it (SIGTTOU).
        let is_foreground = tcgetpgrp(&self.stdin).is_ok_and(|group| group == getpgrp());
        self.saved = tcgetattr(&self.stdin).ok().filter(|_| is_foreground);
        if let Some(saved) = &self.saved {
            let mut changed = saved.clone();
            changed.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
            let _ = tcsetattr(&self.stdin, OptionalActions::Now, &changed);
        }
        let _ = try_print(ENTER);
    }

    fn leave(&mut self) {
        let _ = try_print(LEAVE);
        if let Some(saved) = self.saved.take() {
            // Keys that were typed meanwhile are dropped, so that the shell does not run them.
            let _ = tcsetattr(&self.stdin, OptionalActions::Flush, &saved);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}
